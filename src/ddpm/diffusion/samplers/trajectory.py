"""Recording a reverse process."""

from collections.abc import Collection, Sequence

from torch import Tensor


class Trajectory:
    """An `on_step` that keeps what the sampler was at: `sampler(..., on_step=trajectory)`.

    Tensors stay on their device, so that recording waits for nothing. Of a solver that uses the network twice
    at a timestep (Heun) the later use is kept, which belongs to the x_t that it went on from; with churn it
    goes on from the step that noise is raised to.

    Args:
        timesteps: keep these only, where the sampler visits them; by default every step.

    Attributes:
        x_t: timestep -> x_t [B, C, H, W], in the order visited.
        x_0: timestep -> the x_0 predicted there.
    """

    def __init__(self, timesteps: Collection[int] | None = None):
        self.timesteps = None if timesteps is None else frozenset(timesteps)
        self.x_t: dict[int, Tensor] = {}
        self.x_0: dict[int, Tensor] = {}

    def __call__(self, t: int, x_t: Tensor, x_0: Tensor) -> None:
        if self.timesteps is None or t in self.timesteps:
            self.x_t[t] = x_t
            self.x_0[t] = x_0


def evenly_spread(timesteps: Sequence[int], count: int) -> list[int]:
    """Some of the steps that a sampler visits, spread over its way: the first, and of several the last.

    Args:
        timesteps: all of them, at least 1, in the order visited.
        count: how many, at least 1; no more than there are.
    """
    count = min(count, len(timesteps))
    return [timesteps[round(i * (len(timesteps) - 1) / max(1, count - 1))] for i in range(count)]
