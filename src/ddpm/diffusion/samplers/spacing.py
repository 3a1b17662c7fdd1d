"""Which steps of a schedule a sampler visits."""

import math
import re
from collections.abc import Sequence
from itertools import accumulate, repeat
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule, evenly_spaced

Shape = Literal["uniform", "leading", "trailing", "quadratic", "log_snr", "karras"]


class Spacing:
    """A rising sub-sequence of the steps 0 ... T-1, for any T.

    By name, in `num_steps` steps:

    - `uniform`: evenly from 0 to T - 1, both included.
    - `trailing`: round(k T / num_steps) - 1 for k = 1 ... num_steps, which ends at T - 1 and begins a stride
      above the image, as in diffusers (Lin et al. 2024, table 2).
    - `leading`: the multiples of the stride T // num_steps from 0 on, as in diffusers. It ends below T - 1
      unless the stride is 1, and far below where T is no multiple of num_steps.
    - `quadratic`: denser near the image (Song et al. 2021, appendix D.2; here from 0 to T - 1, both
      included).
    - `log_snr`: evenly in log-SNR, from 0 to T - 1.
    - `karras`: evenly in sigma^(1 / rho), sigma = 1 / sqrt(SNR), from 0 to T - 1 (Karras et al. 2022, eq. 5).

    The last three move to the nearest step that is free. Where the schedule ends at zero SNR, the last two
    are even up to the step before T - 1.

    By the number of steps itself, as in the code of Nichol and Dhariwal 2021, `num_steps` being unused:

    - `ddimN` (`ddim50`): the N multiples of a whole stride, from 0 on (Song et al. 2021).
    - a list of counts (`[10, 10, 10]`): the chain is cut into that many sections of equal length, each with
      so many steps, evenly from its first to its last; one step is the section's first.

    Sampling from noise starts at the last step that is visited. `leading`, `ddimN` and sections may end below
    T - 1: by their definition, what is drawn there is N(0, I) all the same.

    Args:
        num_steps: how many steps; None visits every one.
        spacing: as above.
        timesteps: the steps themselves, rising; they are used instead of `num_steps` and `spacing`.
        rho: of `karras`, above 0: the larger, the denser near the image.

    Raises:
        ValueError: where a setting makes no sense for any T.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        spacing: Shape | str | Sequence[int] = "uniform",
        timesteps: Sequence[int] | None = None,
        rho: float = 7.0,
    ):
        if num_steps is not None and (not _whole(num_steps) or num_steps < 1):
            raise ValueError(f"sampler.num_steps={num_steps}: must be null or a whole number from 1 to T")
        if not 0 < rho < math.inf:
            raise ValueError(f"sampler.rho={rho}: must be above 0 and finite; 7 is usual")
        self.num_steps = num_steps
        self.spacing = spacing if isinstance(spacing, str) else _counts(spacing)
        if isinstance(spacing, str) and spacing not in get_args(Shape) and not _DDIM.fullmatch(spacing):
            raise ValueError(_no_spacing(spacing))
        self.timesteps = None if timesteps is None else list(timesteps)
        self.rho = rho
        if self.timesteps is not None:
            whole = all(_whole(t) for t in self.timesteps)
            if not whole or not self.timesteps or sorted(set(self.timesteps)) != self.timesteps:
                raise ValueError(
                    f"sampler.timesteps={self.timesteps}: must be a list of whole numbers that rise within 0 "
                    f"to T - 1"
                )

    @property
    def may_end_early(self) -> bool:
        """Whether its last step may lie below T - 1 by definition, and sampling from noise starts there."""
        return self.timesteps is None and (self.spacing == "leading" or self.spacing not in get_args(Shape))

    def steps(self, schedule: NoiseSchedule, start: int | None = None) -> Tensor:
        """The steps of `schedule` to visit: int64, rising.

        Args:
            schedule: a chain of T steps.
            start: the last of them. A list loses what lies above it, and gains it where it is missing, and so
                do `leading`, `ddimN` and sections, which are lists for the whole chain; the others have
                `num_steps` steps up to it. By default T - 1, or the end of the list.

        Raises:
            ValueError: where `start` or a listed step is outside the chain, or there are not so many steps.
        """
        last = schedule.num_timesteps - 1
        if start is not None and not 0 <= start <= last:
            raise ValueError(
                f"start={start}: t is 0 to {last} on a schedule of {schedule.num_timesteps} steps"
            )
        listed = self._listed(schedule.num_timesteps)
        if listed is not None:
            if start is not None:
                listed = [*(t for t in listed if t < start), start]
            return torch.tensor(listed)
        higher = "" if start is None else ", or a higher start_t"
        start = last if start is None else start
        num_steps = self._number(start + 1, higher)
        if num_steps == 1:
            return torch.tensor([start])
        if self.spacing == "uniform":
            return evenly_spaced(num_steps, start)
        if self.spacing == "trailing":
            return trailing(num_steps, start)
        if self.spacing == "quadratic":
            return quadratically_spaced(num_steps, start)
        log_sigmas = -schedule.snr[: start + 1].log() / 2
        if self.spacing == "log_snr":
            return evenly_spaced_in(log_sigmas, num_steps)
        # relative to the highest, which keeps them finite for any rho
        highest = log_sigmas[log_sigmas.isfinite()].max()
        return evenly_spaced_in(((log_sigmas - highest) / self.rho).exp(), num_steps)

    def chain(self, schedule: NoiseSchedule, start: int | None = None) -> NoiseSchedule:
        """The shortened chain that visits these steps of `schedule`. Arguments and errors as in `steps`."""
        return schedule.respaced(self.steps(schedule, start))

    def _listed(self, num_timesteps: int) -> list[int] | None:
        """The steps of a whole chain, where a setting lists them whatever the start is."""
        last = num_timesteps - 1
        if self.timesteps is not None:
            if self.timesteps[0] < 0 or self.timesteps[-1] > last:
                raise ValueError(f"sampler.timesteps={self.timesteps}: must rise within 0 to {last}")
            return self.timesteps
        if not isinstance(self.spacing, str):
            return sections(self.spacing, num_timesteps)
        if self.spacing == "leading":
            num_steps = self._number(num_timesteps)
            return [k * (num_timesteps // num_steps) for k in range(num_steps)]
        if found := _DDIM.fullmatch(self.spacing):
            return strided(int(found[1]), num_timesteps)
        return None

    def _number(self, most: int, higher: str = "") -> int:
        """Of steps, of a chain that has so many; `higher` says what gives it more. T of a trained network is
        not such a key.
        """
        num_steps = most if self.num_steps is None else self.num_steps
        if num_steps > most:
            raise ValueError(
                f"sampler.num_steps={num_steps}: from t = {most - 1} down to 0 there are 1 to {most} "
                f"steps; use sampler.num_steps={most}{higher}"
            )
        return num_steps


_DDIM = re.compile(r"ddim([1-9][0-9]{0,8})")


def trailing(num_steps: int, start: int) -> Tensor:
    """`num_steps` steps that end at `start` and are (start + 1) / num_steps apart: int64, rising."""
    # by numpy, which rounds as it does in diffusers where two steps are equally near
    down = np.arange(start + 1, 0, -(start + 1) / num_steps)[:num_steps]
    return torch.from_numpy(down.round().astype(np.int64)[::-1] - 1)


def strided(num_steps: int, num_timesteps: int) -> list[int]:
    """The multiples of the smallest whole stride that leaves `num_steps` of the steps 0 ... T-1 (`ddimN` in
    the code of Nichol and Dhariwal 2021).

    Raises:
        ValueError: where no stride does; names the nearest numbers that some stride leaves.
    """
    # the strides up to T - 1, as there: one of T would leave t = 0 alone
    possible = {-(-num_timesteps // stride): stride for stride in range(max(num_timesteps - 1, 1), 0, -1)}
    if num_steps not in possible:
        fewer = max((n for n in possible if n < num_steps), default=None)
        more = min((n for n in possible if n > num_steps), default=None)
        nearest = " or ".join(f"sampler.spacing=ddim{n}" for n in (fewer, more) if n is not None)
        raise ValueError(
            f"sampler.spacing=ddim{num_steps}: no whole stride leaves {num_steps} of {num_timesteps} steps; "
            f"use {nearest}"
        )
    return list(range(0, num_timesteps, possible[num_steps]))


def sections(counts: Sequence[int], num_timesteps: int) -> list[int]:
    """So many steps of each section of the steps 0 ... T-1, which are cut into sections of equal length; the
    first ones have one step more where T is no multiple (Nichol and Dhariwal 2021, their code).

    Raises:
        ValueError: where a section is shorter than its count.
    """
    size, longer = divmod(num_timesteps, len(counts))
    found: list[int] = []
    begin = 0
    for k, count in enumerate(counts):
        length = size + (k < longer)
        if count > length:
            raise ValueError(
                f"sampler.spacing={list(counts)}: {num_timesteps} steps cut in {len(counts)} leave section "
                f"{k + 1} only {length}; ask for at most {length} of it, or use fewer sections"
            )
        stride = (length - 1) / (count - 1) if count > 1 else 0.0
        # summed up, as there: a product would round otherwise where two steps are equally near
        ways = list(accumulate(repeat(stride, count - 1), initial=0.0)) if count else []
        found += [begin + round(way) for way in ways]
        begin += length
    return found


def quadratically_spaced(num_steps: int, start: int) -> Tensor:
    """`num_steps` of the steps 0 ... `start`, both included, with gaps that grow with t: int64, rising.

    The k-th is near start * (k / (num_steps - 1))^2.
    """
    if num_steps == 1:
        return torch.tensor([start])
    k = torch.arange(num_steps).double()
    return _set_apart((start * (k / (num_steps - 1)) ** 2).round().long(), start)


def evenly_spaced_in(levels: Tensor, num_steps: int) -> Tensor:
    """`num_steps` of the steps 0 ... S, both included, whose levels are spaced evenly: int64, rising.

    Args:
        levels: of the steps, float64 [S + 1], rising. The last may be infinite: the levels below are then
            spaced evenly, and it comes last.
        num_steps: 2 to S + 1.
    """
    start = len(levels) - 1
    finite = levels[levels.isfinite()]
    at_the_end = [start] * (len(levels) - len(finite))
    ideal = torch.linspace(
        float(finite[0]), float(finite[-1]), num_steps - len(at_the_end), dtype=torch.float64
    )
    nearest = torch.searchsorted((finite[1:] + finite[:-1]) / 2, ideal)
    return _set_apart(torch.cat([nearest, torch.tensor(at_the_end, dtype=torch.int64)]), start)


def _set_apart(steps: Tensor, start: int) -> Tensor:
    """Steps that do not fall from 0 to `start`, [K], as K different ones: each moved up to the next that is
    free, or down where that would leave too few for those above.
    """
    k = torch.arange(len(steps))
    return k + (steps - k).cummax(0).values.clamp(max=start + 1 - len(steps))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _counts(spacing: object) -> list[int]:
    """Section counts, which are whole numbers, not all 0."""
    counts = list(spacing) if isinstance(spacing, Sequence) else []
    if not counts or not all(_whole(count) and count >= 0 for count in counts) or not any(counts):
        raise ValueError(_no_spacing(spacing))
    return counts


def _no_spacing(spacing: object) -> str:
    return (
        f"sampler.spacing={spacing}: must be {', '.join(get_args(Shape))}, ddimN (as ddim50), or a list of "
        "the steps in each section (as [10,10,10])"
    )
