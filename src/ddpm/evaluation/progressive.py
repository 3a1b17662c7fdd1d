"""How good the predicted x_0 is on the way from noise to a sample (Ho et al. 2020, figures 6 and 10)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.data.module import ImageDataModule
from ddpm.data.prepared.cache import Cache
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.measures.moments import MOST_FEATURES, gaussian
from ddpm.evaluation.quality.drawn import classes_of, sampler_of
from ddpm.evaluation.quality.features import features_of, seconds_an_image, together
from ddpm.evaluation.quality.material import in_thousands
from ddpm.evaluation.quality.reference import images_of, missing, of_data
from ddpm.runtime.pieces import Pieces
from ddpm.runtime.sharing import Sharing, size_of_a_piece
from ddpm.runtime.writing import whole
from ddpm.sampling.batches import seconds_to_draw
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import grid, to_uint8
from ddpm.training.module import DDPM

WORK = "progressive"
"""The name of its work, for the ranks that share it; with `_N` that of the features of point N."""

SHOWN = 6
"""Samples in the picture, a row each."""


class Progressive:
    """The Frechet distance of the x_0 that is predicted at points of the reverse process, to the images that
    were trained on, and how far it is from the sample in the end. By the run's own sampler.

    Args:
        extractor: of the features.
        n: samples.
        points: of the reverse process, evenly spaced over its steps.

    Raises:
        ValueError: where a setting is below 2.
    """

    def __init__(self, extractor: Extractor, n: int = 500, points: int = 10):
        for name, value in (("n", n), ("points", points)):
            if value < 2:
                raise ValueError(f"metrics.progressive.{name}={value} must be at least 2")
        self.extractor = extractor
        self.n = n
        self.points = points

    def check(self, module: DDPM, data: ImageDataModule) -> None:
        images = images_of(data.data_set.pictures, "train")
        if len(images) < 2:
            raise ValueError("metrics.progressive: 1 training image has no covariance; use more")
        self.extractor.prepare(data.data_set.pictures, module.device)
        if self.extractor.num_features > MOST_FEATURES:
            raise ValueError(
                f"metrics.progressive.extractor: images have {self.extractor.num_features:,} features, and a "
                f"covariance is computed of at most {MOST_FEATURES:,}; choose another extractor"
            )

    def __call__(
        self,
        module: DDPM,
        data: ImageDataModule,
        *,
        seed: int,
        batch_size: int,
        directory: Path,
        sharing: Sharing,
    ) -> dict[str, Any]:
        drawing = Drawing(module, seed=seed)
        asked = classes_of(module, data.data_set.pictures, self.n)
        steps = drawing.timesteps
        chosen = self._chosen(drawing)
        shown = [steps[i] for i in chosen]

        def compute(indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
            seen: dict[int, Tensor] = {}

            def look(t: int, x_t: Tensor, x_0: Tensor) -> None:
                if t in shown:
                    seen[t] = to_uint8(x_0)
                on_step()

            labels = None if asked is None else torch.from_numpy(asked[indices.start : indices.stop])
            drawn = drawing(indices, labels=labels, on_step=look)
            parts = [*(seen[t] for t in shown), to_uint8(drawn)]
            return {"images": torch.stack(parts, 1).cpu().numpy()}

        like = {"images": ((len(shown) + 1, *module.image_shape), np.dtype(np.uint8))}
        pieces = sharing.through(
            WORK, self.n, batch_size, compute, title="sampling", steps=drawing.steps, like=like
        )
        reference = of_data(data.data_set.pictures, "train", self.extractor, sharing, Cache())
        distances = []
        for point in range(len(shown) + 1):
            found = features_of(
                self.extractor,
                self.n,
                partial(_at, pieces, point),
                sharing,
                _of_point(point),
                f"{self.extractor.name}: point {point + 1} of {len(shown) + 1}",
            )
            if sharing.is_leader:
                moments = gaussian(together(found, self.extractor.num_features))
                distances.append(reference.to_moments(moments))
                sharing.progressed(False)
        if not sharing.is_leader:
            return {}
        errors = _rmse(pieces)
        named = "fid" if self.extractor.name == "inception" else f"fd_{self.extractor.name}"
        name = f"{named}{in_thousands(self.n)}_train_{sampler_of(drawing)}"
        draw(_first(pieces), shown, chosen.tolist(), distances, errors, name, directory / "progressive.png")
        return {
            name: distances[-1],
            "t": shown,
            "steps_before": chosen.tolist(),
            "distances": distances,
            "rmse_to_sample": errors,
            "of": {**self.extractor.about(), "reference": reference.about, "seed": seed, "nfe": drawing.nfe},
        }

    def seconds(self, module: DDPM, data: ImageDataModule, *, batch_size: int, sharing: Sharing) -> float:
        """How long its devices will take for samples and features that no earlier start has kept.

        Args:
            module: that draws.
            data: whose training images are compared with.
            batch_size: samples at once.
            sharing: of the work, which has not begun.
        """
        drawing = Drawing(module)
        seconds = 0.0
        if left := sharing.missing(WORK, self.n):
            size = size_of_a_piece(self.n, batch_size, sharing.world_size)
            seconds += seconds_to_draw(drawing, range(left), size)
        points = range(len(self._chosen(drawing)) + 1)
        images = sum(sharing.missing(_of_point(point), self.n) for point in points)
        images += missing(data.data_set.pictures, "train", self.extractor, sharing, Cache())
        if images:
            seconds += images * seconds_an_image(self.extractor, module.image_shape)
        return seconds / sharing.world_size

    def _chosen(self, drawing: Drawing) -> np.ndarray:
        """Which steps of the reverse process are looked at, ascending int64 [points]."""
        steps = len(drawing.timesteps)
        return np.unique(np.linspace(0, steps - 1, min(self.points, steps)).round().astype(np.int64))


def _of_point(point: int) -> str:
    return f"{WORK}_{point}"


def _at(pieces: Pieces, point: int, indices: range) -> np.ndarray:
    return pieces.at(indices)["images"][:, point]


def _rmse(pieces: Pieces) -> list[float]:
    """Of each point, the error of the predicted x_0 against the sample, on [0, 255]."""
    total, count = np.zeros(0), 0
    for part in pieces:
        images = part["images"].astype(np.float64)
        squares = np.square(images - images[:, -1:]).mean((2, 3, 4)).sum(0)
        total, count = squares if not count else total + squares, count + len(images)
    return [float(value) for value in np.sqrt(total / count)]


def _first(pieces: Pieces) -> np.ndarray:
    return pieces.at(range(min(SHOWN, pieces.n)))["images"]


def draw(
    images: np.ndarray,
    t: Sequence[int],
    before: Sequence[int],
    distances: Sequence[float],
    errors: Sequence[float],
    name: str,
    path: Path,
) -> None:
    """Samples as they come about, and below them distance and error by the steps that were made.

    Args:
        images: predicted x_0 at each t and the samples, uint8 [K, len(t) + 1, C, H, W].
        t: where it was predicted.
        before: steps of the reverse process before each t.
        distances: at each t and of the samples.
        errors: likewise, RMSE on [0, 255].
        name: of the distance.
        path: of the picture.
    """
    from matplotlib.figure import Figure  # a second that nothing else needs

    columns = images.shape[1]
    captions = [*(f"t = {one}" for one in t), "sample"] + [""] * (columns * (len(images) - 1))
    sheet = grid(torch.from_numpy(images).flatten(0, 1), captions=captions, columns=columns)
    figure = Figure(figsize=(12, 4 + 12 * sheet.shape[0] / sheet.shape[1]), layout="constrained")
    parts = figure.add_gridspec(2, 2, height_ratios=[12 * sheet.shape[0] / sheet.shape[1], 4])
    top = figure.add_subplot(parts[0, :])
    top.imshow(sheet, interpolation="nearest")
    top.set_axis_off()
    top.set_title("predicted x_0 on the way from noise to a sample")
    made = [*before, before[-1] + 1]
    left, right = (figure.add_subplot(parts[1, i]) for i in range(2))
    left.plot(made, distances, marker="o")
    left.set(xlabel="steps made", ylabel=name, yscale="log", title="Distance to the training images")
    right.plot(made, errors, marker="o", color="C1")
    right.set(xlabel="steps made", ylabel="RMSE of 255", title="Error of the prediction against the sample")
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=110)
