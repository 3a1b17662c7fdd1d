"""Results for many indices, kept in pieces as they come: what was computed once is not computed again."""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ddpm.runtime.writing import whole

NAME = re.compile(r"(\d+)-(\d+)\.npz")
"""Of a piece: its first index, and the one behind its last."""

Parts = tuple[tuple[int, ...], np.dtype, Iterable[np.ndarray]]
"""An array that need not be there as a whole: its shape, its type, and parts along its first axis."""


class Pieces:
    """Arrays for indices 0 ... n-1, in files of some indices each.

    A file is whole or not there, and holds arrays whose first axis counts its indices. Several processes may
    write at once, each its own pieces.

    Args:
        directory: of the files; made with the first.
        n: how many indices there are.
    """

    def __init__(self, directory: Path, n: int):
        self.directory = directory
        self.n = n

    def keep(self, indices: range, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the results for some indices.

        Raises:
            ddpm.runtime.writing.WriteError: where the disk refuses them.
        """
        with whole(self.directory / f"{indices.start:08d}-{indices.stop:08d}.npz") as temporary:
            write_npz(
                temporary, {name: (array.shape, array.dtype, [array]) for name, array in arrays.items()}
            )

    def kept(self) -> list[range]:
        """The indices of every piece that is there, in order."""
        found = (NAME.fullmatch(path.name) for path in self._files())
        return sorted((range(int(m[1]), int(m[2])) for m in found if m), key=lambda piece: piece.start)

    def missing(self, size: int) -> list[range]:
        """The pieces of at most `size` indices that are not there; they begin at multiples of it where no
        piece of another size is.
        """
        have = np.zeros(self.n + 1, dtype=bool)
        have[self.n] = True
        for piece in self.kept():
            have[piece.start : piece.stop] = True
        found = []
        for first in range(0, self.n, size):
            at = first
            while at < min(first + size, self.n):
                if have[at]:
                    at += 1
                    continue
                stop = min(at + int(np.argmax(have[at:])), first + size)
                found.append(range(at, stop))
                at = stop
        return found

    def drop_damaged(self) -> list[str]:
        """Remove files that cannot be read, and what an earlier start left half-written; their names."""
        damaged = []
        for path in self._files():
            if not (match := NAME.fullmatch(path.name)):
                if path.name.startswith("."):
                    path.unlink()
                continue
            if not _is_whole(path, int(match[2]) - int(match[1])):
                path.unlink()
                damaged.append(path.name)
        return damaged

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of all indices in order, a piece at a time."""
        at = 0
        for piece in self.kept():
            if piece.stop <= at:  # of an earlier start with pieces of another size
                continue
            with np.load(self.directory / f"{piece.start:08d}-{piece.stop:08d}.npz") as arrays:
                yield {name: arrays[name][at - piece.start if at > piece.start else 0 :] for name in arrays}
            at = piece.stop

    def together(self) -> dict[str, np.ndarray]:
        """The arrays of all indices, whole."""
        parts = list(self)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _files(self) -> list[Path]:
        return (
            [path for path in self.directory.iterdir() if path.is_file()] if self.directory.is_dir() else []
        )


def write_npz(path: Path, arrays: Mapping[str, Parts]) -> None:
    """Write what `np.savez` would, without holding it: each array's shape, type, and parts in order."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, (shape, dtype, parts) in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": shape,
                }
                np.lib.format.write_array_header_1_0(file, header)
                for part in parts:
                    file.write(np.ascontiguousarray(part, dtype).tobytes())


def _is_whole(path: Path, count: int) -> bool:
    """Whether a piece can be read, its checksums are right, and its arrays have as many rows as it says."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
        with np.load(path) as arrays:
            return bool(arrays.files) and all(len(arrays[name]) == count for name in arrays)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError):
        return False
