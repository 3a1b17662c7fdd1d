"""An image of fewer pixels as the condition: super-resolution."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.diffusion.condition import Condition


class Downsampled:
    """Each image with its sides divided by a factor, brought up again to the size that the network draws
    (Saharia et al. 2021, "Image super-resolution via iterative refinement").

    A pixel of the small image is the mean of a square of the large one. It is brought up by cubic
    interpolation, whose overshoot is cut off.

    Args:
        factor: pixels on the side of a square, at least 2; must divide height and width.

    Raises:
        ValueError: for another factor.
    """

    draws = 0

    def __init__(self, factor: int = 4):
        if factor < 2:
            raise ValueError(f"data.condition.factor={factor} must be at least 2")
        self.factor = factor

    def image_channels(self, channels: int) -> int:
        return channels

    def check(self, image_shape: tuple[int, int, int]) -> None:
        _, height, width = image_shape
        if height % self.factor or width % self.factor:
            fitting = [n for n in range(2, min(height, width) + 1) if height % n == 0 and width % n == 0]
            raise ValueError(
                f"data.condition.factor={self.factor}: does not divide images of {height}x{width}; use "
                f"{' or '.join(map(str, fitting)) or 'another data.image_size'}"
            )

    def __call__(self, x_0: Tensor, u: Tensor) -> Condition:
        return Condition(image=self.enlarged(self.reduced(x_0)))

    def reduced(self, x_0: Tensor) -> Tensor:
        """The small image: [B, C, H / factor, W / factor]."""
        b, c, height, width = x_0.shape
        n = self.factor
        return x_0.reshape(b, c, height // n, n, width // n, n).mean((3, 5))

    def enlarged(self, small: Tensor) -> Tensor:
        """As the network sees it: [B, C, H, W]."""
        large = F.interpolate(small, scale_factor=self.factor, mode="bicubic", align_corners=False)
        return torch.clamp(large, -1, 1)
