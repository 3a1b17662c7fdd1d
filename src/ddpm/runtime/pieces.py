"""Results for many indices, kept in pieces as they come: what was computed once is not computed again."""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from ddpm.runtime.writing import whole

NAME = re.compile(r"(\d+)-(\d+)\.npz")
"""Of a piece: its first index, and the one behind its last."""

UNFINISHED = re.compile(r"\.\d+-\d+\.part\.npz")
"""What a killed process leaves of one."""

Like = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Of each array of a piece, the shape of what an index has, and the type."""

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

    def drop_damaged(self, like: Like | None = None) -> list[str]:
        """Remove pieces that cannot be read or are not as they should be, and what an earlier start left
        half-written.

        Args:
            like: how they should be; where it is not known, all as the first of them.

        Returns:
            The names of the pieces.
        """
        damaged = []
        for path in sorted(self._files()):
            if UNFINISHED.fullmatch(path.name):
                path.unlink()
            if not (match := NAME.fullmatch(path.name)):
                continue
            found = _described(path, int(match[2]) - int(match[1]))
            like = like or found
            if found is None or found != like or int(match[2]) > self.n:
                path.unlink()
                damaged.append(path.name)
        return damaged

    def remove(self) -> None:
        """Delete the pieces, and their folder where nothing else is in it."""
        for path in self._files():
            if NAME.fullmatch(path.name) or UNFINISHED.fullmatch(path.name):
                path.unlink()
        with suppress(OSError):
            self.directory.rmdir()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of all indices in order, a piece at a time."""
        at = 0
        for piece in self.kept():
            if piece.stop <= at:  # of an earlier start with pieces of another size
                continue
            with np.load(self.directory / f"{piece.start:08d}-{piece.stop:08d}.npz") as arrays:
                yield {name: arrays[name][at - piece.start if at > piece.start else 0 :] for name in arrays}
            at = piece.stop

    def at(self, indices: range) -> dict[str, np.ndarray]:
        """The arrays of some indices, neighbours in order, which are all there."""
        parts = []
        at = indices.start
        for piece in self.kept():
            if piece.start <= at < piece.stop and at < indices.stop:
                stop = min(piece.stop, indices.stop)
                with np.load(self.directory / f"{piece.start:08d}-{piece.stop:08d}.npz") as arrays:
                    parts.append(
                        {name: arrays[name][at - piece.start : stop - piece.start] for name in arrays}
                    )
                at = stop
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

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


def _described(path: Path, count: int) -> dict[str, tuple[tuple[int, ...], np.dtype]] | None:
    """The arrays of a piece, as `Like` has them; None where it cannot be read, a checksum is wrong, or an
    array has another number of rows than the name says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        with np.load(path) as arrays:
            found = {name: (arrays[name].shape, arrays[name].dtype) for name in arrays}
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile):
        return None
    if not found or any(shape[:1] != (count,) for shape, _ in found.values()):
        return None
    return {name: (shape[1:], dtype) for name, (shape, dtype) in found.items()}
