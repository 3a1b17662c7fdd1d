"""The Frechet distance of samples to a reference: FID by Inception, FD by any other extractor."""

from typing import Any, ClassVar

from ddpm.evaluation.extractors.classifier import Classifier
from ddpm.evaluation.extractors.efficientnet import EfficientNet
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.inception import Inception
from ddpm.evaluation.kept import Evidence
from ddpm.evaluation.measures.frechet import bootstrapped, extrapolated
from ddpm.evaluation.quality.material import Material
from ddpm.evaluation.quality.metric import QualityMetric

FEWEST_TO_EXTRAPOLATE = 2
"""Times as many samples as features: below, covariances of subsets are singular, and a line through their
distances ends far above the limit.
"""


class FrechetDistance(QualityMetric):
    """The distance between Gaussians that are fitted to features (Heusel et al. 2017, eq. 6), its standard
    error by the bootstrap, and what infinitely many samples would have (Chong and Forsyth 2020).

    Args:
        replicates: of the bootstrap; 0 leaves the interval out.
        points: subsets that the extrapolation is made of; 0 leaves it out.

    Raises:
        ValueError: where a setting is out of range.
    """

    features_of_reference: ClassVar[bool] = False
    needs_covariance: ClassVar[bool] = True
    by_definition: ClassVar[bool] = True
    short: ClassVar[str] = "fd"

    def __init__(self, replicates: int = 20, points: int = 15):
        if replicates < 0 or replicates == 1:
            raise ValueError(f"replicates={replicates} must be 0 or at least 2")
        if points < 0 or points in (1, 2):
            raise ValueError(f"points={points} must be 0 or at least 3")
        self.replicates = replicates
        self.points = points

    def __call__(self, material: Material) -> dict[str, Any]:
        assert material.reference is not None
        reference, features = material.reference.to_moments, material.features
        value, drawn = bootstrapped(
            features,
            reference,
            replicates=self.replicates,
            seed=material.seed,
            progressed=material.progressed,
        )
        found: dict[str, Any] = {material.named(self.short): value.value}
        if self.replicates:
            found |= {"standard_error": value.standard_error, "interval": list(value.interval())}
            material.keep(self.short, Evidence("replicates", value.value, (drawn.numpy(),)))
        if self.points and len(features) >= FEWEST_TO_EXTRAPOLATE * features.shape[1]:
            limit = extrapolated(
                features,
                reference,
                points=self.points,
                seed=material.seed,
                progressed=material.progressed,
            )
            found |= {
                "extrapolated": limit.value,
                "extrapolated_standard_error": limit.standard_error,
            }
        return found


class FID(FrechetDistance):
    """The distance of the features of the network that FID is defined by."""

    of: ClassVar[type[Extractor]] = Inception
    short: ClassVar[str] = "fid"


class ClassifierDistance(FrechetDistance):
    """The distance of the features of a small classifier of the data set's own labels, for small images."""

    of: ClassVar[type[Extractor]] = Classifier


class EfficientNetDistance(FrechetDistance):
    """The distance of the features of EfficientNet-Lite0: a third of FID's time, and other values."""

    of: ClassVar[type[Extractor]] = EfficientNet
