"""An image without a part of it as the condition: inpainting."""

import torch
from torch import Tensor

from ddpm.diffusion.condition import Condition


class Masked:
    """Each image with a rectangle missing, and the mask as one more channel (Saharia et al. 2022, "Palette").

    The mask is 1 where the image is known and 0 in the rectangle, where the image is mid-grey. Its sides and
    its place are random: others each time in training, and always the same for an image that is held out.

    Args:
        smallest: sides of the rectangle, as a share of the image's.
        largest: likewise; the sides are spread evenly between the two.

    Raises:
        ValueError: where they are no such shares.
    """

    draws = 4

    def __init__(self, smallest: float = 0.25, largest: float = 0.75):
        if not 0 < smallest <= largest <= 1:
            raise ValueError(
                f"data.condition.smallest={smallest} and data.condition.largest={largest}: must be shares of "
                "an image's side, 0 < smallest <= largest <= 1"
            )
        self.smallest = smallest
        self.largest = largest

    def image_channels(self, channels: int) -> int:
        return channels + 1

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Every image has a part that can be missing."""

    def __call__(self, x_0: Tensor, u: Tensor) -> Condition:
        known = ~(
            self._within(u[:, 0], u[:, 2], x_0.shape[2])[:, :, None]
            & self._within(u[:, 1], u[:, 3], x_0.shape[3])[:, None, :]
        )
        return self.of(x_0, known[:, None])

    def of(self, x_0: Tensor, known: Tensor) -> Condition:
        """The condition of images [B, C, H, W] of which only a part is known, bool [B, 1, H, W]."""
        mask = known.to(x_0.dtype)
        return Condition(image=torch.cat([x_0 * mask, mask.expand(len(x_0), -1, -1, -1)], dim=1))

    def _within(self, u_size: Tensor, u_place: Tensor, pixels: int) -> Tensor:
        """Which pixels of a side lie in the rectangle: bool [B, pixels]; at least one does."""
        share = self.smallest + u_size * (self.largest - self.smallest)
        size = (share * pixels).round().clamp(1, pixels)
        first = (u_place * (pixels - size + 1)).floor()
        at = torch.arange(pixels, device=u_size.device)
        return (at >= first[:, None]) & (at < (first + size)[:, None])
