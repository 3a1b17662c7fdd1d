"""The forward process on images that a run is trained on."""

from functools import partial
from typing import Any, ClassVar

from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.sampling.figures import forward
from ddpm.sampling.figures.style import styled
from ddpm.sampling.seen import seen, seen_said
from ddpm.training.callbacks.at_start import AtStart
from ddpm.training.callbacks.shown import DPI, WIDTH, show_figure


class ForwardProcess(AtStart):
    """Shows what noise leaves of a few images of the first batch: `data/forward`, and `figures/forward.png`.

    Args:
        n: images, at most.
        steps: timesteps, spread evenly from 0 to T - 1; fewer where the chain is shorter.
        seed: of the noise.

    Raises:
        ValueError: where a number is below 1.
    """

    name: ClassVar[str] = "forward"

    def __init__(self, n: int = 4, steps: int = 8, seed: int = 0):
        super().__init__()
        if min(n, steps) < 1:
            raise ValueError(f"n={n} and steps={steps} must be at least 1")
        self.n = n
        self.steps = steps
        self.seed = seed

    def draw(self, trainer: Trainer, module: Any, x_0: Tensor, names: list[str]) -> None:
        shown, names = x_0[: self.n].cpu(), names[: self.n]
        with styled(texts=names):
            figure = forward.draw(
                module.schedule,
                shown,
                names,
                steps=self.steps,
                seed=self.seed,
                width=WIDTH,
                dpi=DPI,
                see=partial(seen, module),
            )
            caption = f"{len(shown)} training images, noised as training noises them{seen_said(module)}"
            show_figure(trainer, "data/forward", figure, caption)
