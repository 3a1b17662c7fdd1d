"""Recording a reverse process."""

from collections.abc import Collection

from torch import Tensor


class Trajectory:
    """An `on_step` that keeps what the sampler was at: `sampler(..., on_step=trajectory)`.

    Tensors stay on their device, so that recording waits for nothing. Of a solver that uses the network twice
    at a timestep (Heun) the later use is kept, which belongs to the x_t that it went on from.

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
