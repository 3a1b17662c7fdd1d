"""What `ddpm inspect data=...` does: says what a data set is, and shows some of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.app.build import build_data
from ddpm.app.command_line import Job
from ddpm.app.run_directory import Place
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.data.prepared.quantiles import MEDIAN
from ddpm.data.skipped import printable
from ddpm.runtime.writing import write_again, write_whole
from ddpm.sampling.contact_sheet import contact_sheet
from ddpm.sampling.figures import png

NAMED = 20
"""Classes and modes that are named; the others are counted."""


COLOURS = {1: "grey", 3: "colour"}

NUMBERS = ("names", "low", "high", "mean", "std")

UNDERSTOOD = ("images", "classes", "condition", "captions")
"""What sentences of `DataSet.understood` are about that are rows of their own."""


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Read the data set of a configuration.

    Raises:
        UsageError: where there are no images.
    """
    data = build_data(config)
    return lambda: report(data, place.directory)


def report(data: ImageDataModule, directory: Path) -> int:
    """Print what is known about a data set, and write `contact_sheet.png`.

    Args:
        data: its images read.
        directory: where the contact sheet goes, and `skipped.txt` if something was left out; made if it is
            not there.

    Returns:
        the exit code: 1 where not all could be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data.write_skipped(directory)
    rows = described(data)
    if data.skipped:
        rows["left out"] = f"{len(data.skipped):,}, listed in {directory / 'skipped.txt'}"
    sheet = contact_sheet(data.data_set)
    if sheet is not None:
        write_whole(directory / "contact_sheet.png", png(sheet))
    rows["contact sheet"] = (
        "no images are held out" if sheet is None else str(directory / "contact_sheet.png")
    )
    for title, text in rows.items():
        print(f"{title:<15}{text}")
    return 1 if write_again() else 0


def understood(data: ImageDataModule) -> dict[str, str]:
    """What was made of how the images lie there: how many are for what, and which classes there are; a title
    and a line each.
    """
    data_set = data.data_set
    rows: dict[str, str] = {}
    for sentence in data_set.understood:
        title, _, text = sentence.partition(": ")
        if title in UNDERSTOOD:
            rows[title] = text
        else:
            rows["note"] = f"{rows['note']}; {sentence}" if "note" in rows else sentence
    if "images" not in rows:  # a source of one's own need not say it
        rows["images"] = f"{len(data_set.train):,} to train on, {len(data_set.validation):,} held out"
    if "classes" not in rows:
        named = None if data_set.classes is None else ", ".join(map(printable, data_set.classes[:NAMED]))
        rows["classes"] = "none" if named is None else f"{len(data_set.classes or ()):,}: {named}"
    if data_set.captions is not None:
        given = sum(caption is not None for caption in data_set.captions)
        rows["captions"] = f"{given:,}, {rows.get('captions', 'which nothing uses yet')}"
    channels, height, width = data.image_shape
    rows["size"] = f"{height}x{width}, {COLOURS.get(channels, f'{channels} channels')}"
    if (
        "height" in data.facts
        and data.facts["height"][MEDIAN] < height
        and data.facts["width"][MEDIAN] < width
    ):
        rows["size"] += "; most were smaller and are enlarged, as data.image_size says"
    if data_set.window is not None:
        rows["size"] += ", in training another part of each image every time"
    return rows


def described(data: ImageDataModule) -> dict[str, str]:
    """A title and a line for each thing that is known about a data set."""
    rows, facts = understood(data), data.facts
    if counts := _by_class(data.data_set):
        rows["by class"] = counts
    for key in ("height", "width", "aspect"):
        if key in facts:
            rows[f"{key} before"] = _quantiles(facts[key])
    if "modes" in facts:
        rows["mode before"] = _counts({name: f"{count:,}" for name, count in facts["modes"].items()})
    if "values" in facts and "limits" in facts:
        (low, high), (lowest, highest) = facts["values"], facts["limits"]
        rows["values before"] = f"{low:g} to {high:g}, in a range from {lowest:g} to {highest:g}"
    if "mean" in facts:
        rows["mean"] = " ".join(f"{value:.4f}" for value in facts["mean"])
        rows["deviation"] = " ".join(f"{value:.4f}" for value in facts["std"])
        rows["duplicates"] = f"{facts['duplicates']:,}"
    if "vector" in facts:
        rows["numbers"] = _numbers(facts["vector"])
    if "shards" in facts:
        of = f"; the figures above are those of {facts['of']}" if "mean" in facts else ""
        rows["shards"] = f"{facts['shards']:,}{of}"
    rows["identity"] = data.fingerprint
    return rows


def _by_class(data_set: DataSet) -> str:
    """How many images of each class are to train on and held out; of a stream only the latter are known."""
    classes = data_set.classes or ()
    parts = {"to train on": data_set.train, "held out": data_set.validation}
    counts = {
        title: np.bincount(part.labels, minlength=len(classes)).tolist()
        for title, part in parts.items()
        if isinstance(part, ImageSet) and part.labels is not None and len(part)
    }
    if not classes or not counts:
        return ""
    each = (" + ".join(f"{number:,}" for number in numbers) for numbers in zip(*counts.values(), strict=True))
    return f"{_counts(dict(zip(classes, each, strict=True)))} ({' + '.join(counts)})"


def _counts(counts: Mapping[str, str]) -> str:
    named = ", ".join(f"{printable(name)}: {count}" for name, count in list(counts.items())[:NAMED])
    others = len(counts) - NAMED
    return f"{named} and {others:,} other{'s' if others > 1 else ''}" if others > 0 else named


def _numbers(known: Mapping[str, Any]) -> str:
    """The range of each number that images are conditioned on, and how it is spread in training."""
    each = [
        f"{printable(name)}: {low:g} to {high:g}, mean {mean:g}, deviation {std:g}"
        for name, low, high, mean, std in zip(*(known[key] for key in NUMBERS), strict=True)
    ]
    others = len(each) - NAMED
    return "; ".join([*each[:NAMED], *([f"and {others:,} others"] if others > 0 else [])])


def _quantiles(numbers: Sequence[float]) -> str:
    """Numbers as `ddpm.data.prepared.quantiles` gives them."""
    if numbers[0] == numbers[-1]:
        return f"{numbers[0]:g}, of all images"
    titles = ("least", "5 %", "median", "95 %", "most")
    return ", ".join(f"{title} {number:g}" for title, number in zip(titles, numbers, strict=True))
