"""What every kind of condition says of itself: how large it is, and whether it is made of the image."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from ddpm.diffusion.condition import Condition


@runtime_checkable
class Derived(Protocol):
    """A condition that is made of the image itself, when it is shown; any source has it. Its constructor
    takes the keys of its yaml, as that of every kind.

    Attributes:
        draws: numbers that it takes for each image to be made at random; 0 where it is not.
    """

    draws: int

    def image_channels(self, channels: int) -> int:
        """Channels of the image that a network sees beside x_t, which has so many channels."""
        ...

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Refuse, with ValueError, images [C, H, W] that it cannot be made of."""
        ...

    def __call__(self, x_0: Tensor, u: Tensor) -> Condition:
        """The condition of each image.

        Args:
            x_0: float32 [B, C, H, W] in [-1, 1].
            u: [B, draws], uniform in [0, 1).
        """
        ...


@runtime_checkable
class Stored(Protocol):
    """A condition that a source reads beside each image: see `ddpm.data.conditions.reading`.

    Its channels are what the data hold, `DataSet.condition_channels`; so are its numbers,
    `ImageSet.vectors`.
    """

    @property
    def typed(self) -> str:
        """The key that says where it is, for messages."""
        ...


Conditioning = Derived | Stored
"""A kind of condition."""
