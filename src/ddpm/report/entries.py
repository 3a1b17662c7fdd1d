"""What a page says of one run, sweep job or evaluation, whoever found it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """A value that evaluate.py has measured.

    Attributes:
        name: of the measure.
        value: finite.
        interval: in which it lies with probability 0.95, or None.
        source: the file that says it, relative to what the person named.
        nfe: network evaluations of an image that was drawn, or None.
        higher_is_better: whether.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    source: str = ""
    nfe: int | None = None
    higher_is_better: bool = False


@dataclass(frozen=True)
class Entry:
    """A run, a job of a sweep or an evaluation. Every text in it may be a stranger's.

    Attributes:
        name: by which the page calls it.
        short: the same beside columns that say what sets it apart.
        directory: absolute.
        status: "running", "finished" and so on, see `ddpm.app.sweeps.record.Job`; "unknown" where nothing
            says it.
        why: it ended so, or None.
        step, max_steps: completed optimizer steps, and how many there are to be, or None.
        seconds: that it took, or None.
        record: what its run.json says; empty where there is none.
        config: its configuration, nested; empty where there is none.
        defaults: the configuration that it would have if nothing but its data had been chosen; None where
            that is not known.
        typed: what sets it apart in the sweep that it is a job of, as typed; None for no job.
        measurements: of evaluate.py.
        beside: directories in its own that hold samples or measurements, with pictures of them.
        notes: what could not be read, in words.
    """

    name: str
    directory: Path
    status: str = "unknown"
    why: str | None = None
    step: int | None = None
    max_steps: int | None = None
    seconds: float | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] | None = None
    typed: Mapping[str, str] | None = None
    short: str = ""
    measurements: tuple[Measurement, ...] = ()
    beside: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
