"""What `python -m ddpm inspect data=...` does: says what a data set is, and shows some of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddpm.app.build import build_data
from ddpm.data.module import ImageDataModule
from ddpm.training.grids import grid

SHOWN = 64
"""Pictures of the contact sheet."""

NAMED = 20
"""Classes, sizes and modes that are named; the others are counted."""


def inspect(config: Mapping[str, Any], directory: Path) -> int:
    """Print what is known about the data set of a configuration, and write `contact_sheet.png`.

    Args:
        config: checked; of it, `data` and `seed` are used.
        directory: where the contact sheet goes, and `skipped.txt` if something could not be read; made if it
            is not there.

    Returns:
        the exit code.

    Raises:
        UsageError: where there are no pictures.
    """
    data = build_data(config)
    directory.mkdir(parents=True, exist_ok=True)
    data.write_skipped(directory)
    sheet = directory / "contact_sheet.png"
    Image.fromarray(contact_sheet(data)).save(sheet)
    rows = described(data)
    if data.skipped:
        rows["left out"] = f"{len(data.skipped):,} that cannot be read: {directory / 'skipped.txt'}"
    rows["contact sheet"] = str(sheet)
    for title, text in rows.items():
        print(f"{title:<15}{text}")
    return 0


def described(data: ImageDataModule) -> dict[str, str]:
    """A title and a line for each thing that is known about a data set."""
    data_set, facts = data.data_set, data.facts
    channels, height, width = data.image_shape
    rows = {
        "pictures": f"{len(data_set.train):,} to train on, {len(data_set.validation):,} held out",
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
        rows["shards"] = f"{facts['shards']:,}; the figures above are those of {facts['of']}"
    if data_set.classes is None:
        rows["classes"] = "none"
    else:
        parts = (part.labels for part in (data_set.train, data_set.validation) if hasattr(part, "labels"))
        counts = np.bincount(np.concatenate(list(parts)), minlength=len(data_set.classes))
        named = dict(zip(data_set.classes, counts.tolist(), strict=True))
        rows["classes"] = f"{len(named)}: {_counts(named)}"
    rows["identity"] = data.fingerprint
    return rows


def contact_sheet(data: ImageDataModule, n: int = SHOWN) -> np.ndarray:
    """Some pictures, those of a class side by side: uint8 [height, width, 3]."""
    train, validation = data.data_set.train, data.data_set.validation
    pictures = (train if hasattr(train, "images") else validation).subset(slice(0, n))
    order = (
        np.arange(len(pictures)) if pictures.labels is None else np.argsort(pictures.labels, kind="stable")
    )
    return grid(torch.from_numpy(np.array(pictures.images[order])))


def _counts(counts: Mapping[str, int], others: int = 0) -> str:
    named = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:NAMED])
    others += max(0, len(counts) - NAMED)
    return f"{named} and {others:,} others" if others else named
