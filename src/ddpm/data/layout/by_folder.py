"""Classes by the folders that images lie in."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ddpm.data.layout.names import Folders, counted
from ddpm.data.layout.shards import are_shards
from ddpm.data.layout.tree import are_strays


@dataclass(frozen=True)
class ByFolder:
    """What the folders of a set say about classes.

    Attributes:
        why_none: the reason why there are no classes; "" where there are.
        steps: of each part, the folders to pass, one after the other: any of those named.
        whole: folders that hold images of their own: each is a class, with all below it.
        depth: folders of a path that count; None is all.
        shared: folders at the end of a path that are the same in all classes, and do not count.
    """

    why_none: str = ""
    steps: Mapping[str, Sequence[frozenset[str]]] = field(default_factory=dict)
    whole: frozenset[Folders] = frozenset()
    depth: int | None = None
    shared: int = 0

    def class_of(self, part: str, path: Folders) -> str | None:
        """The class of what lies there in a part; None where that is beside the classes."""
        for folders in self.steps[part]:
            if not path or path[0] not in folders:
                return None
            path = path[1:]
        path = _outermost(path, self.whole)
        return "/".join(path[: len(path) - self.shared][: self.depth]) or None


def by_folder(parts: Mapping[str, Mapping[Folders, Sequence[str]]], depth: int | None = None) -> ByFolder:
    """The classes of some parts.

    Wrapping folders that all parts have in common, and folders that are only pieces, are passed. Images
    beside the class folders are strays where they are few; else there are no classes. One folder alone is no
    class. A part whose images lie in no folder at all takes no part in this.

    Args:
        parts: of each the names of its images, without suffix, by the folders that they lie in below those
            that are passed already.
        depth: folders of a path that count; None is all.
    """
    left = {part: dict(images) for part, images in parts.items() if images.keys() - {()}}
    steps: dict[str, list[frozenset[str]]] = {part: [] for part in parts}
    while True:
        for images in left.values():
            beside = len(images.get((), ()))
            if not are_strays(beside, sum(map(len, images.values()))):
                return ByFolder(f"{counted(beside)} {'lies' if beside == 1 else 'lie'} beside the folders")
        folders = {path[0] for images in left.values() for path in images if path}
        if len(folders) == 1:
            passed = {part: frozenset(folders) for part in left}
        else:
            passed = {part: found for part, images in left.items() if (found := _shards(images))}
        if not passed:
            break
        for part, names in passed.items():
            steps[part].append(names)
            left[part] = _below(left[part])
        left = {part: images for part, images in left.items() if images.keys() - {()}}
    if not folders:
        return ByFolder("there are no folders of classes")
    whole = frozenset(path for images in left.values() for path in images if path)
    classes = {_outermost(path, whole) for path in whole}
    shared = 0
    while len({path[-1 - shared :][:1] for path in classes}) == 1 < min(map(len, classes)) - shared:
        shared += 1
    if len({path[: len(path) - shared][:depth] for path in classes}) < 2:
        return ByFolder(f"data.class_depth={depth} leaves one class")
    return ByFolder("", steps, whole, depth, shared)


def _outermost(path: Folders, whole: frozenset[Folders]) -> Folders:
    return next((path[:depth] for depth in range(1, len(path)) if path[:depth] in whole), path)


def _below(images: Mapping[Folders, Sequence[str]]) -> dict[Folders, Sequence[str]]:
    """The same without the outermost folder of each path, and without what lies in none."""
    found: dict[Folders, list[str]] = defaultdict(list)
    for path, stems in images.items():
        if path:
            found[path[1:]] += stems
    return dict(found)


def _shards(images: Mapping[Folders, Sequence[str]]) -> frozenset[str] | None:
    """The folders on top, if they are pieces."""
    stems: dict[str, list[str]] = defaultdict(list)
    for path, inside in images.items():
        if path:
            stems[path[0]] += inside
    return frozenset(stems) if are_shards(stems) else None
