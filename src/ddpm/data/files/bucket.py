"""The files of a folder behind a URL, in whatever store `fsspec` reads."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from ddpm.data import bounds
from ddpm.data.files import folders_of, is_visible
from ddpm.data.pixels.decoding import Encoded, short
from ddpm.data.prepared.cache import FileState

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

AT_ONCE = 64
"""Files that are asked for together: one takes as long as many."""

WILDCARD = re.compile(r"[*?[]")
"""A name with one of these is a pattern where many are asked for together."""


class BucketFiles:
    """Every file below a URL that is not hidden, in the order of their names.

    Args:
        url: with a protocol that `fsspec` knows: `s3://`, `gs://`, `hf://`, `memory://`.

    Raises:
        ValueError: where it cannot be listed, or there is no such folder.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        try:
            self.filesystem, root = _opened(self.url)
            found = self.filesystem.find(root, detail=True)
            is_file = bool(found) and self.filesystem.isfile(root)
        except Exception as error:  # each store has errors of its own
            raise ValueError(f"data.path={url} could not be listed ({short(error)})") from error
        if is_file:
            raise ValueError(f"data.path={url} is a file; read a zip or tar file by data=archive")
        if not found:
            raise ValueError(f"data.path={url}: there are no files; check the spelling")
        cut = len(root.rstrip("/")) + 1
        infos = {path[cut:]: info for path, info in sorted(found.items()) if is_visible(path[cut:])}
        self.names = list(infos)
        self.states = [_state(info) for info in infos.values()]
        self.files: list[FileState] = [
            (name, int(info.get("size") or 0), int(state, 16))
            for (name, info), state in zip(infos.items(), self.states, strict=True)
        ]
        self.folders = sorted(folders_of(self.names))
        self.refused = {
            index: f"it has {size:,} bytes; at most {bounds.MOST_BYTES:,} are read"
            for index, (_, size, _) in enumerate(self.files)
            if size > bounds.MOST_BYTES
        }
        self._root = root.rstrip("/")

    def read(self, indices: Iterable[int]) -> Iterator[Encoded | str]:
        """The contents of files, or the reasons why they cannot be read."""
        chosen = list(indices)
        for first in range(0, len(chosen), AT_ONCE):
            paths = {index: f"{self._root}/{self.names[index]}" for index in chosen[first : first + AT_ONCE]}
            wanted = [path for index, path in paths.items() if index not in self.refused]
            plain = [path for path in wanted if not WILDCARD.search(path)]
            found = self.filesystem.cat(plain, on_error="return") if plain else {}
            for index, path in paths.items():
                if index in self.refused:
                    yield self.refused[index]
                    continue
                contents = found[path] if path in found else self._one(path)
                yield contents if isinstance(contents, bytes) else short(contents)

    def shown(self, name: str) -> str:
        """Its URL."""
        return f"{self.url}/{name}"

    def _one(self, path: str) -> bytes | Exception:
        try:
            return bytes(self.filesystem.cat_file(path))
        except Exception as error:  # as above
            return error


def open_url(url: str) -> tuple[IO[bytes], FileState]:
    """A file behind a URL, opened for reading, and its state.

    Raises:
        ValueError: where it cannot be opened.
    """
    try:
        filesystem, path = _opened(url)
        info = filesystem.info(path)
        return filesystem.open(path, "rb"), (url, int(info.get("size") or 0), int(_state(info), 16))
    except Exception as error:  # as above
        raise ValueError(f"data.path={url} could not be opened ({short(error)})") from error


def _opened(url: str) -> "tuple[AbstractFileSystem, str]":
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(url)
    return filesystem, path


def _state(info: Mapping[str, Any]) -> str:
    """What a store says about a file: its size, its time, a hash of its contents."""
    said = repr(sorted((str(key), str(value)) for key, value in info.items()))
    return hashlib.sha256(said.encode()).hexdigest()[:15]
