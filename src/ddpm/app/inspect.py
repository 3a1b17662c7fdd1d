"""What `ddpm inspect data=...` does: says what a data set is, and shows some of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddpm.app.build import build_data
from ddpm.app.command_line import Job
from ddpm.app.run_directory import Place
from ddpm.data.images import ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.sampling.contact_sheet import contact_sheet

NAMED = 20
"""Classes, sizes and modes that are named; the others are counted."""


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
        directory: where the contact sheet goes, and `skipped.txt` if something could not be read; made if it
            is not there.

    Returns:
        the exit code.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data.write_skipped(directory)
    rows = described(data)
    if data.skipped:
        rows["left out"] = f"{len(data.skipped):,} that cannot be read: {directory / 'skipped.txt'}"
    sheet = contact_sheet(data.data_set)
    if sheet is not None:
        Image.fromarray(sheet).save(directory / "contact_sheet.png")
    rows["contact sheet"] = (
        "no images are held out" if sheet is None else str(directory / "contact_sheet.png")
    )
    for title, text in rows.items():
        print(f"{title:<15}{text}")
    return 0


def described(data: ImageDataModule) -> dict[str, str]:
    """A title and a line for each thing that is known about a data set."""
    data_set, facts = data.data_set, data.facts
    channels, height, width = data.image_shape
    rows = {
        "images": f"{len(data_set.train):,} to train on, {len(data_set.validation):,} held out",
        "size": f"{height}x{width}, {'grey' if channels == 1 else 'colour'}",
    }
    if "sizes" in facts:
        rows["size before"] = _counts(facts["sizes"], facts["other_sizes"])
        rows["mode before"] = _counts(facts["modes"])
    if "mean" in facts:
        rows["mean"] = " ".join(f"{value:.4f}" for value in facts["mean"])
        rows["deviation"] = " ".join(f"{value:.4f}" for value in facts["std"])
        rows["duplicates"] = f"{facts['duplicates']:,}"
    if "shards" in facts:
        of = f"; the figures above are those of {facts['of']}" if "mean" in facts else ""
        rows["shards"] = f"{facts['shards']:,}{of}"
    if data_set.classes is None:
        rows["classes"] = "none"
    else:
        parts = [data_set.train, data_set.validation]
        labels = [part.labels for part in parts if isinstance(part, ImageSet) and part.labels is not None]
        counts = np.bincount(np.concatenate(labels), minlength=len(data_set.classes))
        named = dict(zip(data_set.classes, counts.tolist(), strict=True))
        rows["classes"] = f"{len(named)}: {_counts(named)}"
    rows["identity"] = data.fingerprint
    return rows


def _counts(counts: Mapping[str, int], others: int = 0) -> str:
    named = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:NAMED])
    others += max(0, len(counts) - NAMED)
    return f"{named} and {others:,} others" if others else named
