"""Numbers of each image as arrays hold them: vectors that a network is conditioned on."""

from collections.abc import Sequence

import numpy as np

from ddpm.data.arrays.held import Held
from ddpm.data.arrays.labels import is_line


def vectors_of(arrays: Sequence[Held], count: int, key: str) -> np.ndarray:
    """The vectors of so many images, float32 [count, D].

    Args:
        arrays: of numbers [N], if need be among axes of one, or [N, D]; one after the other.
        count: of the images.
        key: that names them, for messages.

    Raises:
        ValueError: where they are something else, not as many, or one is not finite.
    """
    found = [_numbers(held, key) for held in arrays]
    sizes = {one.shape[1] for one in found}
    total = sum(map(len, found))
    if len(sizes) > 1 or total != count:
        said = ", ".join(map(str, arrays))
        raise ValueError(
            f"{key}: {said} holds vectors for {total:,} images, and there are {count:,}; it must be "
            f"[{count}] or [{count}, D]"
        )
    return np.concatenate(found)


def _numbers(held: Held, key: str) -> np.ndarray:
    if held.dtype.kind not in "biuf" or not held.shape or 0 in held.shape:
        raise ValueError(f"{key}: {held} holds no numbers")
    array = held.read()
    if is_line(array.shape):
        array = array.reshape(-1, 1)
    if array.ndim != 2:
        raise ValueError(f"{key}: {held} must be numbers [N] or [N, D]")
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite then
        found = array.astype(np.float32)
    if not np.isfinite(found).all():
        row, column = np.argwhere(~np.isfinite(found))[0].tolist()
        where = f"row {row}" if found.shape[1] == 1 else f"row {row}, column {column}"
        raise ValueError(
            f"{key}: {where} of {held.name} is {array[row, column]}, which is not finite; mend it"
        )
    return found
