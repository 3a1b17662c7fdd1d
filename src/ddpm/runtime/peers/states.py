"""How far each rank of a run is, and which of them keeps the others waiting."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ddpm.runtime.progress import duration

STARTING = "start-up"
"""Until the first step is made: what it waits for (data, a compiler) takes as long as it takes."""

SILENT = 10.0
"""Seconds without a word after which a rank is taken for stopped, where one was due every second."""


@dataclass
class State:
    """How far a rank is, as it says itself.

    Attributes:
        rank: its number.
        host: its machine's name.
        pid: its process there.
        place: where that number means something, see `ddpm.runtime.processes.place`.
        start: when that process began, see `ddpm.runtime.processes.start_of`.
        phase: what it does, in words.
        step: optimizer steps that it has completed; -1 where its work has no steps.
        within: how far it is beyond that step; the larger, the further.
        idle: seconds since it last got further.
        waiting: whether it waits for the leader, and is ready whenever that is.
    """

    rank: int
    host: str = "?"
    pid: int = 0
    place: str = ""
    start: str | None = None
    phase: str = STARTING
    step: int = 0
    within: list[int] = field(default_factory=lambda: [0, 0])
    idle: float = 0.0
    waiting: bool = False

    @property
    def name(self) -> str:
        """Who it is, in words."""
        return f"rank {self.rank} on {self.host} (pid {self.pid})"

    @property
    def at(self) -> str:
        """How far it is, in words."""
        return "" if self.step < 0 else f" at step {self.step}"


def read(values: Any) -> State:
    """A state as it came over the network.

    Raises:
        ValueError: where it is none.
    """
    try:
        known = {name: values[name] for name in State.__dataclass_fields__}
        state = State(**known)
        numbers = [state.rank, state.pid, state.step, *state.within]
        whole = all(isinstance(number, int) for number in numbers) and isinstance(state.idle, int | float)
        words = all(isinstance(text, str) for text in (state.host, state.place, state.phase))
        if not whole or not words:
            raise TypeError
    except (KeyError, TypeError) as error:
        raise ValueError("no state of a rank") from error
    return state


@dataclass(frozen=True)
class Seen:
    """The last that was heard of a rank, and how many seconds ago."""

    state: State
    ago: float

    @property
    def is_silent(self) -> bool:
        """Whether it has been too long; a process that is stopped, or whose machine is gone, says nothing."""
        return self.ago > SILENT

    @property
    def idle(self) -> float:
        """Seconds since it last got further, as far as is known."""
        return self.state.idle + self.ago

    def __str__(self) -> str:
        state = self.state
        what = (
            f"has said nothing for {duration(self.ago)}"
            if self.is_silent
            else f"has got no further for {duration(self.idle)}"
        )
        return f"{state.name} {what}:{state.at}{',' if state.at else ''} {state.phase}"


def behind(ranks: Iterable[Seen], seconds: float) -> list[Seen]:
    """The ranks that have kept the others waiting for so many seconds.

    Those that say nothing; if all speak and none gets further, those that are the least far. In a step the
    ranks need each other, so that one that hangs soon stops them all: who is behind tells them apart.
    """
    ranks = list(ranks)
    if silent := [seen for seen in ranks if seen.is_silent and seen.ago > seconds]:
        return silent
    working = [seen for seen in ranks if not seen.state.waiting and seen.state.phase != STARTING]
    if not any(seen.idle > seconds for seen in working):
        return []
    if stopped := [seen for seen in ranks if seen.is_silent]:
        return stopped  # and soon for long enough: nobody is to blame before
    least = min([seen.state.step, *seen.state.within] for seen in working)
    return [
        seen for seen in working if [seen.state.step, *seen.state.within] == least and seen.idle > seconds
    ]


def told(ranks: list[Seen]) -> str:
    """Which ranks are behind, where and for how long, in one line."""
    shown = "; ".join(str(seen) for seen in ranks[:4])
    return shown if len(ranks) <= 4 else f"{shown}; and {len(ranks) - 4} more"


def missing(present: Mapping[int, Any], world_size: int) -> list[int]:
    """Ranks of which nothing was heard yet."""
    return [rank for rank in range(world_size) if rank not in present]


def listed(ranks: list[int]) -> str:
    """rank 3; ranks 1, 2; ranks 1, 2, 3, 4 and 12 more."""
    shown = ", ".join(str(rank) for rank in ranks[:4])
    more = f" and {len(ranks) - 4} more" if len(ranks) > 4 else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}{more}"


def copied(state: State, idle: float) -> State:
    """The state now, to be sent."""
    return replace(state, within=list(state.within), idle=idle)
