"""An exponential moving average of a network's parameters: the weights that samples are drawn with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class EMA:
    """average <- decay * average + (1 - decay) * parameter, after every optimizer step.

    Update n uses min(decay, (1 + n) / (10 + n)), so that the random start is forgotten within a few steps.
    Only parameters are averaged, never buffers, and nothing is ever copied back into the network.

    Args:
        network: whose parameters are followed.
        decay: in [0, 1); the paper's runs use 0.9999.

    Raises:
        ValueError: where the decay is out of range.
    """

    def __init__(self, network: nn.Module, decay: float = 0.9999):
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay={decay} must be at least 0 and below 1")
        self.decay = decay
        self.num_updates = 0
        self._names = [name for name, _ in network.named_parameters()]
        self._parameters = [parameter for _, parameter in network.named_parameters()]
        self._average = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters as they are now."""
        self._follow_device()
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self._average, self._parameters, 1 - decay)
        self.num_updates += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block the network computes with the average; its own parameters return in any case."""
        self._follow_device()
        own = [parameter.data for parameter in self._parameters]
        try:
            for parameter, average in zip(self._parameters, self._average, strict=True):
                parameter.data = average
            yield
        finally:
            for parameter, data in zip(self._parameters, own, strict=True):
                parameter.data = data

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers: the average by parameter name, and how often it was updated."""
        return {
            "num_updates": self.num_updates,
            "parameters": dict(zip(self._names, self._average, strict=True)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of `state_dict`; the decay stays the one of the constructor."""
        self.num_updates = state["num_updates"]
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state["parameters"][name])

    @torch.no_grad()
    def follow(self) -> None:
        """Put the average where the parameters are, in the memory layout that they have."""
        self._average = [
            torch.empty_like(parameter, requires_grad=False).copy_(average)
            for parameter, average in zip(self._parameters, self._average, strict=True)
        ]

    def _follow_device(self) -> None:
        if self._average[0].device != self._parameters[0].device:
            self.follow()
