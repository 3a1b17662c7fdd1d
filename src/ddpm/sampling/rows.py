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
from ddpm.sampling.seen import is_decoded, seen, seen_shape


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
        """What is drawn of an image: `images` [H, W, C], uint8, or float32 of latents that nothing decodes;
        and `way` [steps, H, W, C], uint8, where steps are kept.
        """
        channels, height, width = seen_shape(self.drawing.model)
        shape, dtype = (height, width, channels), np.dtype(np.uint8)
        way = {"way": ((len(self.steps), *shape), dtype)} if self.steps else {}
        return {"images": (shape, np.dtype(np.float32) if self._are_latents else dtype), **way}

    @property
    def _are_latents(self) -> bool:
        """Whether images are latents that nothing decodes."""
        return self.drawing.model.draws_latents and not is_decoded(self.drawing.model)

    def draw(self, indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
        """Draw some of the images, as `like` says; the first axis counts them."""
        trajectory = Trajectory(self.steps)

        def each_step(t: int, x_t: Tensor, x_0: Tensor) -> None:
            trajectory(t, x_t, x_0)
            on_step()

        model, x_0 = self.drawing.model, self.drawing(indices, on_step=each_step)
        arrays = {"images": _channels_last(x_0 if self._are_latents else seen(model, x_0))}
        if self.steps:
            at: dict[int, Tensor] = getattr(trajectory, self.kept)
            arrays["way"] = _channels_last(seen(model, torch.stack([at[t] for t in self.steps], dim=1)))
        return arrays


def _channels_last(images: Tensor) -> np.ndarray:
    """[..., H, W, C] of [..., C, H, W]."""
    return images.movedim(-3, -1).cpu().numpy()
