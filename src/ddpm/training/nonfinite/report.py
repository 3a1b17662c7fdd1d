"""The report of a step that is not finite: what a person needs to find out why, in the run directory."""

import csv
import json
import logging
import math
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm import __version__
from ddpm.sampling.figures import enlarged, grid, to_uint8

log = logging.getLogger(__name__)

REPORTS = 20
"""That a run writes at most."""

SHOWN = 64
"""Images of the batch in the picture, those with the largest losses."""

ROWS = 20
"""Of metrics.csv, the last."""

PACKAGES = ("torch", "lightning", "numpy")

MARK = (255, 0, 255)
"""The colour of pixels that are not finite."""


@dataclass(frozen=True)
class Report:
    """What is known of a step that is not finite.

    Attributes:
        step: its number, from 1.
        rank: whose part of the batch it is; None where there is one only.
        what: is not finite, and where.
        gradient_norm: of all ranks together, before clipping.
        learning_rate: of the step.
        images: for each its micro-batch, its index in the global batch, t and loss.
        x_0: the images [N, C, H, W], in the same order.
        norms: of each parameter, `weight` and `gradient`.
        layers: the largest absolute value of each layer's output as far as the forward pass was followed.
        config: of the run.
        device: that computed.
        rows: the metrics.csv that the last rows are taken from; it need not be there.
    """

    step: int
    rank: int | None
    what: str
    gradient_norm: float
    learning_rate: float
    images: list[dict[str, Any]]
    x_0: Tensor
    norms: dict[str, dict[str, float | None]]
    layers: dict[str, float]
    config: dict[str, Any] | None
    device: str
    rows: Path


def write(directory: Path, report: Report) -> None:
    """Write `report.json`, and `batch.png` with the images whose losses are largest; of several ranks
    `rank_N.json` and `rank_N.png`. A disk that refuses them is told of, no more.
    """
    names = ("report.json", "batch.png")
    if report.rank is not None:
        names = (f"rank_{report.rank}.json", f"rank_{report.rank}.png")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_in_words(_contents(report)), indent=1, ensure_ascii=False)
        (directory / names[0]).write_text(text + "\n", encoding="utf-8")
        Image.fromarray(picture(report)).save(directory / names[1])
    except OSError as error:
        log.warning("the report of step %d cannot be written: %s", report.step, error)


def picture(report: Report) -> np.ndarray:
    """The images, those that are not finite and those with the largest losses first, each under its index,
    t and loss. Pixels that are not finite are magenta.

    Returns:
        uint8 [height, width, 3].
    """
    finite = report.x_0.isfinite()
    bad = (~finite.flatten(1).all(1)).tolist()
    losses = [image["loss"] for image in report.images]
    order = sorted(
        range(len(losses)),
        key=lambda i: (not bad[i], math.isfinite(losses[i]), -losses[i] if math.isfinite(losses[i]) else 0),
    )[:SHOWN]
    channels = 3 if report.x_0.shape[1] == 3 else 1
    x_0, finite = report.x_0[order, :channels], finite[order]
    marked = (~finite.all(1)).cpu().numpy()
    cells = torch.from_numpy(enlarged(to_uint8(torch.nan_to_num(x_0)))).permute(0, 3, 1, 2).contiguous()
    factor = cells.shape[-1] // x_0.shape[-1]
    where = torch.from_numpy(marked.repeat(factor, axis=1).repeat(factor, axis=2))
    for channel, value in enumerate(MARK):
        cells[:, channel][where] = value
    captions = [
        f"{image['index']} t{image['t']} {image['loss']:.2g}" for image in (report.images[i] for i in order)
    ]
    return grid(cells, captions=captions)


def _contents(report: Report) -> dict[str, Any]:
    return {
        "step": report.step,
        "rank": report.rank,
        "what": report.what,
        "gradient_norm": report.gradient_norm,
        "learning_rate": report.learning_rate,
        "images": report.images,
        "norms": report.norms,
        "largest_outputs": report.layers,
        "last_rows": _last_rows(report.rows),
        "config": report.config,
        "device": report.device,
        "host": platform.node(),
        "process": os.getpid(),
        "versions": {
            "ddpm": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def _last_rows(path: Path) -> list[dict[str, str]]:
    """Without the columns that are empty."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))[-ROWS:]
    return [{str(name): value for name, value in row.items() if value} for row in rows]


def _in_words(value: Any) -> Any:
    """JSON has no NaN and no infinity; here it matters which of them a number is."""
    if isinstance(value, dict):
        return {str(key): _in_words(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_in_words(child) for child in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
