"""Figures and animations of runs as a page shows them: what training, `ddpm figure`, sample.py and
evaluate.py left.

What lies outside of a run's directory is not read.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from ddpm import bounded
from ddpm.data.skipped import printable
from ddpm.errors import UsageError
from ddpm.report import embedding
from ddpm.report.embedding import Embedded
from ddpm.report.texts import texts

FOLDERS = ("figures", "figures/drawn")
"""Of a run: whatever picture lies there is a figure of it."""

SHOWN, UNSHOWN = (".png", ".gif"), (".svg", ".pdf", ".mp4")
"""Endings of pictures that a page shows, and of those that it only names."""

BESIDE = (
    "quality", "search", "values", "compare", "grid", "progressive", "nll", "nearest", "shared",
    "interpolation", "variations",
)  # fmt: skip
"""Names of pictures that lie beside measurements, samples or a sweep's table."""

ORDER = (
    *BESIDE, "denoising", "denoising_film", "path", "neighbours", "loss", "loss_by_timestep",
    "val_loss_by_timestep", "images", "forward", "over_t", "schedule",
)  # fmt: skip
"""Names of figures, as they stand in a page; others follow."""

MOST_OF_A_RUN, MOST_OF_A_PAGE = 40, 300
"""Pictures."""

PART = 0.4
"""Of the bytes of a page's pictures that figures may take at most."""

AS_STILLS = 6
"""Pictures that take as much room as an animation."""


@dataclass(frozen=True)
class Picture:
    """A figure in a page.

    Attributes:
        file: its path within the run's directory.
        still: the figure, of an animation its last frame.
        film: the animation; None where it is none.
        runs: the runs that it is of, by their places; none for one of a whole sweep.
    """

    file: str
    still: Embedded
    film: Embedded | None = None
    runs: tuple[int, ...] = ()

    @property
    def caption_key(self) -> str | None:
        """The text that says what it shows; None for one that nothing is known of."""
        stem = Path(self.file).stem
        key = f"figure_{stem}"
        return key if stem in ORDER and key in texts() else None


@dataclass(frozen=True)
class Pictures:
    """The figures of a page.

    Attributes:
        shown: in the order of the page.
        unshown: files of kinds that a page does not show, by their runs' places.
        left_out: how many there are beyond what a page holds.
        lost: what could not be read, in words, by the place of its run; None for a sweep's own.
    """

    shown: tuple[Picture, ...] = ()
    unshown: tuple[tuple[int | None, str], ...] = ()
    left_out: int = 0
    lost: tuple[tuple[int | None, str], ...] = ()

    @property
    def by_file(self) -> dict[str, list[Picture]]:
        """Those of the same name, of all runs."""
        found: dict[str, list[Picture]] = {}
        for one in self.shown:
            found.setdefault(one.file, []).append(one)
        return found


@dataclass(frozen=True)
class _Found:
    file: str
    path: Path
    runs: tuple[int, ...]
    place: int | None


def files(directory: Path, beside: Sequence[Path] = ()) -> list[Path]:
    """The figures in the directory of a run, by their names' order; also those of kinds that are not shown.

    Args:
        directory: of a run, a sweep or an evaluation.
        beside: directories in it that hold samples or measurements.
    """
    root = directory.resolve()
    found: list[Path] = []
    for folder in dict.fromkeys([*(directory / name for name in FOLDERS), directory, *beside]):
        is_of_figures = folder in [directory / name for name in FOLDERS]
        try:
            inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
            inside = [path for path in inside if not path.is_symlink() and path.is_file()]
            if not folder.resolve().is_relative_to(root):
                continue
        except OSError:
            continue
        kinds = (*SHOWN, *UNSHOWN) if is_of_figures else SHOWN
        found += [
            path for path in inside if path.suffix.lower() in kinds and (is_of_figures or path.stem in BESIDE)
        ]
    return sorted(found, key=lambda path: (*_order(path), str(path.parent), path.name))


def _order(path: Path) -> tuple[int, str]:
    return (ORDER.index(path.stem), "") if path.stem in ORDER else (len(ORDER), path.stem)


def pictures(
    directories: Sequence[tuple[Path, Sequence[Path]]], whole: Path | None, most_bytes: int
) -> Pictures:
    """The figures of runs. One that several runs have alike, byte for byte, stands once.

    Args:
        directories: of each run, and those in it that hold samples or measurements.
        whole: the directory of the sweep that they are of; None for none.
        most_bytes: that all of them may take, as text.
    """
    found: list[_Found] = []
    unshown: list[tuple[int | None, str]] = []
    left_out = 0
    listed: list[tuple[int | None, Path, Sequence[Path]]] = [] if whole is None else [(None, whole, ())]
    listed += [(place, *own) for place, own in enumerate(directories)]
    for place, directory, beside in listed:
        there = files(directory, beside)
        names = {path: printable(path.relative_to(directory).as_posix()) for path in there}
        unshown += [(place, names[path]) for path in there if path.suffix.lower() in UNSHOWN]
        there = [path for path in there if path.suffix.lower() in SHOWN]
        left_out += max(0, len(there) - MOST_OF_A_RUN)
        own = () if place is None else (place,)
        found += [_Found(names[path], path, own, place) for path in there[:MOST_OF_A_RUN]]
    found = sorted(_together(found), key=lambda one: (*_order(one.path), one.file))  # as the page groups them
    left_out += max(0, len(found) - MOST_OF_A_PAGE)
    found = found[:MOST_OF_A_PAGE]
    weights = [AS_STILLS if one.path.suffix.lower() == ".gif" else 1 for one in found]
    share = most_bytes // max(1, sum(weights))
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda one: _made(one, share), found))
    shown = tuple(one for one in made if isinstance(one, Picture))
    lost = tuple((one.place, said) for one, said in zip(found, made, strict=True) if isinstance(said, str))
    return Pictures(shown, tuple(unshown), left_out, lost)


def _together(found: Sequence[_Found]) -> list[_Found]:
    """Files that are called alike and are alike, as one."""
    kept: dict[tuple[str, str], _Found] = {}
    for one in found:
        try:
            own = hashlib.sha256(bounded.contents(one.path, embedding.MOST_BYTES)).hexdigest()
        except UsageError:
            own = str(one.path)
        key = one.file, own
        kept[key] = replace(kept[key], runs=(*kept[key].runs, *one.runs)) if key in kept else one
    return list(kept.values())


def _made(one: _Found, share: int) -> Picture | str:
    """The picture, or why it cannot be shown."""
    smoothly = Image.Resampling.LANCZOS  # for letters
    try:
        if one.path.suffix.lower() != ".gif":
            with embedding.opened(one.path) as picture:
                return Picture(one.file, embedding.still(picture, share, smoothly), None, one.runs)
        frames, milliseconds = embedding.frames(one.path)
        still = embedding.still(frames[-1], share, smoothly)
        film = None
        if len(frames) > 1:
            film = embedding.moving(frames, milliseconds, AS_STILLS * share - len(still.webp))
        return Picture(one.file, still, film, one.runs)
    except UsageError as error:
        return f"{os.path.dirname(one.file)}/{error}".lstrip("/")
