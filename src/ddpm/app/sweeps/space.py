"""What a search looks through: a parameter for each key, read from Hydra's override grammar.

`choice(a,b)` or `a,b` are values without an order, `interval(0,1)` is all numbers from one to the other,
`int(interval(1,8))` the whole ones among them, `range(0,1,0.25)` those in even steps without the last;
`tag(log,...)` looks at them by their logarithm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
)

from ddpm.app.arguments import Arguments
from ddpm.app.grammar import shown
from ddpm.errors import UsageError

DIGITS = 5
"""Significant digits of a number that is drawn from an interval, as a run is given it."""

TAGS = ("log", "int")


@dataclass(frozen=True)
class Parameter:
    """One key that is searched.

    Attributes:
        key: as an override names it, `++optimizer.lr`.
        choices: values in Hydra's grammar; none for numbers.
        low, high: the least and the greatest number.
        step: between numbers; None for all of them.
        log: whether they are drawn by their logarithm.
        whole: whether they are whole numbers.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        """The key as a person types it."""
        return self.key.lstrip("+")

    def override(self, value: str | float) -> str:
        """The override that gives a run this value."""
        if self.choices:
            return f"{self.key}={value}"
        number = float(value)
        if self.whole:
            return f"{self.key}={round(number)}"
        rounded = float(f"{number:.{DIGITS}g}")
        return f"{self.key}={min(max(rounded, self.low), self.high)!r}"

    @property
    def samples(self) -> list[str]:
        """Overrides that show whether its values can be had: each choice; of numbers both ends and one in
        between.
        """
        if self.choices:
            return [self.override(value) for value in self.choices]
        between = math.sqrt(self.low * self.high) if self.log else self.low + 0.382 * (self.high - self.low)
        if self.step is not None:
            between = self.low + self.step * round((between - self.low) / self.step)
        return list(dict.fromkeys(map(self.override, (self.low, between, self.high))))

    @property
    def described(self) -> str:
        """Its values, in words that are equal where they are equal."""
        if self.choices:
            return f"choice({', '.join(self.choices)})"
        kind = f"every {self.step:g} of" if self.step is not None else "whole numbers of" * self.whole
        return " ".join(filter(None, ["log" * self.log, kind, f"{self.low:g} to {self.high:g}"]))


def parameter(override: Override, arguments: Arguments) -> Parameter:
    """The parameter that an override with several values is.

    Args:
        override: as Hydra reads it.
        arguments: the command line; it knows the options of groups.

    Raises:
        UsageError: where nothing can be drawn from them.
    """
    text = shown([override.input_line or ""])
    key, value = override.get_key_element(), override.value()
    tags: set[str] = set(value.tags) if isinstance(value, Sweep) else set()
    if unknown := tags - set(TAGS):
        raise UsageError(f"{text}: there is no tag {min(unknown)}; there are {', '.join(TAGS)}")
    if isinstance(value, ChoiceSweep | Glob):
        if tags:
            raise UsageError(f"{text}: choices have no order; tags are for interval(...) and range(...)")
        words = (word.partition("=")[2] for word in arguments.choices(override))
        if len(choices := tuple(dict.fromkeys(words))) < 2:
            raise UsageError(f"{text}: a search needs several values to choose from")
        return Parameter(key, choices)
    if isinstance(value, IntervalSweep):
        found = _interval(text, key, value, "log" in tags, "int" in tags)
    else:
        assert isinstance(value, RangeSweep)
        found = _range(text, key, value, "log" in tags)
    if not (math.isfinite(found.low) and math.isfinite(found.high) and found.low < found.high):
        raise UsageError(f"{text}: must lead from a number to a greater one")
    if found.log and found.low <= 0:
        raise UsageError(f"{text}: what is drawn by its logarithm begins above 0")
    return found


def _interval(text: str, key: str, value: IntervalSweep, log: bool, whole: bool) -> Parameter:
    assert value.start is not None
    assert value.end is not None
    whole = whole or isinstance(value.start, int)  # int(interval(1,8))
    if whole and not (float(value.start).is_integer() and float(value.end).is_integer()):
        raise UsageError(f"{text}: whole numbers lie between whole numbers")
    return Parameter(key, (), float(value.start), float(value.end), None, log, whole)


def _range(text: str, key: str, value: RangeSweep, log: bool) -> Parameter:
    numbers = sorted(float(number) for number in value.range()) if value.step else []
    if len(numbers) < 2:
        raise UsageError(
            f"{text}: a search needs several values, and range(START,STOP,STEP) ends before STOP"
        )
    whole = all(isinstance(bound, int) for bound in (value.start, value.stop, value.step))
    step: float | None = abs(float(value.step))
    if log and not (whole and step == 1):
        raise UsageError(f"{text}: what is drawn by its logarithm has no steps; use tag(log,interval(...))")
    return Parameter(key, (), numbers[0], numbers[-1], None if log else step, log, whole)


def described(space: Sequence[Parameter]) -> dict[str, str]:
    """What is searched, by key, as `sweep.json` keeps it."""
    return {one.name: one.described for one in sorted(space, key=lambda one: one.name)}
