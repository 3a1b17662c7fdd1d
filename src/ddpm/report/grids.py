"""Grids of samples as a page shows them: those that a run has drawn, from all over its training.

A grid that lies outside the run's directory is not read.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddpm.errors import UsageError
from ddpm.report import embedding
from ddpm.report.embedding import Embedded

FOLDER = "samples"
NAME = re.compile(r"step_([0-9]{1,18})\.png")

MOST_GRIDS = 100
"""Of a run; of more, some from all over the run, with the first and the last."""

BACKGROUND = 64
"""The grey between the images of a grid."""

LOWEST_ROW = 20
"""Pixels: a row of images is at least as high, and captions are lower."""

AT_ONCE = 256
"""Lines of a picture that are looked at together."""

LARGER = 3
"""A row of images is at least so many times as high as letters above it, where these are that high too."""


@dataclass(frozen=True)
class Grid(Embedded):
    """A grid of a run.

    Attributes:
        step: completed optimizer steps.
        row: height of its first row of images, in pixels of what is embedded.
    """

    step: int
    row: int


def files(directory: Path) -> list[tuple[int, Path]]:
    """The grids that a run has drawn, by step: at most `MOST_GRIDS`."""
    try:
        inside = (directory / FOLDER).resolve()
        if not inside.is_relative_to(directory.resolve()):
            return []
        found = {
            int(match[1]): path
            for path in inside.iterdir()
            if (match := NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink()
        }
    except OSError:
        return []
    ordered = sorted(found.items())
    if len(ordered) <= MOST_GRIDS:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (MOST_GRIDS - 1))] for i in range(MOST_GRIDS)]


def grids(directories: Sequence[Path], most_bytes: int) -> list[tuple[list[Grid], list[str]]]:
    """The grids of each run, and what could not be read, in words.

    Pictures are exact where there is room for it. Where there is not, each has as much as any other.

    Args:
        directories: of the runs.
        most_bytes: that all grids may take, as text.
    """
    listed = [files(directory) for directory in directories]
    number = sum(map(len, listed))
    if not number:
        return [([], []) for _ in directories]
    share = most_bytes // number
    tasks = [(step, path) for found in listed for step, path in found]
    with ThreadPoolExecutor() as pool:  # Pillow computes beside Python
        done = iter(list(pool.map(lambda task: _read(task[0], task[1], share), tasks)))
    result: list[tuple[list[Grid], list[str]]] = []
    for found in listed:
        read = [next(done) for _ in found]
        result.append(
            ([one for one in read if isinstance(one, Grid)], [one for one in read if isinstance(one, str)])
        )
    return result


def _read(step: int, path: Path, most_bytes: int) -> Grid | str:
    """A grid of at most so many bytes of text, or why it cannot be shown."""
    try:
        with embedding.opened(path) as opened:
            picture = opened.convert("RGB")
            made = embedding.still(picture, most_bytes)
            row = round(first_row(np.asarray(picture)) * made.height / picture.height)
    except UsageError as error:
        return str(error)
    return Grid(**vars(made), step=step, row=max(1, min(made.height, row)))


def first_row(pixels: np.ndarray) -> int:
    """How high the first row of images is, with its captions and its margins: where the first line of
    background below it ends. All of the picture where it shows no such line.

    Args:
        pixels: uint8 [height, width, 3].
    """
    parts = (pixels[y : y + AT_ONCE] == BACKGROUND for y in range(0, len(pixels), AT_ONCE))
    empty = np.concatenate([part.all(axis=(1, 2)) for part in parts])
    blocks: list[tuple[int, int]] = []  # where those begin and end that may be a row of images
    filled = 0
    for y, is_empty in enumerate([*empty, True]):
        if is_empty and filled >= LOWEST_ROW:
            blocks.append((y - filled, y))
        filled = 0 if is_empty else filled + 1
        if len(blocks) == 2:
            break
    if not blocks:
        return len(empty)
    heights = [end - begin for begin, end in blocks]
    _, end = blocks[1] if len(blocks) == 2 and LARGER * heights[0] <= heights[1] else blocks[0]
    return min(end + 2, len(empty))
