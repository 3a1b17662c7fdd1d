"""Averages of a network's parameters: the weights that samples are drawn with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ddpm.training.shards import copy_into, parts, placed_as


class Average(Protocol):
    """Follows the parameters of a network as they are trained."""

    def update(self) -> None:
        """Take the parameters as they are now into account; called after every optimizer step."""
        ...

    def reset(self) -> None:
        """Begin anew at the parameters as they are now."""
        ...

    def follow(self) -> None:
        """Go where the parameters are: into their memory layout, to their device, into the parts that each
        process holds of them; also where others have taken their place in the network.
        """
        ...

    def swapped_in(self) -> AbstractContextManager[None]:
        """Within the block the network computes with the average; its own parameters return in any case."""
        ...

    def swapped_out(self) -> AbstractContextManager[None]:
        """Within the block the network computes with its own parameters, also where a block around it has
        swapped the average in, which returns in any case.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain containers for a checkpoint: `parameters`, the average by name, and what else there is to
        know; empty where no average is kept.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        ...


MakeAverage = Callable[[nn.Module], Average]
"""An average that waits for its network, such as a partial of a class here."""


class RunningAverage(ABC):
    """average <- decay * average + (1 - decay) * parameter, after every optimizer step.

    Only parameters are averaged, never buffers.

    Args:
        network: whose parameters are followed.
    """

    def __init__(self, network: nn.Module):
        self.num_updates = 0
        self._is_in = False  # whether the average and the network's own parameters have changed places
        self._network = network
        self._names = [name for name, _ in network.named_parameters()]
        self._parameters: list[Tensor] = [parameter for _, parameter in network.named_parameters()]
        self._average = [parameter.detach().clone() for parameter in self._parameters]

    @abstractmethod
    def next_decay(self) -> float:
        """Of the update after `num_updates` ones, in [0, 1)."""

    @torch.no_grad()
    def update(self) -> None:
        self._follow_device()
        torch._foreach_lerp_(parts(self._average), parts(self._parameters), 1 - self.next_decay())
        self.num_updates += 1

    @torch.no_grad()
    def reset(self) -> None:
        self._follow_device()
        for average, parameter in zip(parts(self._average), parts(self._parameters), strict=True):
            average.copy_(parameter)
        self.num_updates = 0

    def swapped_in(self) -> AbstractContextManager[None]:
        """Within the block the network computes with the average; its own parameters return in any case.

        Values change places, not tensors, so that whoever refers to a parameter (an optimizer, compiled
        code, a shard) sees the average too. It costs six copies of the network, there and back, and memory
        for one parameter. A block within a block of the same kind changes nothing.
        """
        return self._swapped(True)

    def swapped_out(self) -> AbstractContextManager[None]:
        return self._swapped(False)

    @contextmanager
    def _swapped(self, into: bool) -> Iterator[None]:
        if self._is_in == into:
            yield
            return
        self._follow_device()
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for parameter, average in zip(parts(self._parameters), parts(self._average), strict=True):
            own = parameter.clone()
            parameter.copy_(average)
            average.copy_(own)
        self._is_in = not self._is_in

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_updates": self.num_updates,
            "parameters": dict(zip(self._names, self._average, strict=True)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; the settings stay those of the constructor."""
        self.num_updates = state["num_updates"]
        for name, average in zip(self._names, self._average, strict=True):
            copy_into(average, state["parameters"][name])

    @torch.no_grad()
    def follow(self) -> None:
        self._parameters = list(self._network.parameters())
        self._average = [
            placed_as(average, parameter)
            for parameter, average in zip(self._parameters, self._average, strict=True)
        ]

    def _follow_device(self) -> None:
        if self._average and self._average[0].device != self._parameters[0].device:
            self.follow()


class EMA(RunningAverage):
    """An exponential moving average.

    Update n uses min(decay, (1 + n) / (10 + n)), so that the random start is forgotten within a few steps.

    Args:
        network: whose parameters are followed.
        decay: in [0, 1); the paper's runs use 0.9999.

    Raises:
        ValueError: where the decay is out of range.
    """

    def __init__(self, network: nn.Module, decay: float = 0.9999):
        if not 0 <= decay < 1:
            raise ValueError(f"ema.decay={decay} must be at least 0 and below 1")
        super().__init__(network)
        self.decay = decay

    def next_decay(self) -> float:
        return min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))


class NoAverage:
    """Nothing is averaged: the network's own weights are used everywhere.

    Args:
        network: whose parameters are not followed.
    """

    def __init__(self, network: nn.Module):
        pass

    def update(self) -> None:
        pass

    def reset(self) -> None:
        pass

    def follow(self) -> None:
        pass

    def swapped_in(self) -> AbstractContextManager[None]:
        return nullcontext()

    def swapped_out(self) -> AbstractContextManager[None]:
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
