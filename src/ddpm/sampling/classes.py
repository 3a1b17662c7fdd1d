"""Classes as a person names them: by name or by number."""

import difflib
import operator
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ddpm.errors import UsageError

BY_NAME, BY_NUMBER = "name:", "number:"
"""What can stand before a class to say which of the two is meant, as in name:2 and number:1."""

NAMED = 20
"""Classes that a message names."""


def number_of(label: Any, classes: Sequence[str] | None) -> int:
    """The number of a class, from 0.

    Text is a name. A number is a class's number, unless classes are called by numbers and it could mean
    another one; beyond the last class it is a name. -1 stands for no class.

    Args:
        label: name or number, which may say what it is: name:2, number:1.
        classes: the names of all; None where there are none.

    Raises:
        UsageError: for a name that no class has, and a number that could mean two.
    """
    if not isinstance(label, bool | str):
        with suppress(TypeError):  # whole numbers of numpy and torch too
            number = operator.index(label)
            return number if classes is None else _meant(number, classes)
    if classes is None:
        raise UsageError(f"labels: this run was trained without classes, so there is no {label}")
    text = str(label)
    name = text.removeprefix(BY_NAME)
    for spelling in (text, text.lower(), name):
        if spelling in classes:
            return list(classes).index(spelling)
    if re.fullmatch(rf"{BY_NUMBER}-?\d+", text):
        return int(text.removeprefix(BY_NUMBER))
    near = difflib.get_close_matches(name, classes, n=1)
    hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(classes[:NAMED])}"
    raise UsageError(f"labels: this run has no class {name}; {hint}")


def _meant(number: int, classes: Sequence[str]) -> int:
    """The class that a number means, where it does not say whether it is a name."""
    values = [int(name) if re.fullmatch(r"-?\d+", name) else None for name in classes]
    called = [index for index, value in enumerate(values) if value == number]
    if not -1 <= number < len(classes):
        return called[0] if len(called) == 1 else number
    if number == -1 or called == [number] or (not called and None in values):
        return number
    if called:
        other, name = f"the class called {classes[called[0]]} is number {called[0]}", classes[called[0]]
    else:
        other, name = f"none is called {number}", classes[number]
    raise UsageError(
        f"labels={number}: class number {number}, counted from 0, is called {classes[number]}, and {other}; "
        f"say what is meant, as in labels=[{BY_NAME}{name}] or labels=[{BY_NUMBER}{number}]"
    )
