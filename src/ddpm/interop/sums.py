"""The checksums of the files of an exported directory, in a file that `sha256sum -c` reads."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ddpm import bounded

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write(directory: Path) -> None:
    """List every file of a directory."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{_sum(path)}  {path.relative_to(directory).as_posix()}\n" for path in files]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")


def check(directory: Path, files: Sequence[Path]) -> None:
    """Refuse a directory whose files are not those that it lists; one that lists none is another program's.

    Args:
        directory: that was exported.
        files: of it, which will be read.

    Raises:
        ValueError: naming the file.
    """
    listed = directory / SUMS
    if not os.path.lexists(listed):
        return
    sums = {}
    for line in bounded.text(listed).splitlines():
        match = LINE.fullmatch(line)
        if match is None or PurePosixPath(match[2]).is_absolute() or ".." in PurePosixPath(match[2]).parts:
            raise ValueError(f"{listed}: is damaged; export the run anew, or remove the file to do without")
        sums[directory / match[2]] = match[1]
    for file in files:
        if file not in sums:
            raise ValueError(f"{file}: is not listed in {SUMS}; remove that file to do without it")
        if _sum(file) != sums[file]:
            raise ValueError(
                f"{file}: is damaged, or was changed after it was exported: its checksum is another than in "
                f"{SUMS}; export the run anew, or remove that file to take what is there"
            )


def _sum(file: Path) -> str:
    bounded.beginning(file, 0)
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
