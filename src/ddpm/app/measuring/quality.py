"""What evaluate.py measures samples by: the extractors of its metrics, and what samples are compared with."""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ddpm.data.images import DataSet
from ddpm.data.prepared.cache import Cache
from ddpm.errors import UsageError
from ddpm.evaluation import reference_file
from ddpm.evaluation.measures.moments import MOST_FEATURES
from ddpm.evaluation.quality import measuring
from ddpm.evaluation.quality.measuring import Comparison
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.evaluation.quality.reference import MOST_IMAGES, Split, images_of, of_data, of_file
from ddpm.runtime.sharing import Sharing
from ddpm.targets import build

log = logging.getLogger(__name__)


def comparison_of(
    metrics: Mapping[str, QualityMetric],
    config: Mapping[str, Any],
    data: DataSet,
    device: torch.device,
) -> Comparison:
    """The extractors of the metrics, prepared, and the reference.

    Args:
        metrics: by name.
        config: of the command line.
        data: the images.
        device: that extractors compute on.

    Raises:
        UsageError: where they do not fit each other, or weights are missing.
    """
    reference = config["reference"]
    if reference not in ("train", "validation") and not Path(reference).expanduser().is_file():
        raise UsageError(f"reference={reference}: must be train, validation, or a file, and there is none")
    chosen = build("extractor", config["extractor"]) if config["extractor"] else None
    extractors = measuring.extractors_for(metrics, chosen)
    if config["save_reference"] is not None:
        _check_saving(config, metrics)
    for extractor in dict.fromkeys(extractors.values()):
        extractor.check(data.image_shape[0])
        extractor.prepare(data, device)
    if config["save_reference"] is not None:
        saved = extractors[_compared(metrics)]
        if saved.num_features > MOST_FEATURES:
            raise UsageError(
                f"save_reference: extractor={saved.name} has {saved.num_features:,} features, and a "
                f"covariance is computed of at most {MOST_FEATURES:,}; choose another extractor"
            )
    return Comparison(data, reference, extractors, Cache())


def number_of_samples(config: Mapping[str, Any], comparison: Comparison) -> int:
    """As many as were asked for; else as the reference has, at most 50,000."""
    if config["n"] is not None:
        return int(config["n"])
    split: Split = "validation" if comparison.reference == "validation" else "train"
    return min(MOST_IMAGES, len(images_of(comparison.data, split)))


def contents_of_reference(config: Mapping[str, Any]) -> dict[str, str]:
    """A fingerprint of the file of the reference, by its key; nothing where it is the data.

    Raises:
        UsageError: where the file cannot be read.
    """
    path = config["reference"]
    if path in ("train", "validation"):
        return {}
    try:
        return {"reference": hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()[:16]}
    except OSError as error:
        choices = "train, validation, or a file of mean and covariance"
        raise UsageError(f"reference={path}: must be {choices}, and there is no such file") from error


def save_reference(
    config: Mapping[str, Any], metrics: Mapping[str, QualityMetric], comparison: Comparison, sharing: Sharing
) -> None:
    """Write mean and covariance of the reference to the file that was named, for other tools.

    Raises:
        ddpm.runtime.writing.WriteError: where the disk refuses them.
    """
    if config["save_reference"] is None or not sharing.is_leader:
        return
    path = Path(config["save_reference"]).expanduser()
    extractor = comparison.extractors[_compared(metrics)]
    if comparison.file is not None:
        known = of_file(comparison.file, extractor.num_features)
    else:
        split: Split = "train" if comparison.reference == "train" else "validation"
        known = of_data(comparison.data, split, extractor, Sharing(sharing.directory), comparison.cache)
    reference_file.write(path, known.moments)
    log.info("%s: mean and covariance of the reference, by extractor=%s", path, extractor.name)


def _check_saving(config: Mapping[str, Any], metrics: Mapping[str, QualityMetric]) -> None:
    path = Path(config["save_reference"]).expanduser()
    if path.suffix != ".npz" or path.is_dir():
        raise UsageError(f"save_reference={path}: must name a file that ends with .npz")
    if not path.parent.is_dir():
        raise UsageError(f"save_reference={path}: there is no folder {path.parent}; make it, or name another")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"save_reference={path}: {path.parent} is not yours to write to; name another")
    if not any(metric.compares for metric in metrics.values()):
        raise UsageError("save_reference: no metric compares samples with a reference; choose metrics=[fid]")


def _compared(metrics: Mapping[str, QualityMetric]) -> str:
    """The first metric that compares with a reference, whose extractor the saved one is of."""
    return next(name for name, metric in metrics.items() if metric.compares)
