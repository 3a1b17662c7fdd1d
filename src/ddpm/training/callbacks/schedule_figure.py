"""The noise schedule of a run, as curves over t."""

from typing import Any, ClassVar

from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.sampling.figures import schedule
from ddpm.sampling.figures.style import styled
from ddpm.training.callbacks.at_start import AtStart
from ddpm.training.callbacks.shown import WIDTH, show_figure


class ScheduleFigure(AtStart):
    """Shows alpha-bar, log SNR, beta and the weight of the loss over t: `schedule/over_t`, and
    `figures/over_t.png`.
    """

    name: ClassVar[str] = "over_t"

    needs_images: ClassVar[bool] = False

    def draw(self, trainer: Trainer, module: Any, x_0: Tensor, names: list[str]) -> None:
        process = schedule.Process("", module.schedule, module.parametrization, module.weighting)
        with styled():
            figure = schedule.draw([process], width=WIDTH)
            caption = f"the noise schedule over T = {module.schedule.num_timesteps:,} timesteps"
            show_figure(trainer, "schedule/over_t", figure, caption)
