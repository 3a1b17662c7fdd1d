"""How images lie in folders: wrappers that mean nothing, parts, and what is left of each path."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ddpm.data import splits
from ddpm.data.layout.names import Folders

STRAY_SHARE = 10
"""Images that lie beside folders of images are strays where they are at most one in so many of all."""


class Place(NamedTuple):
    """Where an image lies.

    Attributes:
        part: by its name; "" where there are no parts.
        folder: that stands for the part, for people; "" as above.
        path: the folders below it, wrappers passed.
    """

    part: str
    folder: str
    path: Folders


@dataclass(frozen=True)
class Tree:
    """Wrappers and parts.

    Attributes:
        wrappers: folders around everything.
        parts: the part, and the class if its name says one, of each folder there; empty where there are none.
        below: the depth of these folders below the wrappers: 0, or 1 where each class has its own.
        inner: folders within a part's folder that only repeat its name, by that folder's path.
    """

    wrappers: Folders = ()
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    below: int = 0
    inner: Mapping[Folders, Folders] = field(default_factory=dict)

    def place(self, path: Folders) -> Place | None:
        """Where something lies by its folders; None where that is beside the wrappers or the parts."""
        depth = len(self.wrappers)
        if path[:depth] != self.wrappers:
            return None
        path = path[depth:]
        if not self.parts:
            return Place("", "", path)
        if len(path) <= self.below or path[self.below] not in self.parts:
            return None
        above, folder, path = path[: self.below], path[: self.below + 1], path[self.below + 1 :]
        part, class_name = self.parts[folder[-1]]
        inner = self.inner.get(folder, ())
        if path[: len(inner)] != inner:
            return None
        shown = "/".join((*self.wrappers, *("*",) * self.below, folder[-1], ""))
        return Place(part, shown, (*above, *((class_name,) if class_name else ()), *path[len(inner) :]))


def tree(paths: Iterable[Folders], there: Iterable[Folders] = ()) -> Tree:
    """The wrappers and parts of images.

    Args:
        paths: the folders of N images.
        there: further folders, which may hold none.
    """
    here = Counter(paths)
    inside: dict[Folders, set[str]] = defaultdict(set)
    for path in (*there, *here):
        for depth in range(len(path)):
            inside[path[:depth]].add(path[depth])
    wrappers: Folders = ()
    while here[wrappers] != here.total() and are_strays(here[wrappers], here.total()):
        depth = len(wrappers)
        filled = {path[depth] for path in here if len(path) > depth}
        if parts := _parts(inside[wrappers], filled):
            return Tree(wrappers, parts, 0, _inner(parts, here, depth, 0))
        if parts := _parts_of_each(here, inside, wrappers):
            return Tree(wrappers, parts, 1, _inner(parts, here, depth, 1))
        if len(filled) > 1:
            break
        here = Counter({path: count for path, count in here.items() if path != wrappers})
        wrappers = (*wrappers, *filled)
    return Tree(wrappers)


def are_strays(number: int, all_of_them: int) -> bool:
    """Whether so many images beside folders of images are too few to mean anything."""
    return number <= max(1, all_of_them // STRAY_SHARE) and number < all_of_them


def _parts(names: Collection[str], filled: Collection[str]) -> dict[str, tuple[str, str]]:
    """What the folders beside each other mean; one that holds no images counts where its name is a part's."""
    return splits.parts_among(
        name for name in sorted(names) if name in filled or (splits.meaning(name) and not splits.rest(name))
    )


def _parts_of_each(
    here: Mapping[Folders, int], inside: Mapping[Folders, Collection[str]], wrappers: Folders
) -> dict[str, tuple[str, str]]:
    """The parts that every folder here has of its own: `cat/train`, `cat/test`, `dog/train`, `dog/test`."""
    depth = len(wrappers)
    counts: dict[str, int] = defaultdict(int)
    filled: dict[str, set[str]] = defaultdict(set)
    for path, count in here.items():
        if len(path) > depth:
            counts[path[depth]] += count
            filled[path[depth]].update(path[depth + 1 : depth + 2])
    if len(counts) < 2:
        return {}
    found: dict[str, tuple[str, str]] = {}
    for name, count in counts.items():
        folder = (*wrappers, name)
        parts = _parts(inside[folder], filled[name])
        if not parts or not are_strays(here[folder], count) or any(label for _, label in parts.values()):
            return {}
        found |= parts
    return found


def _inner(
    parts: Collection[str], here: Mapping[Folders, int], depth: int, below: int
) -> dict[Folders, Folders]:
    """Folders that repeat the name of the part's folder that they lie alone in: `train/train/cat`."""
    inside: dict[Folders, Counter[Folders]] = defaultdict(Counter)
    for path, count in here.items():
        if len(path) > depth + below and path[depth + below] in parts:
            inside[path[depth : depth + below + 1]][path[depth + below + 1 :]] += count
    found = {}
    for folder, paths in inside.items():
        inner: Folders = ()
        while names := {path[len(inner)] for path in paths if len(path) > len(inner)}:
            name = min(names)
            if (
                len(names) > 1
                or not are_strays(paths[inner], paths.total())
                or not _repeats(name, folder[-1])
            ):
                break
            del paths[inner]
            inner = (*inner, name)
        if inner:
            found[folder] = inner
    return found


def _repeats(name: str, part: str) -> bool:
    means = splits.meaning(name)
    same = means is not None and means == splits.meaning(part) and splits.rest(name) == splits.rest(part)
    return name == part or same
