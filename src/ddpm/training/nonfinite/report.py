"""The report of a step that is not finite: what a person needs to find out why, in the run directory."""

import csv
import json
import math
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm import __version__
from ddpm.runtime import writing
from ddpm.sampling.figures import grid, png, to_uint8

REPORTS = 20
"""That a run writes at most."""

SHOWN = 64
"""Images of the batch in the picture, those with the largest losses."""

ROWS = 20
"""Of metrics.csv, the last."""

PACKAGES = ("torch", "lightning", "numpy")

CELL = 96
"""Pixels that a smaller image is enlarged to, so that its index, t and loss fit above it."""

MARK = torch.tensor([255, 0, 255], dtype=torch.uint8).view(3, 1, 1)
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
    `rank_N.json` and `rank_N.png`. A disk that refuses them is told of.
    """
    names = ("report.json", "batch.png")
    if report.rank is not None:
        names = (f"rank_{report.rank}.json", f"rank_{report.rank}.png")
    writing.write(directory / names[0], _text(_contents(report)))
    writing.write(directory / names[1], png(picture(report)))


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
    images = to_uint8(torch.nan_to_num(x_0)).cpu()
    images = torch.where(finite.all(1, keepdim=True).cpu(), images, MARK)
    factor = max(1, CELL // max(images.shape[-2:]))
    cells = images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
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


def _text(contents: dict[str, Any]) -> str:
    """As JSON, an image, a parameter or a row a line."""
    lines = []
    for key, value in _in_words(contents).items():
        if isinstance(value, dict):
            entries = [f"{json.dumps(name)}: {_line(child)}" for name, child in value.items()]
            text = "{" + ",".join(f"\n  {entry}" for entry in entries) + "\n }"
        elif isinstance(value, list):
            text = "[" + ",".join(f"\n  {_line(child)}" for child in value) + "\n ]"
        else:
            text = _line(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _in_words(value: Any) -> Any:
    """JSON has no NaN and no infinity; here it matters which of them a number is."""
    if isinstance(value, dict):
        return {str(key): _in_words(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_in_words(child) for child in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
