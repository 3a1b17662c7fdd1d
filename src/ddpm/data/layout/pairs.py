"""Which image of another folder belongs to an image: that of the same path, or else of the same name."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ddpm.data.layout.names import counted, listed, stem, suffix

NAMED = 3
"""Images without a partner that a message names."""

NO_PARTNER = "it has no partner of the same path or name"


def partners(names: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """The number of the partner of each image, int64 [N]; -1 where it has none.

    First by the relative path without suffix; of several images that differ in their suffix alone, the one
    with the same. Then by the name without folders and suffix, where it is that of one image on each side.

    Args:
        names: relative paths of N images.
        others: relative paths of the images of the other kind. None is the partner of two.
    """
    found = np.full(len(names), -1, np.int64)
    by_path: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(others):
        by_path[_path(name)].append(index)
    mine = Counter(map(_path, names))
    for index, name in enumerate(names):
        fitting = by_path.get(_path(name), [])
        if len(fitting) > 1 or mine[_path(name)] > 1:
            fitting = [one for one in fitting if suffix(others[one]) == suffix(name)]
        if len(fitting) == 1:
            found[index] = fitting[0]
    once = _once(names), _once(others)
    for index in np.flatnonzero(found < 0).tolist():
        if stem(names[index]) in once[0]:  # so that no partner is taken already
            found[index] = once[1].get(stem(names[index]), -1)
    return found


def unmatched(
    path: object, key: str, names: Sequence[str], others: Sequence[str], found: np.ndarray
) -> str | None:
    """What to say of images without a partner on either side; None where there are none.

    Args:
        path: of the images that are learned.
        key: that names the others.
        names: see `partners`, as are the others.
        others: the same.
        found: what it gave.
    """
    lacking = [name for name, partner in zip(names, found.tolist(), strict=True) if partner < 0]
    taken = set(found.tolist())
    left = [name for index, name in enumerate(others) if index not in taken]
    sides = [
        f"{counted(len(one))} of {where} ({listed(one, NAMED)})"
        for one, where in ((lacking, f"data.path={path}"), (left, key))
        if one
    ]
    if not sides:
        return None
    return (
        f"{len(names) - len(lacking):,} pairs of images have the same path or name, without suffix; no "
        f"partner has {', nor '.join(sides)}"
    )


def _path(name: str) -> str:
    end = suffix(name)
    return name[: -len(end) - 1] if end else name


def _once(names: Sequence[str]) -> dict[str, int]:
    """The number of each name without folders and suffix that is that of one image."""
    counts = Counter(map(stem, names))
    return {stem(name): index for index, name in enumerate(names) if counts[stem(name)] == 1}
