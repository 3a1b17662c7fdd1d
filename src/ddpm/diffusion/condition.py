"""What a network is conditioned on beside time and class: an image that it sees beside x_t, and a vector."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Condition(NamedTuple):
    """The condition of each image of a batch, as the network sees it.

    Zeros are what a network sees where a condition is withheld: mid-grey, and no part that is known; and a
    vector that adds nothing.

    Attributes:
        image: float32 [B, C', H, W], concatenated with x_t; None where there is none.
        vector: float32 [B, D], added to the embedding of the timestep; None where there is none.
    """

    image: Tensor | None = None
    vector: Tensor | None = None

    def rows(self, indices: Sequence[int]) -> "Condition":
        """Those at `indices`, each of which may come again: [len(indices), ...]."""
        return Condition(*(None if part is None else part[list(indices)] for part in self))

    def to(self, device: torch.device) -> "Condition":
        """The same on a device."""
        return Condition(*(None if part is None else part.to(device) for part in self))

    def withheld(self, where: Tensor | None = None) -> "Condition":
        """Zeros in place of it.

        Args:
            where: bool [B], for which images; None for all.
        """
        return Condition(*(None if part is None else _zeros(part, where) for part in self))

    @property
    def sizes(self) -> tuple[int, int]:
        """C' and D, 0 where there is no such part."""
        image, vector = self
        return 0 if image is None else image.shape[1], 0 if vector is None else vector.shape[1]


def apply_network(
    network: Callable[..., Tensor],
    x: Tensor,
    t: Tensor,
    labels: Tensor | None = None,
    condition: Condition | None = None,
) -> Tensor:
    """The output of a network, which is given what there is and nothing else.

    Args:
        network: called as `ddpm.networks` says.
        x: x_t [B, C, H, W] as the objective has the network see it; the image of the condition comes behind
            its channels.
        t: the timestep, or what the objective gives the network in its place, [B].
        labels: int64 [B].
        condition: of each image.
    """
    image, vector = condition or Condition()
    if image is not None:
        x = torch.cat([x, image.to(x.dtype)], dim=1)
    named = {} if vector is None else {"vector": vector}
    return network(x, t, *(() if labels is None else (labels,)), **named)


def check_condition(condition: Condition | None, channels: int, size: int) -> None:
    """Refuse another condition than a network was made for.

    Args:
        condition: that it is given.
        channels: of the image that it takes, 0 for none.
        size: numbers of the vector that it takes, 0 for none.

    Raises:
        ValueError: saying what is given, and what it takes.
    """
    given = (condition or Condition()).sizes
    if given != (channels, size):
        raise ValueError(
            f"condition: the network takes {condition_in_words(channels, size)}, and is given "
            f"{condition_in_words(*given)}"
        )


def condition_in_words(channels: int, size: int) -> str:
    """What a network takes beside the class: an image of 3 channels; none."""
    parts = [f"an image of {channels} channels"] if channels else []
    parts += [f"a vector of {size} numbers"] if size else []
    return " and ".join(parts) or "none"


def _zeros(part: Tensor, where: Tensor | None) -> Tensor:
    if where is None:
        return torch.zeros_like(part)
    return part.masked_fill(where.view(-1, *(1,) * (part.ndim - 1)), 0)
