"""Which image a file of labels means by a name: with or without folders, with or without a suffix."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from typing import NamedTuple

from ddpm.data.layout.names import IMAGES, Folders, folders_of, suffix


class Several(NamedTuple):
    """A name that may mean any of several images."""

    names: Sequence[str]


class Known:
    """The names of images, to be looked up as people write them.

    Args:
        names: relative paths of all files.
        images: numbers of those that can be meant.
    """

    def __init__(self, names: Sequence[str], images: Iterable[int]):
        self.names = names
        self.folder = ""
        self.images = list(images)
        self._by_end: dict[tuple[str | None, str], list[int]] = defaultdict(list)  # by folder, and by any
        self._by_path = {names[index]: index for index in self.images}
        for index in self.images:
            above, _, base = _stem(names[index]).rpartition("/")
            for folder in (above.rpartition("/")[2], None):
                self._by_end[folder, base].append(index)

    def __len__(self) -> int:
        return len(self.images)

    def seen_from(self, folder: Folders) -> "Known":
        """The same, for names that are relative to a folder."""
        seen = copy(self)
        seen.folder = "".join(f"{name}/" for name in folder)
        return seen

    def find(self, key: str) -> int | Several | None:
        """The image that a name means: the one at that path, else the only one whose path ends like it."""
        path = key.strip().replace("\\", "/").removeprefix("./").strip("/")
        if not path:
            return None
        for exact in (self.folder + path, path):
            if exact in self._by_path:
                return self._by_path[exact]
        found = [index for end in {_stem(path), path} for index in self._ending(end)]
        same = [index for index in found if suffix(self.names[index]) == suffix(path)]
        found = same or found
        if len(found) > 1:
            return Several([self.names[index] for index in sorted(found)])
        return found[0] if found else None

    def _ending(self, path: str) -> list[int]:
        """Images whose path, without its suffix, ends with another, or is the end of that."""
        *above, base = path.split("/")
        found = []
        folders_here = {above[-1], ""} if above else {None}
        for index in itertools.chain.from_iterable(self._by_end.get((one, base), ()) for one in folders_here):
            folders = folders_of(self.names[index])
            shared = min(len(folders), len(above))
            if not shared or list(folders[-shared:]) == above[-shared:]:
                found.append(index)
        return found


def _stem(path: str) -> str:
    """A path without the suffix of an image; what follows another dot belongs to the name."""
    end = suffix(path)
    return path[: -len(end) - 1] if end in IMAGES or end == "npy" else path
