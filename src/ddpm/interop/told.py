"""What a person says of a checkpoint beside its weights, and what is taken where they say nothing."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value", bool, int, float, str)

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


class Told:
    """Settings by the names that their codebase gives them.

    Args:
        given: the words of a person, by name.
    """

    def __init__(self, given: Mapping[str, str]):
        self._given = dict(given)
        self._taken: dict[str, str] = {}

    def __call__(self, name: str, default: Value, known: Sequence[Value] = ()) -> Value:
        """A setting.

        Args:
            name: of it.
            default: where nothing is said of it; a number must be above 0, unless its default is 0 or below.
            known: what it may be; empty for anything of the type of its default.

        Raises:
            ValueError: for a value that is no such thing.
        """
        value = default if name not in self._given else _read(name, self._given[name], default)
        if known and value not in known:
            raise ValueError(f"{name}={value}: is none of {', '.join(map(str, known))}")
        self._taken[name] = str(value).lower() if isinstance(value, bool) else str(value)
        return value

    def says(self, name: str) -> bool:
        """Whether a person says something of it."""
        return name in self._given

    def check(self, kind: str) -> None:
        """Refuse what nobody asked for.

        Raises:
            ValueError: for the first, with what was meant.
        """
        for name in self._given.keys() - self._taken.keys():
            near = difflib.get_close_matches(name, self._taken, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(self._taken) or 'none'}"
            raise ValueError(f"{name}: is no setting of kind={kind}; {meant}")

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._taken.items())


def _read(name: str, word: str, default: Value) -> Value:
    kind = type(default)
    if kind is bool:
        if word.lower() not in TRUE + FALSE:
            raise ValueError(f"{name}={word}: must be true or false")
        return kind(word.lower() in TRUE)
    if kind is str:
        return kind(word)
    try:
        value = kind(word)
        number = float(value)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name}={word}: must be {what}") from None
    least = float(default)
    if not math.isfinite(number) or (least > 0 and number <= 0) or (least == 0 and number < 0):
        raise ValueError(f"{name}={word}: must be {'above' if least > 0 else 'at least'} 0, and finite")
    return value
