"""What every kind of condition says of itself: how large it is, and whether it is made of the image."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from ddpm.diffusion.condition import Condition


class Conditioning(Protocol):
    """A kind of condition. Its constructor takes the keys of its yaml."""

    def image_channels(self, channels: int) -> int:
        """Channels of the image that a network sees beside x_t, of so many channels; 0 where there is none.

        Of a stored condition they are what the data hold, `DataSet.condition_channels`.
        """
        ...


@runtime_checkable
class Derived(Conditioning, Protocol):
    """A condition that is made of the image itself, when it is shown; any source has it.

    Attributes:
        draws: numbers that it takes for each image to be made at random; 0 where it is not.
    """

    draws: int

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
