"""Labels, which count from 0, and the names of their classes in natural order."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from ddpm.data.skipped import printable

LISTED = 5
DIGITS = re.compile(r"([0-9]+)")


def natural(name: str) -> tuple[Any, ...]:
    """A key that sorts numbers within names by their value: a2 before a10. Else letters sort as they are."""
    parts: list[Any] = DIGITS.split(name)
    parts[1::2] = map(int, parts[1::2])
    return tuple(parts), name


def classes_in(values: Iterable[int | str]) -> list[int | str]:
    """Every value that occurs, once, in natural order."""
    found = set(values)
    numbers = [value for value in found if isinstance(value, int)]
    if len(numbers) == len(found):
        return [*sorted(numbers)]  # by value, -1 before 0
    return sorted(found, key=lambda value: natural(str(value)))


def strangers(
    shown: Collection[int | str], held_out: Collection[int | str], *, named: bool
) -> list[int | str]:
    """Classes of held-out images that keep these from being held out: those that no image to train on is of.

    Where classes are named beforehand, only parts that have none in common do not fit.
    """
    strange = set(held_out) - set(shown)
    return classes_in(strange) if not named or len(strange) == len(set(held_out)) else []


def listed(classes: Sequence[int | str] | None) -> str:
    """The first few of some classes, for messages."""
    if classes is None:
        return "without names"
    return ", ".join(printable(str(name)) for name in classes[:LISTED]) + (
        "" if len(classes) <= LISTED else ", ..."
    )


def one_hot(value: object) -> int | None:
    """The index of the one in a list of zeros; None where it is no such list."""
    if not isinstance(value, list) or not all(isinstance(one, int | float) for one in value):
        return None
    return value.index(1) if sorted(value) == [0] * (len(value) - 1) + [1] else None


def labelled(
    values: Sequence[int | str], classes: Sequence[int | str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Labels int64 [N] of values, and the names of the classes.

    Args:
        values: of the images, one each.
        classes: all values that there can be, in their order; None is those that occur, in natural order.
    """
    known = classes_in(values) if classes is None else classes
    number = {value: label for label, value in enumerate(known)}
    return np.array([number[value] for value in values], np.int64), [str(value) for value in known]
