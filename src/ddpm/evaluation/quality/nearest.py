"""Whether samples are copies of images that were trained on."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ddpm.data.images import ImageSet
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.pixels import Pixels
from ddpm.evaluation.measures.memorisation import THRESHOLD, Memorisation, memorisation
from ddpm.evaluation.measures.neighbours import nearest
from ddpm.evaluation.quality.material import Material
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.runtime.writing import write_whole
from ddpm.sampling.figures import grid, png

log = logging.getLogger(__name__)

SHOWN = 24
"""Samples in the picture: copies first, then those that are nearest to an image that was trained on."""

NAMED = 1000
"""Copies that are listed."""

ONE_IN = 1000
"""Runs that copy nothing, of which one is taken for one that does."""


class Nearest(QualityMetric):
    """Distances of samples to the nearest image that was trained on and the nearest that was held out, what
    they say of memorisation, and a picture of the most suspicious.

    Args:
        threshold: a sample is a copy where the nearest training image is nearer than this share of the
            distance to the second (Yoon et al. 2023).

    Raises:
        ValueError: where it is not in (0, 1).
    """

    of: ClassVar[type[Extractor]] = Pixels
    compares: ClassVar[bool] = False
    compares_both: ClassVar[bool] = True

    def __init__(self, threshold: float = THRESHOLD):
        if not 0 < threshold < 1:
            raise ValueError(f"metrics.nearest.threshold={threshold} must be between 0 and 1")
        self.threshold = threshold

    def __call__(self, material: Material) -> dict[str, Any]:
        training, held_out = material.training, material.held_out
        assert training is not None
        assert held_out is not None
        assert training.features is not None
        assert held_out.features is not None
        from scipy.stats import fisher_exact  # half a second that nothing else needs

        found = memorisation(
            material.features,
            training.features,
            held_out.features,
            threshold=self.threshold,
            progressed=material.progressed,
        )
        copies, n = len(found.copies), material.samples.n
        if training.indices is not None:
            log.warning(
                "nearest: samples are compared with %d of %d training images; copies of others are not seen",
                len(training.features), training.n,
            )  # fmt: skip

        def index(row: int) -> int:
            return row if training.indices is None else int(training.indices[row])

        # held-out images are copies by this rule too now and then, so samples have to be so more often
        table = [[copies, n - copies], [found.false_copies, len(held_out.features) - found.false_copies]]
        more = float(fisher_exact(table, alternative="greater").pvalue)
        self._draw(material, found)
        return {
            material.named("nearest", with_reference=False): found.ratio,
            "z": found.z,
            "p_value": found.p_value,
            "copies": copies,
            "copies_among_held_out": found.false_copies,
            "p_value_of_copies": more,
            "memorised": more < 1 / ONE_IN,
            "copied": [{"sample": sample, "training_image": image} for sample, image in found.copies[:NAMED]],
            "training_images_copied": sorted({image for _, image in found.copies}),
            "images_of_training": len(training.features),
            "images_held_out": len(held_out.features),
        }

    def _draw(self, material: Material, found: Memorisation) -> None:
        training, held_out = material.training, material.held_out
        assert training is not None
        assert held_out is not None
        assert training.images is not None
        assert held_out.images is not None
        assert held_out.features is not None
        copied = [sample for sample, _ in found.copies]
        rest = [i for i in found.to_training.argsort().tolist() if i not in set(copied)]
        shown = [*copied, *rest][:SHOWN]
        to_held_out = nearest(material.features[shown], held_out.features)[1][:, 0].tolist()
        # forwards: a compressed file is read from its beginning
        pictures = {i: material.samples.read(range(i, i + 1)) for i in sorted(shown)}
        draw(
            np.concatenate([pictures[i] for i in shown]),
            _taken(training.images, [int(found.nearest_training[i]) for i in shown]),
            _taken(held_out.images, to_held_out),
            [f"{'copy' if i in copied else 'train'} {_short(found.to_training[i])}" for i in shown],
            [f"new {_short(found.to_held_out[i])}" for i in shown],
            material.directory / "nearest.png",
        )


def draw(
    samples: np.ndarray,
    training: np.ndarray,
    held_out: np.ndarray,
    above_training: Sequence[str],
    above_held_out: Sequence[str],
    path: Path,
) -> None:
    """Triples: a sample, the nearest image that was trained on, and the nearest that was held out.

    Args:
        samples: uint8 [K, C, H, W].
        training: uint8 [K, C, H, W].
        held_out: uint8 [K, C, H, W].
        above_training: captions: whether it is a copy, and the distance, as in train 0.71.
        above_held_out: captions: the distance, as in new 0.96.
        path: of the picture.
    """
    cells = np.stack([samples, training, held_out], 1).reshape(-1, *samples.shape[1:])
    captions = [
        caption
        for near, far in zip(above_training, above_held_out, strict=True)
        for caption in ("sample", near, far)
    ]
    write_whole(path, png(grid(torch.from_numpy(cells), captions=captions, columns=6)))


def _short(distance: Tensor) -> str:
    """Of four letters or so, that a caption of 64 pixels has room for: 0.71, 12.3, 345."""
    value = float(distance)
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _taken(images: ImageSet, indices: list[int]) -> np.ndarray:
    return images.copy(np.array(indices, np.int64)).images
