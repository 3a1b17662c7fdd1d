"""How the timesteps of a training batch are drawn."""

from typing import Any, Protocol

import torch
from torch import Tensor


class Timesteps(Protocol):
    """Turns uniform numbers, one per sample, into timesteps.

    Only `observe` and `load_state_dict` change what is drawn. `adapts` says whether `observe` does.
    """

    adapts: bool

    def draw(
        self, u: Tensor, num_timesteps: int, places: range | None = None, batch_size: int | None = None
    ) -> Tensor:
        """Timesteps of a part of the global batch.

        Args:
            u: float [B] in [0, 1).
            num_timesteps: T.
            places: where in the global batch they stand; by default they are all of it.
            batch_size: of the global batch.

        Returns:
            int64 [B] in [0, T).
        """
        ...

    def weight(self, t: Tensor, num_timesteps: int) -> Tensor:
        """Factor on the loss at `t` int64 [B] that makes up for its being drawn more often or less: float
        [B], 1 / (T p(t)).
        """
        ...

    def observe(self, t: Tensor, losses: Tensor, num_timesteps: int) -> None:
        """Learn the losses [B] at `t` int64 [B] of a whole global batch, in the order of its places."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that was learned, in plain containers."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        ...


class Uniform:
    """Every step with the same probability (Ho et al. 2020, algorithm 1)."""

    adapts = False

    def draw(
        self, u: Tensor, num_timesteps: int, places: range | None = None, batch_size: int | None = None
    ) -> Tensor:
        return (u.double() * num_timesteps).long().clamp(max=num_timesteps - 1)

    def weight(self, t: Tensor, num_timesteps: int) -> Tensor:
        return torch.ones(t.shape, device=t.device)

    def observe(self, t: Tensor, losses: Tensor, num_timesteps: int) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Stratified(Uniform):
    """Every step with the same probability, and the steps of a global batch spread evenly over the chain.

    Place i of a batch of B draws from [i / B, (i + 1) / B) of the chain, which makes the mean loss of a batch
    less noisy (Kingma et al. 2021, appendix I.1).
    """

    def draw(
        self, u: Tensor, num_timesteps: int, places: range | None = None, batch_size: int | None = None
    ) -> Tensor:
        places = range(len(u)) if places is None else places
        strata = torch.arange(places.start, places.stop, dtype=torch.float64, device=u.device)
        return super().draw((strata + u.double()) / (batch_size or len(u)), num_timesteps)


class LossSecondMoment:
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
        """p(t): float64 [T]."""
        even = torch.full((num_timesteps,), 1 / num_timesteps, dtype=torch.float64, device=device)
        if self.seen is None:
            return even
        root = self.seen.to(device).double().square().mean(1).sqrt()
        full = (self.counts.to(device) >= self.history).all() & (root.sum() > 0)
        learned = root / torch.where(full, root.sum(), 1)
        # chosen by values, not by a branch, so that nothing waits for the device
        return torch.where(full, torch.lerp(learned, even, self.uniform_share), even)

    def draw(
        self, u: Tensor, num_timesteps: int, places: range | None = None, batch_size: int | None = None
    ) -> Tensor:
        reached = self.probabilities(num_timesteps, u.device).cumsum(0)
        return torch.searchsorted(reached / reached[-1], u.double(), right=True).clamp(max=num_timesteps - 1)

    def weight(self, t: Tensor, num_timesteps: int) -> Tensor:
        return (1 / (num_timesteps * self.probabilities(num_timesteps, t.device)[t])).float()

    def observe(self, t: Tensor, losses: Tensor, num_timesteps: int) -> None:
        if self.seen is None:
            self.seen = torch.zeros(num_timesteps, self.history)
            self.counts = torch.zeros(num_timesteps, dtype=torch.int64)
        self.seen, self.counts = self.seen.to(t.device), self.counts.to(t.device)
        # a step may occur several times in a batch: its losses go to places one after another, and where
        # there are more of them than places, the last ones stay
        t, order = t.sort(stable=True)
        before = torch.arange(len(t), device=t.device) - torch.searchsorted(t, t)
        occurrences = torch.zeros_like(self.counts).index_add(0, t, torch.ones_like(t))
        place = t * self.history + (self.counts[t] + before) % self.history
        kept = before >= occurrences[t] - self.history
        place = torch.where(kept, place, self.seen.numel())
        with_spare = torch.cat([self.seen.flatten(), self.seen.new_zeros(1)])
        with_spare = with_spare.scatter(0, place, losses[order].to(with_spare))
        self.seen = with_spare[:-1].view_as(self.seen)
        self.counts = self.counts + occurrences

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.counts = state.get("seen"), state.get("counts")
