"""What every measure of samples is."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.inception import Inception
from ddpm.evaluation.quality.material import Material


class QualityMetric(ABC):
    """A measure of samples by their features. Settings are in the constructor, which does nothing else.

    Attributes:
        of: the kind of extractor that it is computed with where none is chosen.
        by_definition: whether it is that of this kind alone.
        compares: with a reference.
        compares_both: with the images that were trained on and those that were held out, whatever the
            reference is.
        features_of_reference: whether it needs those of each image, beside their mean and covariance.
        needs_covariance: whether it needs that of the features.
        fewest: samples that it can be computed of.
        needs_classes: whether samples must have been asked to be of a class.
    """

    of: ClassVar[type[Extractor]] = Inception
    by_definition: ClassVar[bool] = False
    compares: ClassVar[bool] = True
    compares_both: ClassVar[bool] = False
    features_of_reference: ClassVar[bool] = True
    needs_covariance: ClassVar[bool] = False
    fewest: int = 2
    needs_classes: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, material: Material) -> dict[str, Any]:
        """Measure; only one process does.

        Returns:
            plain containers for metrics.json: the value under its own name (see `Material.named`), and
            what is known beside it.
        """
