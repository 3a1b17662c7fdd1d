"""Rows of images, each drawn in its own way, with what is kept of how they came about."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.samplers import Trajectory
from ddpm.runtime.pieces import Like
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import to_uint8


@dataclass(frozen=True)
class Row:
    """Images 0 ... n-1 of one drawing.

    Attributes:
        drawing: how they are drawn.
        t: the timestep that sets the row apart from others; None for a lone one.
        steps: timesteps that the sampler visits, at which something is kept of each image.
        kept: what that is: x_t, or the x_0 that is predicted there.
    """

    drawing: Drawing
    t: int | None = None
    steps: tuple[int, ...] = ()
    kept: Literal["x_t", "x_0"] = "x_0"

    @property
    def name(self) -> str:
        """Of its pieces, which no other row has."""
        return "images" if self.t is None else f"t_{self.t}"

    @property
    def like(self) -> Like:
        """What is drawn of an image: `images` [H, W, C], and `way` [steps, H, W, C] where steps are kept."""
        channels, height, width = self.drawing.model.image_shape
        shape, dtype = (height, width, channels), np.dtype(np.uint8)
        way = {"way": ((len(self.steps), *shape), dtype)} if self.steps else {}
        return {"images": (shape, dtype), **way}

    def draw(self, indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
        """Draw some of the images, as `like` says; the first axis counts them."""
        trajectory = Trajectory(self.steps)

        def each_step(t: int, x_t: Tensor, x_0: Tensor) -> None:
            trajectory(t, x_t, x_0)
            on_step()

        arrays = {"images": _bytes(self.drawing(indices, on_step=each_step))}
        if self.steps:
            seen: dict[int, Tensor] = getattr(trajectory, self.kept)
            arrays["way"] = _bytes(torch.stack([seen[t] for t in self.steps], dim=1))
        return arrays


def _bytes(images: Tensor) -> np.ndarray:
    """uint8 [..., H, W, C] of float [..., C, H, W]."""
    return to_uint8(images).movedim(-3, -1).cpu().numpy()
