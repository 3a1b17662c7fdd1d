"""Measures of samples, from images to values: features once for each extractor, on all devices."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ddpm.data.images import DataSet
from ddpm.data.prepared.cache import Cache, key
from ddpm.errors import UsageError
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.inception import Inception
from ddpm.evaluation.kept import Kept
from ddpm.evaluation.measures.moments import MOST_FEATURES
from ddpm.evaluation.quality.features import features_of, seconds_an_image, together
from ddpm.evaluation.quality.inception_score import InceptionScore
from ddpm.evaluation.quality.material import Material, Reference, Samples
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.evaluation.quality.reference import Split, images_of, missing, of_data, of_file
from ddpm.runtime.sharing import Sharing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """What samples are compared with, and by which features.

    Attributes:
        data: the images.
        reference: "train", "validation", or a file of mean and covariance.
        extractors: of each metric, by its name; prepared. Metrics that share one share its features.
        cache: for features of the data.
    """

    data: DataSet
    reference: str
    extractors: Mapping[str, Extractor]
    cache: Cache

    @property
    def checksums(self) -> dict[str, str]:
        """Of the weights of the extractors, which must be the same on all devices."""
        return {f"the weights of extractor={one.name}": one.checksum for one in self.extractors.values()}

    @property
    def file(self) -> Path | None:
        """Of the reference, if it is one."""
        return None if self.reference in ("train", "validation") else Path(self.reference).expanduser()


def extractors_for(metrics: Mapping[str, QualityMetric], chosen: Extractor | None) -> dict[str, Extractor]:
    """The extractor of each metric: the one that was chosen, or its own.

    Args:
        metrics: by name.
        chosen: for all that are not of one extractor by definition.

    Raises:
        UsageError: where nothing that is measured would use the chosen one.
    """
    made: dict[type[Extractor], Extractor] = {} if chosen is None else {type(chosen): chosen}
    found = {}
    for name, metric in metrics.items():
        if chosen is not None and not metric.by_definition:
            found[name] = chosen
        else:
            found[name] = made.setdefault(metric.of, metric.of())
    if chosen is not None and metrics and chosen not in found.values():
        raise UsageError(
            f"extractor={chosen.name}: {', '.join(metrics)} cannot use it, {next(iter(found.values())).name} "
            "belongs to what is measured; leave it out"
        )
    return found


def check_samples(metrics: Mapping[str, QualityMetric], n: int | None, asked: bool) -> None:
    """Refuse what cannot be measured of samples, before an extractor is prepared.

    Args:
        metrics: by name.
        n: samples, if it is known.
        asked: whether samples are asked to be of a class.

    Raises:
        UsageError: naming the metric and the way out.
    """
    for name, metric in metrics.items():
        if n is not None and n < metric.fewest:
            raise UsageError(f"metrics={name}: {n} samples are too few, it needs at least {metric.fewest}")
        if metric.needs_classes and not asked:
            raise UsageError(
                f"metrics={name}: samples were not asked to be of a class; it is for runs that were trained "
                "with conditional=true"
            )


def check(metrics: Mapping[str, QualityMetric], n: int, asked: bool, comparison: Comparison) -> None:
    """Refuse what cannot be measured, before any image is drawn.

    Args:
        metrics: by name.
        n: samples.
        asked: whether samples are asked to be of a class.
        comparison: what they are compared with; its extractors are prepared.

    Raises:
        UsageError: naming the metric and the way out.
    """
    check_samples(metrics, n, asked)
    for name, metric in metrics.items():
        extractor = comparison.extractors[name]
        if metric.needs_covariance and extractor.num_features > MOST_FEATURES:
            raise UsageError(
                f"metrics={name}: extractor={extractor.name} has {extractor.num_features:,} features, and a "
                f"covariance is computed of at most {MOST_FEATURES:,}; choose another extractor"
            )
        if isinstance(metric, InceptionScore) and extractor.logits(_one(extractor)) is None:
            raise UsageError(
                f"metrics={name}: the weights of extractor={extractor.name} end with the features, and have "
                "no last layer; extractor=inception extractor.file=download fetches those that have, or name "
                "a copy, extractor.file=pt_inception-2015-12-05-6726825d.pth"
                if isinstance(extractor, Inception)
                else f"metrics={name}: extractor={extractor.name} knows no classes; choose another"
            )
        if metric.compares and comparison.file is not None:
            if metric.features_of_reference:
                raise UsageError(
                    f"metrics={name}: needs the images of a reference, and {comparison.reference} holds "
                    "their mean and covariance; use reference=train or reference=validation"
                )
            of_file(comparison.file, extractor.num_features)
        if metric.compares and comparison.file is None:
            split = images_of(comparison.data, "train" if comparison.reference == "train" else "validation")
            if len(split) < metric.fewest:
                raise UsageError(
                    f"metrics={name}: reference={comparison.reference} has {len(split)} images, and it needs "
                    f"at least {metric.fewest}"
                )
        if metric.compares_both:
            images_of(comparison.data, "train")
            images_of(comparison.data, "validation")


def measure(
    metrics: Mapping[str, QualityMetric],
    samples: Samples,
    comparison: Comparison,
    *,
    seed: int,
    directory: Path,
    sharing: Sharing,
    kept: Kept | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure samples. All ranks share the features; the leader alone measures, and has the values.

    Args:
        metrics: by name.
        samples: that are measured.
        comparison: what they are compared with.
        seed: of what is drawn on the way.
        directory: for figures.
        sharing: of the work.
        kept: takes what values are made of, if somebody compares them.

    Returns:
        By the name of a metric, what it says, and what its values depend on; empty on other ranks.
    """
    found: dict[str, dict[str, Any]] = {}
    material: dict[Extractor, Material] = {}
    for name, metric in metrics.items():
        extractor = comparison.extractors[name]
        if extractor not in material:
            of_this = [one for key, one in metrics.items() if comparison.extractors[key] is extractor]
            material[extractor] = _material(
                of_this, extractor, samples, comparison, seed=seed, directory=directory, sharing=sharing
            )
        if not sharing.is_leader:
            continue
        log.info("%s: measuring %d samples", name, samples.n)
        looked_at = material[extractor]
        if kept is not None:
            looked_at = replace(looked_at, keep=partial(kept.keep, name))
        found[name] = {
            **metric(looked_at),
            "of": {
                **samples.about,
                **extractor.about(),
                "reference": _about(metric, material[extractor]),
            },
        }
        sharing.progressed(False)
    return found


def _material(
    metrics: list[QualityMetric],
    extractor: Extractor,
    samples: Samples,
    comparison: Comparison,
    *,
    seed: int,
    directory: Path,
    sharing: Sharing,
) -> Material:
    """What the metrics of an extractor look at."""
    data, cache = comparison.data, comparison.cache
    known: dict[str, Reference] = {}

    def of(split: str) -> Reference:
        if split not in known:
            if split in ("train", "validation"):
                known[split] = of_data(
                    data, "train" if split == "train" else "validation", extractor, sharing, cache
                )
            else:
                known[split] = of_file(Path(split).expanduser(), extractor.num_features)
        return known[split]

    both = any(metric.compares_both for metric in metrics)
    reference = of(comparison.reference) if any(metric.compares for metric in metrics) else None
    training, held_out = (of("train"), of("validation")) if both else (None, None)
    pieces = features_of(
        extractor,
        samples.n,
        samples.read,
        sharing,
        _work(extractor),
        f"{extractor.name}: samples",
    )
    features = together(pieces, extractor.num_features) if sharing.is_leader else torch.empty(0)
    return Material(
        samples=samples,
        features=features,
        extractor=extractor,
        reference=reference,
        training=training,
        held_out=held_out,
        directory=directory,
        seed=seed,
        progressed=lambda: sharing.progressed(False),
    )


def seconds_to_extract(
    metrics: Mapping[str, QualityMetric],
    n: int,
    comparison: Comparison,
    sharing: Sharing,
    *,
    references: bool = True,
) -> float:
    """How long one device will take for the features that `measure` needs, of samples and of references, and
    that no earlier start has kept.

    Args:
        metrics: by name.
        n: samples.
        comparison: what they are compared with.
        sharing: of the work, which has not begun.
        references: whether those of references count too.
    """
    seconds = 0.0
    for extractor in dict.fromkeys(comparison.extractors.values()):
        images = sharing.missing(_work(extractor), n)
        of_this = [metric for name, metric in metrics.items() if comparison.extractors[name] is extractor]
        for split in _splits(of_this, comparison) if references else ():
            images += missing(comparison.data, split, extractor, sharing, comparison.cache)
        if images:
            seconds += images * seconds_an_image(extractor, comparison.data.image_shape)
    return seconds


def _splits(metrics: list[QualityMetric], comparison: Comparison) -> list[Split]:
    """Of the data, whose features the metrics of an extractor need."""
    both: list[Split] = ["train", "validation"]
    if any(metric.compares_both for metric in metrics):
        return both
    compared = any(metric.compares for metric in metrics)
    return [split for split in both if compared and split == comparison.reference]


def _work(extractor: Extractor) -> str:
    """Of other weights or another precision nothing is taken up that an earlier start has kept."""
    return f"features_{extractor.name}_{key(extractor.about(), ())[:8]}"


def _about(metric: QualityMetric, material: Material) -> Any:
    if metric.compares_both:
        return [None if one is None else one.about for one in (material.training, material.held_out)]
    return material.reference.about if metric.compares and material.reference is not None else None


def _one(extractor: Extractor) -> torch.Tensor:
    return torch.zeros(1, extractor.num_features, device=extractor.device)
