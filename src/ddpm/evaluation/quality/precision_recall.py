"""Improved precision and recall of samples."""

from typing import Any

from ddpm.evaluation.kept import Evidence
from ddpm.evaluation.measures.precision_recall import counts
from ddpm.evaluation.quality.intervals import share
from ddpm.evaluation.quality.material import Material
from ddpm.evaluation.quality.metric import QualityMetric

K = 3
"""What the paper takes; another one is in the name of a value."""


class PrecisionRecall(QualityMetric):
    """Shares of samples that look like the reference, and of the reference that samples look like
    (Kynkäänniemi et al. 2019).

    Args:
        k: neighbours that a ball reaches to.

    Raises:
        ValueError: where k is below 1.
    """

    def __init__(self, k: int = K):
        if k < 1:
            raise ValueError(f"metrics.precision_recall.k={k} must be at least 1")
        self.k = k
        self.fewest = k + 1

    def __call__(self, material: Material) -> dict[str, Any]:
        assert material.reference is not None
        assert material.reference.features is not None
        inside, covered = counts(
            material.features, material.reference.features, k=self.k, progressed=material.progressed
        )
        precision, recall = inside.double().mean().item(), covered.double().mean().item()
        material.keep("precision", Evidence("share", precision, (inside.numpy(),)))
        material.keep("recall", Evidence("share", recall, (covered.numpy(),)))
        setting = "" if self.k == K else f"k{self.k}"
        return {
            material.named("precision", setting): precision,
            "precision_interval": share(precision, len(material.features)),
            material.named("recall", setting): recall,
            "recall_interval": share(recall, len(material.reference.features)),
            "images_of_reference": len(material.reference.features),
        }
