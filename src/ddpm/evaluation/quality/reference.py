"""What samples are compared with: features of a data set's images, computed once and cached."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ddpm.data.images import DataSet, ImageSet
from ddpm.data.prepared.cache import Cache, Entry, key
from ddpm.errors import UsageError
from ddpm.evaluation import reference_file
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.pixels import Pixels
from ddpm.evaluation.measures.moments import MOST_FEATURES, Gaussian, Moments
from ddpm.evaluation.measures.rows import Progressed
from ddpm.evaluation.quality.features import features_of, write
from ddpm.evaluation.quality.material import Reference
from ddpm.runtime.pieces import Pieces
from ddpm.runtime.sharing import Sharing

FORMAT = 1
"""Raised whenever the same images and extractor give other features."""

MOST_IMAGES = 50_000
"""Whose features are kept; mean and covariance are of all."""

MOST_BYTES = 1 << 31
"""Of pixels that are compared as they are."""

FEATURES, MOMENTS = "features.npy", "moments.npz"

Split = Literal["train", "validation"]


def images_of(data: DataSet, split: Split) -> ImageSet:
    """The images of a split, as training shows them but for random changes.

    Raises:
        UsageError: where they are streamed, or there are none.
    """
    found = data.train if split == "train" else data.validation
    if not isinstance(found, ImageSet):
        raise UsageError(
            "reference=train: the images that are trained on are streamed, and nobody holds them; use "
            "reference=validation, or a file of statistics"
        )
    if not len(found):
        raise UsageError(f"reference={split}: there are no such images")
    return found if data.window is None else found.centre(data.window)


def of_data(
    data: DataSet,
    split: Split,
    extractor: Extractor,
    sharing: Sharing,
    cache: Cache,
) -> Reference:
    """The features of a split's images, from the cache or computed by all ranks. Only the leader has them.

    Args:
        data: the images.
        split: which of them.
        extractor: prepared.
        sharing: of the work.
        cache: that keeps them.

    Raises:
        UsageError: where the images do not serve.
    """
    images = images_of(data, split)
    about = _about(data, split, images)
    chosen = _chosen(len(images))
    is_whole = len(chosen) == len(images)
    kept, indices = (images, None) if is_whole else (images.subset(chosen), chosen)
    if isinstance(extractor, Pixels):  # are the images themselves
        features = None
        if sharing.is_leader:
            features = _pixels(kept, extractor, lambda: sharing.progressed(False))
        return Reference(split, len(images), about, features, images=kept, indices=indices)
    name, settings = f"reference {extractor.name}", _settings(about, extractor)
    known = key(settings, ())
    entry = cache.find(name, known) if sharing.is_leader else None
    if not sharing.leaders(f"reference/{extractor.name}/{split}", lambda: entry is not None):
        pieces = features_of(
            extractor,
            len(images),
            lambda indices: images.images[indices.start : indices.stop],
            sharing,
            _work(extractor, split, known),
            f"{extractor.name}: {split}",
        )
        if sharing.is_leader:
            build = _builder(pieces, extractor, chosen, settings, lambda: sharing.progressed(False))
            entry = cache.get(name, known, build)
    if entry is None:  # another rank has it
        return Reference(split, len(images), about, images=kept, indices=indices)
    return Reference(split, len(images), about, *_read(entry, extractor), images=kept, indices=indices)


def missing(data: DataSet, split: Split, extractor: Extractor, sharing: Sharing, cache: Cache) -> int:
    """Of how many images `of_data` computes features, which neither the cache nor an earlier start has."""
    images = images_of(data, split)
    if isinstance(extractor, Pixels):
        return 0
    settings = _settings(_about(data, split, images), extractor)
    known = key(settings, ())
    if (entry := cache.find(f"reference {extractor.name}", known)) is not None:
        entry.release()
        return 0
    return sharing.missing(_work(extractor, split, known), len(images))


def of_file(path: Path, num_features: int) -> Reference:
    """Mean and covariance of a file, as pytorch-fid's, EDM's and this project's programs write them.

    Raises:
        UsageError: where it is no such file, or of another extractor.
    """
    known = reference_file.read(path, num_features)
    return Reference(path.stem, known.n, {"file": str(path), "images": known.n}, known=known)


def _about(data: DataSet, split: Split, images: ImageSet) -> dict[str, Any]:
    return {"data": data.fingerprint, "split": split, "images": len(images)}


def _settings(about: dict[str, Any], extractor: Extractor) -> dict[str, Any]:
    """All that features depend on."""
    return {"reference": FORMAT, **about, **extractor.about()}


def _work(extractor: Extractor, split: str, known: str) -> str:
    """Of other images, weights or precision nothing is taken up that an earlier start has kept."""
    return f"reference_{extractor.name}_{split}_{known[:8]}"


def _chosen(n: int) -> np.ndarray:
    """Indices of the images whose features are kept: all, or every so many-th."""
    return (np.arange(min(n, MOST_IMAGES)) * n) // min(n, MOST_IMAGES)


def _builder(
    pieces: Pieces,
    extractor: Extractor,
    chosen: np.ndarray,
    settings: dict[str, Any],
    progressed: Progressed,
) -> Callable[[Path], dict[str, Any]]:
    def build(folder: Path) -> dict[str, Any]:
        write(folder / FEATURES, pieces, extractor.num_features, chosen)
        if extractor.num_features <= MOST_FEATURES and pieces.n > 1:
            moments = Moments(extractor.num_features)
            for part in pieces:
                moments.add(torch.from_numpy(part["features"]), progressed=progressed)
            reference_file.write(folder / MOMENTS, moments.gaussian())
        return {
            "name": f"reference {extractor.name}",
            "statistics": settings,
            "fingerprint": settings["data"],
        }

    return build


def _read(entry: Entry, extractor: Extractor) -> tuple[Tensor, Gaussian | None]:
    features = torch.from_numpy(np.load(entry.path / FEATURES))
    file = entry.path / MOMENTS
    found = reference_file.read(file, extractor.num_features) if file.exists() else None
    entry.release()
    return features, found


def _pixels(images: ImageSet, extractor: Pixels, progressed: Progressed) -> Tensor:
    size = len(images) * extractor.num_features * 4
    if size > MOST_BYTES:
        raise UsageError(
            f"extractor=pixels: {len(images):,} images of {extractor.num_features:,} values take "
            f"{size / 1e9:.1f} GB; choose another extractor"
        )
    parts = []
    for i in range(0, len(images), 1024):
        part = torch.from_numpy(np.array(images.images[i : i + 1024]))  # a copy: a cache is read-only
        parts.append(extractor(part).cpu())
        progressed()
    return torch.cat(parts)
