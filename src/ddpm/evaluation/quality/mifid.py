"""A Frechet distance that grows where samples are copies, MiFID by Inception."""

from typing import Any, ClassVar

from ddpm.evaluation.measures.mifid import FAR, mean_cosine_distance
from ddpm.evaluation.measures.mifid import mifid as measured
from ddpm.evaluation.quality.material import Material
from ddpm.evaluation.quality.metric import QualityMetric


class MiFID(QualityMetric):
    """FID divided by the mean cosine distance to the nearest image that was trained on, where that is small
    (Bai et al. 2021).

    Args:
        far: mean distance from which on nothing is taken for a copy.

    Raises:
        ValueError: where it is not in (0, 1].
    """

    needs_covariance: ClassVar[bool] = True

    def __init__(self, far: float = FAR):
        if not 0 < far <= 1:
            raise ValueError(f"metrics.mifid.far={far} must be above 0 and at most 1")
        self.far = far

    def __call__(self, material: Material) -> dict[str, Any]:
        assert material.reference is not None
        assert material.reference.features is not None
        samples, reference = material.features, material.reference.features
        return {
            material.named("mifid"): measured(samples, reference, far=self.far),
            "mean_cosine_distance": mean_cosine_distance(samples, reference),
            "images_of_reference": len(reference),
        }
