"""A network without memory for its weights: what it is like, told before a large one is made."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from ddpm.errors import UsageError

Network = TypeVar("Network", bound=nn.Module)

PARTS_EACH = 10
"""Modules and parameters of a network for each of its weights, at most: a few of its modules have none."""


def outlined(make: Callable[[], Network], weights: Mapping[str, Any] | None = None) -> Network:
    """The network on the meta device.

    Args:
        make: builds it.
        weights: a state that it must be the network of; None for any. A configuration that comes with weights
            from a stranger may describe a network of any size, or one that is never built to its end.

    Raises:
        UsageError: where the weights are of another network.
    """
    if weights is None:
        with torch.device("meta"):
            return make()
    with torch.device("meta"), _at_most(PARTS_EACH * (len(weights) + 10)):
        network = make()
    for name, tensor in network.state_dict().items():
        shape = tuple(weights[name].shape) if isinstance(weights.get(name), Tensor) else "missing"
        if shape != tuple(tensor.shape):
            raise UsageError(
                f"model: its configuration and its weights are of two networks: {name} is "
                f"{tuple(tensor.shape)} in the one and {shape} in the other"
            )
    return network


@contextmanager
def _at_most(parts: int) -> Iterator[None]:
    """Within the block, no more modules and parameters than this."""
    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > parts:
            raise UsageError("model: its configuration describes a larger network than its weights are of")

    hooks = [
        register_module_module_registration_hook(count),
        register_module_parameter_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
