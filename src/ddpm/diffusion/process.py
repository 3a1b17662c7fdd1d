"""The forward process q and what follows from it in closed form (Ho et al. 2020, sections 2 and 3).

`t` counts from 0: t = 0 is one noising step, so our t is the paper's t minus one, and t = T - 1 is (nearly)
noise.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Noise = Callable[[int, Tensor], Tensor]
"""(index, like) -> unit Gaussian noise of the shape of `like` [B, C, H, W]: other numbers for each index, and
for each image of the batch. Whoever takes one says what it counts.
"""


class NoiseSchedule:
    """The betas of a chain of T noising steps, with every table that is derived from them.

    Tables are float64 [T] on the CPU. Equations look them up in float32 on their argument's device, or in
    float64 where the argument is float64; never in half precision.

    Args:
        betas: variance of each noising step, float [T], each in (0, 1]; 1 is allowed in the last step only.
        timesteps: int64 [T], rising: the timestep that a network is conditioned on at each step of this
            chain. By default 0 ... T-1; a sub-sequence of another chain (see `respaced`) keeps that chain's.
        original: the chain that `timesteps` count the steps of, which a network was trained on; by default
            this chain itself.

    Attributes:
        betas, alphas, alphas_cumprod, snr: as in the paper; `alphas_cumprod` is written alpha-bar there.
        alphas_cumprod_prev: alphas_cumprod of the step before; 1 at t = 0.
        posterior_variance: variance of q(x_{t-1} | x_t, x_0); 0 at t = 0 (Ho et al. 2020, eq. 7).
        posterior_variance_positive: the same with the value of t = 1 at t = 0, so that it has a logarithm; on
            a chain of a single step, beta.

    Raises:
        ValueError: where a beta is out of range.
    """

    def __init__(
        self, betas: Tensor, *, timesteps: Tensor | None = None, original: "NoiseSchedule | None" = None
    ):
        betas = betas.detach().to("cpu", torch.float64)
        if betas.ndim != 1 or len(betas) < 1:
            raise ValueError(f"betas must be one row of numbers, not of shape {tuple(betas.shape)}")
        inside = (betas > 0) & (betas < 1)
        inside[-1] |= betas[-1] == 1
        if not inside.all():
            t = int((~inside).nonzero()[0])
            raise ValueError(f"beta is {betas[t]:.6g} at t = {t}; it must lie between 0 and 1")
        self.betas = betas
        self.timesteps = torch.arange(len(betas)) if timesteps is None else timesteps.cpu().to(torch.int64)
        self.original = self if original is None else original
        self.alphas = 1 - betas
        self.alphas_cumprod = self.alphas.cumprod(0)
        self.alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        self.snr = self.alphas_cumprod / (1 - self.alphas_cumprod)
        self.posterior_variance = betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        first = self.posterior_variance[1:2] if len(betas) > 1 else betas
        self.posterior_variance_positive = torch.cat([first, self.posterior_variance[1:]])
        self._tables = {
            "sqrt_alphas_cumprod": self.alphas_cumprod.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - self.alphas_cumprod).sqrt(),
            "posterior_mean_x_0": self.alphas_cumprod_prev.sqrt() * betas / (1 - self.alphas_cumprod),
            "posterior_mean_x_t": self.alphas.sqrt()
            * (1 - self.alphas_cumprod_prev)
            / (1 - self.alphas_cumprod),
            "log_betas": betas.log(),
            "log_posterior_variance": self.posterior_variance_positive.log(),
            "log_variance_range": (betas / self.posterior_variance_positive).log(),
        }
        self._cache: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    @property
    def num_timesteps(self) -> int:
        """T, the number of noising steps."""
        return len(self.betas)

    def lookup(self, table: str, t: Tensor, like: Tensor) -> Tensor:
        """Values of a table at `t` [B], shaped to multiply `like` [B, ...]: [B, 1, ..., 1].

        `table` is the name of a float64 table of this schedule, public or derived.
        """
        values = self._tables[table] if table in self._tables else getattr(self, table)
        values = self._on(
            like.device, torch.float64 if like.dtype == torch.float64 else torch.float32, table, values
        )
        return values[t].view(-1, *[1] * (like.ndim - 1))

    def timestep(self, t: Tensor) -> Tensor:
        """What a network is conditioned on at step `t` int64 [B] of this chain: int64 [B]."""
        return self._on(t.device, torch.int64, "timesteps", self.timesteps)[t]

    def _on(self, device: torch.device, dtype: torch.dtype, name: str, values: Tensor) -> Tensor:
        key = (name, device, dtype)
        if key not in self._cache:
            self._cache[key] = values.to(dtype).to(device)  # in this order: some devices have no float64
        return self._cache[key]

    def respaced(self, steps: Sequence[int] | Tensor) -> "NoiseSchedule":
        """The shortened chain that visits only some steps of this one, with the same marginals q(x_t | x_0)
        there.

        Args:
            steps: rising steps of this chain, each in [0, T).

        Raises:
            ValueError: where the steps do not rise or lie outside the chain.
        """
        steps = torch.as_tensor(steps, dtype=torch.int64)
        rising = len(steps) > 0 and bool((steps.diff() > 0).all())
        if not rising or steps[0] < 0 or steps[-1] >= self.num_timesteps:
            raise ValueError(f"steps must rise within 0 to {self.num_timesteps - 1}, got {steps.tolist()}")
        kept = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[steps]])
        return NoiseSchedule(betas_between(kept), timesteps=self.timesteps[steps], original=self.original)


def betas_between(alphas_cumprod: Tensor) -> Tensor:
    """The betas [T] of a chain with these alpha-bars [T + 1], before its first step and after each: 1 -
    alpha-bar(step) / alpha-bar(step before) (Nichol and Dhariwal 2021, eq. 19).
    """
    return 1 - alphas_cumprod[1:] / alphas_cumprod[:-1]


def evenly_spaced(num_steps: int, start: int) -> Tensor:
    """`num_steps` steps, evenly spaced from 0 to `start`, both included: int64, rising.

    Raises:
        ValueError: where there are not that many steps.
    """
    if not 1 <= num_steps <= start + 1:
        raise ValueError(
            f"num_steps={num_steps}: a chain that starts at t = {start} has 1 to {start + 1} steps"
        )
    if num_steps == 1:
        return torch.tensor([start])
    return torch.linspace(0, start, num_steps, dtype=torch.float64).round().long()


def q_sample(schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Draw from q(x_t | x_0) with the noise `eps` (Ho et al. 2020, eq. 4). All [B, ...], `t` int64 [B]."""
    return (
        schedule.lookup("sqrt_alphas_cumprod", t, x_0) * x_0
        + schedule.lookup("sqrt_one_minus_alphas_cumprod", t, x_0) * eps
    )


def predict_x_0(schedule: NoiseSchedule, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """The x_0 from which `eps` leads to x_t: eq. 4 solved for x_0. Undefined where alpha-bar is 0."""
    noise = schedule.lookup("sqrt_one_minus_alphas_cumprod", t, x_t) * eps
    return (x_t - noise) / schedule.lookup("sqrt_alphas_cumprod", t, x_t)


def predict_eps(schedule: NoiseSchedule, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
    """The noise that leads from x_0 to x_t: eq. 4 solved for eps."""
    signal = schedule.lookup("sqrt_alphas_cumprod", t, x_t) * x_0
    return (x_t - signal) / schedule.lookup("sqrt_one_minus_alphas_cumprod", t, x_t)


def q_posterior_mean(schedule: NoiseSchedule, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7); x_0 itself at t = 0.

    The variance of that distribution is `schedule.posterior_variance`.
    """
    return (
        schedule.lookup("posterior_mean_x_0", t, x_t) * x_0
        + schedule.lookup("posterior_mean_x_t", t, x_t) * x_t
    )
