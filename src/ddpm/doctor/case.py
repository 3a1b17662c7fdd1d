"""A comparison that the doctor makes, and the line of the table that it counts for."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        check: what is examined.
        option: which option it speaks of. All cases with this check and option are one line of the table.
        compared: what with what; the first case of a line says it.
        subject: this case's own combination, named where it is the worst.
        measure: -> the error.
        allowed: how large it may be.
    """

    check: str
    option: str
    compared: str
    subject: str
    measure: Callable[[], float]
    allowed: float


@dataclass(frozen=True)
class Line:
    """One line of the table; `why` says what is wrong where it did not pass."""

    check: str
    compared: str
    worst: str
    allowed: str
    passed: bool
    why: str = ""


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the expected values where these are above 1; inf for NaN."""
    if not found.numel() and not expected.numel():
        return 0.0
    found, expected = found.detach(), expected.detach()
    difference = (found - expected).abs() / expected.abs().clamp(min=1)
    worst = float(difference.max())
    return worst if worst == worst else math.inf


def guarded(check: str, cases: Iterator[Case]) -> Iterator[Case]:
    """The same cases; and where they cannot all be set up, one that says why."""
    try:
        yield from cases
    except Exception as error:
        problem = error

        def fail() -> float:
            raise problem

        yield Case(check, "all options", "the cases themselves", "cannot be set up", fail, 0.0)


def judged(cases: Iterable[Case]) -> list[Line]:
    """A line for each check and option, red where any of its cases is beyond what is allowed or raises. The
    lines of a check stand together.
    """
    lines: dict[str, dict[str, Line]] = {}
    shares: dict[str, float] = {}
    for case in cases:
        try:
            error = case.measure()
            share = error / case.allowed if error == error else math.inf
            said = f"{error:.1e}", f"{case.allowed:.0e}", "" if share <= 1 else case.subject
        except Exception as problem:  # a line of the table, and the others go on
            share = math.inf
            said = "", "", f"{case.subject}: {type(problem).__name__}: {problem}"
        title = f"{case.check}: {case.option}"
        of_check = lines.setdefault(case.check, {})
        if title not in of_check or share > shares[title]:
            compared = of_check[title].compared if title in of_check else case.compared
            of_check[title] = Line(title, compared, said[0], said[1], share <= 1, said[2])
            shares[title] = share
    return [line for of_check in lines.values() for line in of_check.values()]
