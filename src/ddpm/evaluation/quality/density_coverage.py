"""Density and coverage of samples."""

from typing import Any

from ddpm.evaluation.kept import Evidence
from ddpm.evaluation.measures.density_coverage import counts
from ddpm.evaluation.quality.intervals import share
from ddpm.evaluation.quality.material import Material
from ddpm.evaluation.quality.metric import QualityMetric

K = 5
"""What the paper takes; another one is in the name of a value."""


class DensityCoverage(QualityMetric):
    """Precision and recall that one stray image does not move (Naeem et al. 2020).

    Args:
        k: neighbours that a ball of the reference reaches to.

    Raises:
        ValueError: where k is below 1.
    """

    def __init__(self, k: int = K):
        if k < 1:
            raise ValueError(f"metrics.density_coverage.k={k} must be at least 1")
        self.k = k
        self.fewest = k + 1

    def __call__(self, material: Material) -> dict[str, Any]:
        assert material.reference is not None
        assert material.reference.features is not None
        balls, covered = counts(
            material.features, material.reference.features, k=self.k, progressed=material.progressed
        )
        density, coverage = balls.mean().item(), covered.double().mean().item()
        material.keep("density", Evidence("mean", density, (balls.numpy(),)))
        material.keep("coverage", Evidence("share", coverage, (covered.numpy(),)))
        setting = "" if self.k == K else f"k{self.k}"
        return {
            material.named("density", setting): density,
            material.named("coverage", setting): coverage,
            "coverage_interval": share(coverage, len(material.reference.features)),
            "images_of_reference": len(material.reference.features),
        }
