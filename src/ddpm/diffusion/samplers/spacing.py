"""Which steps of a schedule a sampler visits."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule, evenly_spaced

Shape = Literal["uniform", "quadratic"]


class Spacing:
    """A rising sub-sequence of the steps 0 ... T-1, for any T.

    Args:
        num_steps: how many steps; None visits every one.
        spacing: `uniform`, or `quadratic`, which is denser near the image (Song et al. 2021, appendix D.2;
            here from 0 to the start, both included, as with `uniform`).
        timesteps: the steps themselves, rising; they are used instead of `num_steps` and `spacing`.

    Raises:
        ValueError: where a setting makes no sense for any T.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        spacing: Shape = "uniform",
        timesteps: Sequence[int] | None = None,
    ):
        if num_steps is not None and (not isinstance(num_steps, int) or num_steps < 1):
            raise ValueError(f"sampler.num_steps={num_steps}: must be null or a whole number from 1 to T")
        if spacing not in get_args(Shape):
            raise ValueError(f"sampler.spacing={spacing}: must be {' or '.join(get_args(Shape))}")
        self.num_steps = num_steps
        self.spacing = spacing
        self.timesteps = None if timesteps is None else list(timesteps)
        if self.timesteps is not None:
            whole = all(isinstance(t, int) for t in self.timesteps)
            if not whole or not self.timesteps or sorted(set(self.timesteps)) != self.timesteps:
                raise ValueError(
                    f"sampler.timesteps={self.timesteps}: must be a list of whole numbers that rise within 0 "
                    f"to T - 1"
                )

    def steps(self, num_timesteps: int, start: int | None = None) -> Tensor:
        """The steps to visit on a chain of `num_timesteps` steps: int64, rising.

        Args:
            num_timesteps: T.
            start: the last of them. A list loses what lies above it, and gains it where it is missing. By
                default T - 1, or the end of the list.

        Raises:
            ValueError: where `start` or a listed step is outside the chain, or there are not so many steps.
        """
        last = num_timesteps - 1
        if start is not None and not 0 <= start <= last:
            raise ValueError(f"start={start}: t is 0 to {last} on a schedule of {num_timesteps} steps")
        if self.timesteps is not None:
            if self.timesteps[0] < 0 or self.timesteps[-1] > last:
                raise ValueError(f"sampler.timesteps={self.timesteps}: must rise within 0 to {last}")
            if start is None:
                return torch.tensor(self.timesteps)
            return torch.tensor([*(t for t in self.timesteps if t < start), start])
        higher = "schedule.num_timesteps" if start is None else "start_t"
        start = last if start is None else start
        num_steps = start + 1 if self.num_steps is None else self.num_steps
        if num_steps > start + 1:
            raise ValueError(
                f"sampler.num_steps={num_steps}: from t = {start} down to 0 there are 1 to {start + 1} "
                f"steps; use sampler.num_steps={start + 1}, or a higher {higher}"
            )
        return {"uniform": evenly_spaced, "quadratic": quadratically_spaced}[self.spacing](num_steps, start)

    def chain(self, schedule: NoiseSchedule, start: int | None = None) -> NoiseSchedule:
        """The shortened chain that visits these steps of `schedule`. Arguments and errors as in `steps`."""
        return schedule.respaced(self.steps(schedule.num_timesteps, start))


def quadratically_spaced(num_steps: int, start: int) -> Tensor:
    """`num_steps` of the steps 0 ... `start`, both included, with gaps that grow with t: int64, rising.

    The k-th is near start * (k / (num_steps - 1))^2. Near 0 more than one of these may round to the same
    step; they are then moved up to the next free ones, which never reaches beyond `start`.
    """
    if num_steps == 1:
        return torch.tensor([start])
    k = torch.arange(num_steps)
    ideal = (start * (k.double() / (num_steps - 1)) ** 2).round().long()
    return k + (ideal - k).cummax(0).values
