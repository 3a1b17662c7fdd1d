"""The Inception Score of samples."""

from typing import Any, ClassVar

from ddpm.evaluation.measures.inception_score import inception_score
from ddpm.evaluation.quality.material import Material
from ddpm.evaluation.quality.metric import QualityMetric

SPLITS = 10
"""What the paper takes; another number is in the name of a value."""


class InceptionScore(QualityMetric):
    """How certain the extractor's classifier is of each sample, and how many classes it sees in all (Salimans
    et al. 2016).

    Args:
        splits: sets that it is computed of, whose mean and standard deviation are given.

    Raises:
        ValueError: where splits is below 1.
    """

    compares: ClassVar[bool] = False

    def __init__(self, splits: int = SPLITS):
        if splits < 1:
            raise ValueError(f"metrics.inception_score.splits={splits} must be at least 1")
        self.splits = splits
        self.fewest = splits

    def __call__(self, material: Material) -> dict[str, Any]:
        logits = material.logits
        assert logits is not None  # `measuring.measure` has looked
        setting = "" if self.splits == SPLITS else f"splits{self.splits}"
        found = inception_score(logits, splits=self.splits, seed=material.seed)
        return {
            material.named("is", setting, with_reference=False): found.mean,
            "deviation_of_splits": found.deviation,
            "splits": self.splits,
        }
