"""Any optimizer of torch, made when training begins."""

from collections.abc import Callable, Iterable

from torch.nn import Parameter
from torch.optim import LBFGS, Optimizer

MakeOptimizer = Callable[[Iterable[Parameter]], Optimizer]
"""An optimizer that waits for its parameters, such as a partial of a class of `torch.optim`."""


def make_optimizer(make: MakeOptimizer, parameters: Iterable[Parameter]) -> Optimizer:
    """The optimizer of these parameters.

    Raises:
        ValueError: where its learning rate is not above 0, or it needs more than gradients.
    """
    rate = getattr(make, "keywords", {}).get("lr")
    if rate is not None and not rate > 0:
        raise ValueError(f"optimizer.lr={rate} must be above 0")
    optimizer = make(parameters)
    if isinstance(optimizer, LBFGS):
        raise ValueError(
            "optimizer: LBFGS computes the loss several times a step, which is not possible here; use one "
            "that needs the gradients alone, such as optimizer=adam"
        )
    return optimizer
