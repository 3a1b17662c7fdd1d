"""The rows of images that a command of sample.py draws, and the picture that shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.app.pictures_given import Given
from ddpm.diffusion.samplers import evenly_spread, random_steps
from ddpm.diffusion.start import Between, FromImage, FromNoise, Start
from ddpm.errors import UsageError
from ddpm.sampling.captions import legible
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import grid, sheet, to_uint8
from ddpm.sampling.model import Model
from ddpm.sampling.rows import Row
from ddpm.sampling.way_figures import Arrays, from_pictures, progressive, shared

MOST_IN_A_PICTURE = 100
"""Images that a row of a picture holds, or that it has rows of."""


@dataclass(frozen=True)
class Asked:
    """What is drawn.

    Attributes:
        rows: one after the other, of n images each.
        picture: the name of the picture that shows them beside the grid; None for none.
    """

    rows: Sequence[Row]
    picture: str | None = None

    def drawn(self, rows: Sequence[Arrays], given: Given, labels: Sequence[int] | None) -> np.ndarray:
        """The picture: uint8 [height, width, 3].

        Args:
            rows: what was drawn of each.
            given: pictures that they started from.
            labels: the class of each image of a row.
        """
        steps = [row.t for row in self.rows if row.t is not None]
        if self.picture == "shared.png":
            return shared(rows, steps)
        if self.picture == "progressive.png":
            captions = _captions(self.rows[0].drawing.model, labels, len(rows[0]["images"]))
            return progressive(rows[0], self.rows[0].steps, captions)
        ends = {name: to_uint8(picture) for name, picture in given.sources.items()}
        return from_pictures(rows, steps, ends["start"], ends.get("end"))


def asked_rows(config: Mapping[str, Any], model: Model, given: Given, **settings: Any) -> Asked:
    """The rows of a command.

    Args:
        config: of the command, with `n`, `start_t`, `progressive`, `shared_t` and `same_noise`.
        model: that draws.
        given: the pictures of the command.
        settings: of every drawing: seed, sampler, weights, labels, guidance.

    Raises:
        UsageError: where the keys make no sense together.
        ValueError: where what is asked for makes no sense for the model.
    """
    _check(config)
    n, ts = config["n"], config["start_t"]
    drawing = partial(Drawing, model, known=given.known, same_noise=config["same_noise"], **settings)
    if isinstance(ts, list):
        rows = [Row(drawing(start=_start(given, model, t, n)), t) for t in ts]
        _refuse_twice("start_t", rows)
        return Asked(rows, "interpolation.png" if "end" in given.sources else "variations.png")
    start = _start(given, model, ts, n)
    if config["progressive"] is not None:
        plain = drawing(start=start)
        steps = evenly_spread(plain.timesteps, config["progressive"])
        # the image stands for the last of them
        return Asked([Row(plain, steps=tuple(steps[:-1] or steps))], "progressive.png")
    if config["shared_t"] is None:
        return Asked([Row(drawing(start=start))])
    rows = []
    for t in _listed(config["shared_t"]):
        asked = drawing(start=start, shared_t=t)  # which is checked as it was typed
        # where noise is drawn, and the ways part
        nearest = _nearest(t, random_steps(asked.sampler, model.schedule, start.t))
        rows.append(Row(drawing(start=start, shared_t=nearest), nearest, (nearest,), "x_t"))
    _refuse_twice("shared_t", rows)
    return Asked(rows, "shared.png")


def grid_of(
    model: Model, drawn: Tensor, given: Given, classes: Sequence[int] | None, labels: Sequence[int] | None
) -> np.ndarray:
    """The grid of one row's images, with the pictures that they are from: between two pictures in one line
    from end to end; around what a mask keeps, that picture and the mask before them.

    Args:
        model: that drew them.
        drawn: the first of them, [N, C, H, W] in [-1, 1], or bytes as they are seen.
        given: the pictures of the command.
        classes: of the images, as far as there are classes.
        labels: the classes that they took in turn, as they were asked for.

    Returns:
        uint8 [height, width, 3].
    """
    if given.known is None and "end" not in given.sources:
        return sheet(model, drawn, labels)
    cells, captions = [to_uint8(drawn)], _captions(model, classes, len(drawn))
    before = {"start": given.sources["start"]}
    if given.known is not None:
        mask = given.known.mask.float() * 2 - 1
        before["mask"] = mask.expand_as(before["start"])
    cells.insert(0, to_uint8(torch.stack(list(before.values()))))
    captions = [*before, *captions]
    if "end" in given.sources:
        cells.append(to_uint8(given.sources["end"][None]))
        captions.append("end")
    columns = len(captions) if "end" in given.sources and len(drawn) <= MOST_IN_A_PICTURE else None
    return grid(torch.cat(cells), captions=captions, columns=columns)


def _check(config: Mapping[str, Any]) -> None:
    """Refuse keys that make no sense together."""
    progressive, shared_t = (config[key] is not None for key in ("progressive", "shared_t"))
    several = isinstance(config["start_t"], list)
    if progressive and shared_t:
        raise UsageError("progressive and shared_t: each makes a picture of its own; give one")
    if several and (progressive or shared_t):
        name = "progressive" if progressive else "shared_t"
        raise UsageError(
            f"start_t={config['start_t']} and {name}: each makes a picture of its own; give start_t as one "
            f"number, or leave {name} out"
        )
    if shared_t and config["end"] is not None:
        raise UsageError(
            "shared_t and end: images that lead from one picture to the other share no x_t; give one"
        )
    if config["same_noise"] and config["end"] is None:
        raise UsageError(
            "same_noise: is of images that lead from one picture to another; give start=PICTURE and "
            "end=PICTURE, or leave it out"
        )
    if shared_t and config["n"] < 2:
        raise UsageError(f"n={config['n']}: to share x_t takes at least 2 images")
    if (progressive or shared_t or several) and config["n"] > MOST_IN_A_PICTURE:
        raise UsageError(
            f"n={config['n']}: a picture shows at most {MOST_IN_A_PICTURE}; with progressive, shared_t or "
            f"several start_t give n={MOST_IN_A_PICTURE} or less"
        )


def _start(given: Given, model: Model, t: int | None, n: int) -> Start:
    if "start" not in given.sources:
        return FromNoise()
    t = model.schedule.num_timesteps - 1 if t is None else t
    if "end" in given.sources:
        return Between(given.sources["start"], given.sources["end"], t, n)
    return FromImage(given.sources["start"], t)


def _listed(ts: int | list[int]) -> list[int]:
    return ts if isinstance(ts, list) else [ts]


def _nearest(t: int, timesteps: Sequence[int]) -> int:
    return min(timesteps, key=lambda step: abs(step - t))


def _refuse_twice(key: str, rows: Sequence[Row]) -> None:
    ts = [row.t for row in rows]
    if twice := [t for t in ts if ts.count(t) > 1]:
        visited = len(rows[0].drawing.timesteps)
        nearest = f", of the {visited} steps that the sampler visits" if key == "shared_t" else ""
        raise UsageError(f"{key}: two rows would be of t = {twice[0]}{nearest}; leave one out")


def _captions(model: Model, labels: Sequence[int] | None, n: int) -> list[str]:
    if labels is None or model.classes is None or max(labels) < 0:
        return [""] * n
    names = legible(model.classes)
    return ["" if label < 0 else names[label] for label in labels[:n]]
