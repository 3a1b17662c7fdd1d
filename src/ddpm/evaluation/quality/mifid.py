"""A Frechet distance that grows where samples are copies, MiFID by Inception."""

from typing import Any, ClassVar

from ddpm.evaluation.measures.mifid import FAR, mifid
from ddpm.evaluation.quality.material import Material
from ddpm.evaluation.quality.metric import QualityMetric


class MiFID(QualityMetric):
    """FID divided by the mean cosine distance to the nearest image that was trained on, where that is small
    (Bai et al. 2021). As for FID, mean and covariance are of all images of the reference.

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
        reference = material.reference.features
        found = mifid(
            material.features,
            reference,
            far=self.far,
            to_reference=material.reference.to_moments,
            progressed=material.progressed,
        )
        return {
            material.named("mifid", "" if self.far == FAR else f"far{self.far:g}"): found.distance,
            "mean_cosine_distance": found.mean_cosine_distance,
            "images_of_reference": len(reference),
        }
