"""Any optimizer of torch, made when training begins."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import LBFGS, Adafactor, Adam, Muon, Optimizer, Rprop, SparseAdam

from ddpm.training.shards import are_shards

MakeOptimizer = Callable[[Iterable[Parameter]], Optimizer]
"""An optimizer that waits for its parameters, such as a partial of a class of `torch.optim`."""

ADAM: MakeOptimizer = partial(Adam, lr=2e-4, fused=True)
"""The paper's (Ho et al. 2020, appendix B)."""

UNFIT: dict[type[Optimizer], str] = {
    LBFGS: "to compute the loss several times a step, each time on the same noise",
    SparseAdam: "sparse gradients, and a network has dense ones",
    Muon: "matrices, and a network has convolutions and biases too",
}
"""Optimizers that cannot train here, with what they need."""

UNFIT_SHARDED: tuple[type[Optimizer], ...] = (Adafactor, Rprop)
"""Optimizers of torch whose arithmetic does not work on parts of parameters; tried with torch 2.13."""


def make_optimizer(make: MakeOptimizer, parameters: Iterable[Parameter]) -> Optimizer:
    """The optimizer of these parameters.

    Of sharded parameters torch has fused arithmetic for Adam alone, and for what is made of it; any other
    steps as it does without.

    Raises:
        ValueError: where its learning rate is not above 0, it needs more than gradients, or it cannot work on
            parts of parameters.
    """
    parameters = list(parameters)
    rate = getattr(make, "keywords", {}).get("lr")
    if rate is not None and (isinstance(rate, str) or not rate > 0):
        raise ValueError(f"optimizer.lr={rate} must be above 0")
    made = getattr(make, "func", make)
    if isinstance(made, type):  # before it is made: some say no in words of their own
        _check_fit(made)
    if are_shards(parameters):
        if isinstance(made, type) and issubclass(made, UNFIT_SHARDED):
            raise ValueError(
                f"optimizer: {made.__name__} cannot step where each device holds a part of a parameter "
                "(strategy=fsdp); use strategy=ddp, or another optimizer, such as optimizer=adamw"
            )
        if getattr(make, "keywords", {}).get("fused") and not (
            isinstance(made, type) and issubclass(made, Adam)
        ):
            unfused: Any = make
            make = partial(unfused, fused=False)
    optimizer = make(parameters)
    _check_fit(type(optimizer))
    return optimizer


def _check_fit(made: type) -> None:
    for kind, needs in UNFIT.items():
        if issubclass(made, kind):
            raise ValueError(f"optimizer: {kind.__name__} needs {needs}; use another, such as optimizer=adam")


@contextmanager
def lowered(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """Within the block the learning rates are multiplied by a factor, of which schedules learn nothing."""
    if factor == 1:
        yield
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The settings of each group of parameters as they are now, such as `lr`."""
    return [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]


def lay_out_moments(optimizer: Optimizer) -> None:
    """Bring the optimizer's tensors into the memory layout of their parameters. Those of a checkpoint lie as
    the weights did when it was written; a fused step needs them to lie as the weights do now.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if (
                isinstance(value, Tensor)
                and value.shape == parameter.shape != ()
                and value.stride() != parameter.stride()
            ):
                state[name] = torch.empty_like(parameter).copy_(value)
