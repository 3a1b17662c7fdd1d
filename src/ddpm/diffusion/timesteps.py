"""How the timesteps of a training batch are drawn."""

from abc import abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule


class Timesteps(Protocol):
    """Turns uniform numbers, one per sample, into timesteps of a chain of T steps.

    Nothing here waits for the device, is random on it, or takes float64 there: MPS has none.

    Only `observe` and `load_state_dict` change what is drawn. `adapts` says whether `observe` does, and
    `reweights` whether the drawing itself is a weighting: the loss is then the mean over what is drawn, where
    otherwise `weight` keeps it the mean over all steps.
    """

    adapts: bool
    reweights: bool

    def check(self, schedule: NoiseSchedule) -> None:
        """Refuse, with ValueError, a chain that the settings do not fit."""
        return

    def draw(
        self, u: Tensor, schedule: NoiseSchedule, indices: range | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Timesteps of a part of the global batch.

        Args:
            u: float [B] in [0, 1).
            schedule: the chain that is trained on.
            indices: of these samples in the global batch; by default they are all of it.
            batch_size: of the global batch.

        Returns:
            int64 [B] in [0, T).
        """
        ...

    def weight(self, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """Factor on the loss at `t` int64 [B] that makes up for its being drawn more often or less: float
        [B], 1 / (T p(t)); 1 where the drawing is itself a weighting.
        """
        return torch.ones(t.shape, device=t.device)

    def observe(self, t: Tensor, losses: Tensor, schedule: NoiseSchedule) -> None:
        """Learn the losses [B] at `t` int64 [B] of a whole global batch, in the order of its indices."""
        return

    def state_dict(self) -> dict[str, Any]:
        """All that was learned, in plain containers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        return


class Uniform(Timesteps):
    """Every step with the same probability (Ho et al. 2020, algorithm 1)."""

    adapts = False
    reweights = False

    def draw(
        self, u: Tensor, schedule: NoiseSchedule, indices: range | None = None, batch_size: int | None = None
    ) -> Tensor:
        return floor_of_product(u, schedule.num_timesteps)


class Stratified(Uniform):
    """Every step with the same probability, and the steps of a global batch spread evenly over the chain.

    Sample i of a batch of B draws from [i / B, (i + 1) / B) of the chain, which makes the mean loss of a
    batch less noisy (Kingma et al. 2021, appendix I.1).
    """

    def draw(
        self, u: Tensor, schedule: NoiseSchedule, indices: range | None = None, batch_size: int | None = None
    ) -> Tensor:
        indices = range(len(u)) if indices is None else indices
        i = torch.arange(indices.start, indices.stop, device=u.device)
        batch_size = batch_size or len(u)
        if u.device.type == "cpu":
            return super().draw((i + u.double()) / batch_size, schedule)
        # floor((i + u) T / B) in whole numbers: float32 has too few digits for i + u
        return (i * schedule.num_timesteps + super().draw(u, schedule)) // batch_size


class LossSecondMoment(Timesteps):
    """Steps whose losses are large are drawn more often: p(t) is proportional to the root of the mean squared
    loss (Nichol and Dhariwal 2021, eq. 18).

    Until every step has a full history, all have the same probability.

    Args:
        history: how many of the last losses at each step are kept, at least 1.
        uniform_share: of the probability that is spread evenly, so that no step is forgotten; in (0, 1].

    Raises:
        ValueError: where either is out of range.
    """

    adapts = True
    reweights = False

    def __init__(self, history: int = 10, uniform_share: float = 0.001):
        if history < 1 or not 0 < uniform_share <= 1:
            raise ValueError(
                f"timesteps.history={history} must be at least 1, and "
                f"timesteps.uniform_share={uniform_share} in (0, 1]"
            )
        self.history = history
        self.uniform_share = uniform_share
        self.seen: Tensor | None = None  # losses [T, history]; the newest is at (counts - 1) % history
        self.counts: Tensor | None = None  # int64 [T], losses seen at each step

    def probabilities(self, num_timesteps: int, device: torch.device | str = "cpu") -> Tensor:
        """p(t): float64 [T] on the CPU, float32 elsewhere."""
        device = torch.device(device)
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        even = torch.full((num_timesteps,), 1 / num_timesteps, dtype=dtype, device=device)
        if self.seen is None or self.counts is None:
            return even
        root = self.seen.to(device, dtype).square().mean(1).sqrt()
        full = (self.counts.to(device) >= self.history).all() & (root.sum() > 0)
        learned = root / torch.where(full, root.sum(), 1)
        # chosen by values, not by a branch, so that nothing waits for the device
        return torch.where(full, torch.lerp(learned, even, self.uniform_share), even)

    def draw(
        self, u: Tensor, schedule: NoiseSchedule, indices: range | None = None, batch_size: int | None = None
    ) -> Tensor:
        p = self.probabilities(schedule.num_timesteps, u.device)
        if u.device.type == "cpu":
            reached = p.cumsum(0)
            found = torch.searchsorted(reached / reached[-1], u.double(), right=True)
        else:
            # whole numbers add up to the same in any order, where CUDA refuses a deterministic sum of others
            reached = (p * 2.0**36).long().cumsum(0)
            found = torch.searchsorted(reached, floor_of_product(u, reached[-1]), right=True)
        return found.clamp(max=schedule.num_timesteps - 1)

    def weight(self, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        p = self.probabilities(schedule.num_timesteps, t.device)
        return (1 / (schedule.num_timesteps * p[t])).float()

    def observe(self, t: Tensor, losses: Tensor, schedule: NoiseSchedule) -> None:
        if self.seen is None or self.counts is None:
            self.seen = torch.zeros(schedule.num_timesteps, self.history)
            self.counts = torch.zeros(schedule.num_timesteps, dtype=torch.int64)
        self.seen, self.counts = self.seen.to(t.device), self.counts.to(t.device)
        # a loss that is not finite says nothing new of its step
        losses = torch.where(losses.isfinite(), losses, self.seen.square().mean(1).sqrt()[t].to(losses))
        # a step may occur several times in a batch: its losses go to columns one after another, and where
        # there are more of them than columns, the last ones stay
        t, order = t.sort(stable=True)
        before = torch.arange(len(t), device=t.device) - torch.searchsorted(t, t)
        occurrences = torch.zeros_like(self.counts).index_add(0, t, torch.ones_like(t))
        column = t * self.history + (self.counts[t] + before) % self.history
        kept = before >= occurrences[t] - self.history
        column = torch.where(kept, column, self.seen.numel())
        with_spare = torch.cat([self.seen.flatten(), self.seen.new_zeros(1)])
        with_spare = with_spare.scatter(0, column, losses[order].to(with_spare))
        self.seen = with_spare[:-1].view_as(self.seen)
        self.counts = self.counts + occurrences

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.counts = state.get("seen"), state.get("counts")


class Stated(Timesteps):
    """Every step with a probability that is stated once for a chain. Subclasses state it.

    Args:
        unbiased: weigh the losses by 1 / (T p(t)), so that their mean stays the one over all steps and the
            drawing only makes it less noisy or more. Otherwise the drawing is itself a weighting, by T p(t),
            which is what the papers mean.
    """

    adapts = False

    def __init__(self, *, unbiased: bool = False):
        self.reweights = not unbiased
        self._tables: dict[tuple[NoiseSchedule, torch.device], tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def probabilities(self, schedule: NoiseSchedule) -> Tensor:
        """p(t): float64 [T] on the CPU."""

    def draw(
        self, u: Tensor, schedule: NoiseSchedule, indices: range | None = None, batch_size: int | None = None
    ) -> Tensor:
        reached, _ = self._on(u.device, schedule)
        return torch.searchsorted(reached, floor_of_product(u, reached[-1]), right=True)

    def weight(self, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        if self.reweights:
            return torch.ones(t.shape, device=t.device)
        return self._on(t.device, schedule)[1][t]

    def _on(self, device: torch.device, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
        """How much is reached by each step, in whole numbers, which every device adds up alike; and 1 /
        (T p(t)). Made once, so that no step waits for a copy.
        """
        key = schedule, device
        if key not in self._tables:
            p = self.probabilities(schedule)
            reached = (p * 2.0**36).long().cumsum(0)
            weight = 1 / (len(p) * p.clamp(min=2.0**-36))
            self._tables[key] = reached.to(device), weight.float().to(device)
        return self._tables[key]


class LogitNormal(Stated):
    """The logarithm of u / (1 - u) is Gaussian, where u is how far along the chain the step is (Esser et al.
    2024, section 3.1, `rf/lognorm`).

    Step t stands for u from t / T to (t + 1) / T. On schedule=flow this u is the time of the path, before
    its shift: a shift moves the draws with the steps, as there. On other schedules it is the share of the
    chain's steps.

    Args:
        mean: of the logarithm; above 0 draws more noise.
        std: of it, above 0; smaller keeps closer to the middle.
        unbiased: see `Stated`.

    Raises:
        ValueError: where the deviation is not above 0.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0, *, unbiased: bool = False):
        super().__init__(unbiased=unbiased)
        _check_deviation(std)
        self.mean = mean
        self.std = std

    def probabilities(self, schedule: NoiseSchedule) -> Tensor:
        edges = torch.linspace(0, 1, schedule.num_timesteps + 1, dtype=torch.float64).logit()
        return torch.special.ndtr((edges - self.mean) / self.std).diff()


class LogNormal(Stated):
    """The logarithm of sigma = 1 / sqrt(SNR) is Gaussian (Karras et al. 2022, table 1).

    Each draw counts for the step whose ln(sigma) is nearest, so that the noise levels are distributed alike
    on every schedule, wherever its steps are dense.

    Args:
        mean: of ln(sigma).
        std: of it, above 0.
        unbiased: see `Stated`.

    Raises:
        ValueError: where the deviation is not above 0.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2, *, unbiased: bool = False):
        super().__init__(unbiased=unbiased)
        _check_deviation(std)
        self.mean = mean
        self.std = std

    def check(self, schedule: NoiseSchedule) -> None:
        log_sigma = -schedule.snr.log() / 2
        if log_sigma[-1].isinf():
            raise ValueError(
                "timesteps: LogNormal never draws zero SNR, where the schedule ends and sampling starts; use "
                "timesteps=logit_normal, or a schedule that ends above it, such as schedule=edm"
            )
        if not log_sigma[0] <= self.mean <= log_sigma[-1]:
            raise ValueError(
                f"timesteps.mean={self.mean}: ln(sigma) is {log_sigma[0]:.3g} to {log_sigma[-1]:.3g} on this "
                "schedule, so that most draws would be its first or last step; use a mean within, "
                "schedule=edm, or timesteps=uniform"
            )

    def probabilities(self, schedule: NoiseSchedule) -> Tensor:
        log_sigma = -schedule.snr.log() / 2
        end = torch.full((1,), torch.inf, dtype=torch.float64)
        edges = torch.cat([-end, (log_sigma[1:] + log_sigma[:-1]) / 2, end])
        return torch.special.ndtr((edges - self.mean) / self.std).diff()


def _check_deviation(std: float) -> None:
    if not std > 0:
        raise ValueError(f"timesteps.std={std} must be above 0")


def floor_of_product(u: Tensor, n: int | Tensor) -> Tensor:
    """floor(u n), on any device: int64 in [0, n), of the shape of u.

    Args:
        u: in [0, 1). float32 is taken as two whole numbers of 24 binary digits, whose products with n are
            exact; float64 is multiplied as it is.
        n: a whole number from 1 to 2^38.
    """
    if u.dtype == torch.float64:
        product = (u * n).long()
    else:
        scaled = u * 2.0**24
        high = scaled.long()
        low = ((scaled - high) * 2.0**24).long()
        product = (high * n + (low * n >> 24)) >> 24
    return product.clamp(max=n - 1)
