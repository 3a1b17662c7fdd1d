"""Averages of a network's parameters whose length grows with the training (Karras et al. 2024, EDM2)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from ddpm.training.ema import RunningAverage
from ddpm.training.power_profiles import decay, exponent


class PowerAverage(RunningAverage):
    """The average with a power-function profile of one length.

    Args:
        network: whose parameters are followed.
        sigma_rel: the length, see `ddpm.training.power_profiles`.
    """

    def __init__(self, network: nn.Module, sigma_rel: float):
        super().__init__(network)
        self.gamma = exponent(sigma_rel)

    def next_decay(self) -> float:
        return decay(self.num_updates + 1, self.gamma)


class PowerEMA:
    """Averages of several lengths at once (Karras et al. 2024, section 3.1), of which snapshots are kept in
    the run's directory: averages of other lengths are made of them afterwards, see `ddpm.training.posthoc`.

    Args:
        network: whose parameters are followed.
        sigma_rels: the lengths, at least two, each as the standard deviation of its profile relative to the
            training so far; 0.1 averages over about the last fifth of it.
        sigma_rel: that of them which samples, validation and checkpoints are of.
        snapshot_every_n_steps: optimizer steps between snapshots; None for a 32nd of the run.

    Raises:
        ValueError: where a setting is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        sigma_rels: Sequence[float] = (0.05, 0.10),
        sigma_rel: float = 0.10,
        snapshot_every_n_steps: int | None = None,
    ):
        if len(set(sigma_rels)) < 2 or len(set(sigma_rels)) < len(sigma_rels):
            raise ValueError(f"ema.sigma_rels={list(sigma_rels)} must be at least two lengths, each once")
        if sigma_rel not in sigma_rels:
            raise ValueError(f"ema.sigma_rel={sigma_rel} must be one of ema.sigma_rels={list(sigma_rels)}")
        if snapshot_every_n_steps is not None and snapshot_every_n_steps < 1:
            raise ValueError(
                f"ema.snapshot_every_n_steps={snapshot_every_n_steps} must be at least 1, or null"
            )
        try:
            self.averages = {float(length): PowerAverage(network, length) for length in sigma_rels}
        except ValueError as error:
            raise ValueError(f"ema.sigma_rels: {error}") from error
        self.sigma_rel = float(sigma_rel)
        self.snapshot_every_n_steps = snapshot_every_n_steps

    @property
    def num_updates(self) -> int:
        return self._used.num_updates

    @property
    def _used(self) -> PowerAverage:
        return self.averages[self.sigma_rel]

    def update(self) -> None:
        for average in self.averages.values():
            average.update()

    def reset(self) -> None:
        for average in self.averages.values():
            average.reset()

    def follow(self) -> None:
        for average in self.averages.values():
            average.follow()

    def swapped_in(self) -> AbstractContextManager[None]:
        return self._used.swapped_in()

    def swapped_out(self) -> AbstractContextManager[None]:
        return self._used.swapped_out()

    def parameters(self) -> dict[str, dict[str, Tensor]]:
        """Every average by its length, in text, and the name of the parameter."""
        return {repr(length): one.state_dict()["parameters"] for length, one in self.averages.items()}

    def state_dict(self) -> dict[str, Any]:
        by_length = self.parameters()
        used = by_length.pop(repr(self.sigma_rel))
        return {
            "num_updates": self.num_updates,
            "parameters": used,
            "sigma_rel": self.sigma_rel,
            "others": by_length,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave. Of another kind of average, which has one length alone, that stands
        for all of them.
        """
        others = state.get("others", {})
        for length, average in self.averages.items():
            average.load_state_dict(
                {
                    "num_updates": state["num_updates"],
                    "parameters": others.get(repr(length), state["parameters"]),
                }
            )
