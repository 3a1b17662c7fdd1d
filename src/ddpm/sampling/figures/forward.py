"""The forward process on real images: what is left of them at a few timesteps (Ho et al. 2020, figure 2)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule, evenly_spaced, q_sample
from ddpm.random import Purpose, Stream
from ddpm.sampling.figures import to_uint8
from ddpm.sampling.figures.film import Film, Moment
from ddpm.sampling.figures.layout import Group, at, decimal, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T, ALPHA_BAR = "$t$", r"$\bar{\alpha}_t$"


def noised(schedule: NoiseSchedule, x_0: Tensor, timesteps: Sequence[int], seed: int) -> Tensor:
    """x_t of each image at each timestep, by the same noise: float32 [len(timesteps), N, C, H, W].

    Args:
        schedule: of the forward process.
        x_0: float32 [N, C, H, W] in [-1, 1], on the CPU.
        timesteps: each in [0, T).
        seed: of the noise; that of image i depends on (seed, i) alone.
    """
    n = len(x_0)
    eps = Stream(seed, Purpose.FIGURE).normal(0, range(n), tuple(x_0.shape[1:]))
    return torch.stack([q_sample(schedule, x_0, torch.full((n,), t), eps) for t in timesteps])


def shown_timesteps(schedule: NoiseSchedule, steps: int) -> list[int]:
    """Timesteps evenly from 0 to T - 1, fewer than `steps` where the chain is shorter."""
    timesteps: list[int] = evenly_spaced(
        min(steps, schedule.num_timesteps), schedule.num_timesteps - 1
    ).tolist()
    return timesteps


def draw(
    schedule: NoiseSchedule,
    x_0: Tensor,
    names: Sequence[str],
    *,
    steps: int,
    seed: int,
    width: float,
    dpi: float,
    see: Callable[[Tensor], Tensor] = to_uint8,
) -> "Figure":
    """A row an image, from t = 0 to T - 1.

    Args:
        schedule: of the forward process.
        x_0: float32 [N, C, H, W] in [-1, 1], on the CPU.
        names: of the images, "" for none.
        steps: columns.
        seed: of the noise.
        width: inches.
        dpi: pixels an inch.
        see: makes of x_t the bytes that are seen.
    """
    timesteps = shown_timesteps(schedule, steps)
    x_t = see(noised(schedule, x_0, timesteps, seed))
    groups = [Group(name, [("", x_t[:, i])]) for i, name in enumerate(names)]
    left = [decimal(float(schedule.alphas_cumprod[t])) for t in timesteps]
    return table(groups, [(T, at(timesteps)), (ALPHA_BAR, left)], width=width, dpi=dpi).figure


def film(
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    steps: int,
    seed: int,
    width: float,
    dpi: float,
    see: Callable[[Tensor], Tensor] = to_uint8,
) -> Film:
    """The same as an animation: images side by side, which drown in noise.

    Arguments as of `draw`; `steps` are its frames.
    """
    timesteps = shown_timesteps(schedule, steps)
    x_t = see(noised(schedule, x_0, timesteps, seed))

    def moments() -> list[Moment]:
        return [
            Moment(f"$t = {t}$", rf"$\bar{{\alpha}}_t = {decimal(float(left)).strip('$')}$", [images])
            for t, left, images in zip(timesteps, schedule.alphas_cumprod[timesteps], x_t, strict=True)
        ]

    return Film(moments(), ["$x_t$"], width=width, dpi=dpi)
