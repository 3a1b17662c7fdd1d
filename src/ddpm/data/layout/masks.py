"""Which images are only masks of others: those in `masks/` beside `images/`, as in sets for segmentation."""

from collections.abc import Iterable, Sequence

from ddpm.data import splits
from ddpm.data.layout.names import Folders, folders_of

_MASKS = (
    "mask masks segmentation segmentations annotation annotations label labels trimap trimaps gt groundtruth "
    "truth depth depths"
)
MASKS = frozenset(_MASKS.split())
"""Words of folders that hold something for each image of a folder beside them."""


def masks(names: Sequence[str], images: Iterable[int]) -> set[int]:
    """Numbers of those images that lie in a folder called as masks are, beside one called images.

    Args:
        names: of files.
        images: numbers of those that are images.
    """
    inside = {index: folders_of(names[index]) for index in images}
    above = {path[:depth] for path in set(inside.values()) for depth in range(1, len(path) + 1)}
    pictured = {path[:-1] for path in above if _words(path) and _words(path) <= splits.NEUTRAL}
    masked = {path for path in above if path[:-1] in pictured and not MASKS.isdisjoint(_words(path))}
    return {
        index
        for index, path in inside.items()
        if any(path[:depth] in masked for depth in range(1, len(path) + 1))
    }


def _words(path: Folders) -> set[str]:
    return set(splits.words(path[-1]))
