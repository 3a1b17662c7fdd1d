"""Labels as arrays hold them, and the names of their classes."""

from collections.abc import Iterable, Sequence

import numpy as np

from ddpm.data.arrays.held import Held
from ddpm.data.classes import labelled


def is_line(shape: Sequence[int]) -> bool:
    """Whether all axes but one are of length one, as of labels [N], [N, 1], [1, N] or [N, 1, 1, 1]."""
    return sum(size != 1 for size in shape) <= 1


def values_of(held: Held) -> np.ndarray:
    """The label of each image: int64 [N], or strings [N].

    Args:
        held: whole numbers of any type, at least 0, or strings, [N], if need be among axes of one; or one 1
            and else 0 in each row [N, K], which is the number of its column.

    Raises:
        ValueError: where they are something else.
    """
    array = held.read()
    if not is_line(array.shape):
        return _columns(held, array)
    array = array.reshape(-1)
    if array.dtype.kind in "OSU":
        return np.array([_text(value) for value in array], dtype=str)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
        index = int(np.flatnonzero(array != np.trunc(array))[0])
        raise ValueError(f"label {index} of {held.name} is {array[index]}, which is no whole number")
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and np.abs(array).max() >= 2**53):
        raise ValueError(f"{held.name} holds no labels")
    if array.min() < 0:
        index = int(np.argmin(array))
        raise ValueError(f"label {index} of {held.name} is {array[index]}, which is negative")
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{held.name} holds no labels")
    return array.astype(np.int64)


def numbered(
    values: Sequence[np.ndarray], names: Iterable[tuple[str, Sequence[str]]]
) -> tuple[np.ndarray, list[str], str | None]:
    """Labels that count from 0, and the names of the classes.

    Args:
        values: of all images, from `values_of`.
        names: of arrays that may hold the names of the classes, and what they hold.

    Returns:
        int64 [N]; the names; the name of the array that holds them, None where the values name themselves.
    """
    together = np.concatenate(values) if len({array.dtype.kind for array in values}) == 1 else None
    if together is None:
        together = np.concatenate([array.astype(str) for array in values])
    if together.dtype.kind == "i" and len(together):
        lowest, highest = int(together.min()), int(together.max())
        for array, words in names:
            # they count from 0, or, in MATLAB and elsewhere, from 1
            first = 0 if lowest == 0 or highest < len(words) else 1
            if highest - first < len(words) and len(set(words)) == len(words) > 1:
                return together - first, list(words), array
    return *labelled(together.tolist()), None


def _columns(held: Held, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{held.name} holds no labels")
    wrong = np.flatnonzero(((array != 0) & (array != 1)).any(1) | ((array == 1).sum(1) != 1))
    if len(wrong):
        raise ValueError(
            f"row {int(wrong[0])} of {held.name}, whose {array.shape[1]} columns should be one 1 and else 0, "
            "is not so"
        )
    return array.argmax(1).astype(np.int64)


def _text(value: object) -> str:
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
