"""The kernel distance of samples to a reference, KID by Inception."""

from typing import Any

from ddpm.evaluation.kept import Evidence
from ddpm.evaluation.measures.kid import jackknifed, kid_of_subsets, scale_of_subsets
from ddpm.evaluation.quality.material import Material, in_thousands
from ddpm.evaluation.quality.metric import QualityMetric

MOST_PAIRS = 200_000_000
"""Of images, from which on subsets are drawn by themselves: two minutes of a core with 2,048 features."""


class KID(QualityMetric):
    """The squared maximum mean discrepancy with a cubic kernel, unbiased (Bińkowski et al. 2018).

    Args:
        subsets: random subsets whose mean is taken, as other tools do; 0 takes all pairs of images, and None
            takes all pairs where they are few enough, else 100 subsets.
        size: images of a subset, at most as many as there are.

    Raises:
        ValueError: where a setting is out of range.
    """

    def __init__(self, subsets: int | None = None, size: int = 1000):
        if subsets is not None and (subsets < 0 or subsets == 1):
            raise ValueError(f"metrics.kid.subsets={subsets} must be null, 0 or at least 2")
        if size < 2:
            raise ValueError(f"metrics.kid.size={size} must be at least 2")
        self.subsets = subsets
        self.size = size

    def __call__(self, material: Material) -> dict[str, Any]:
        assert material.reference is not None
        assert material.reference.features is not None
        samples, reference = material.features, material.reference.features
        subsets = self.subsets
        if subsets is None:
            subsets = 0 if max(len(samples), len(reference)) ** 2 <= MOST_PAIRS else 100
        size = min(self.size, len(samples), len(reference))
        if size == len(samples) == len(reference):
            subsets = 0  # a subset would be everything
        found: dict[str, Any] = {}
        setting, progressed = "", material.progressed
        if subsets:
            value, values = kid_of_subsets(
                samples, reference, subsets=subsets, size=size, seed=material.seed, progressed=progressed
            )
            setting = f"subsets{subsets}x{in_thousands(size)}"
            found = {"subsets": subsets, "size": size, "deviation_of_subsets": values.std().item()}
            scale = scale_of_subsets(subsets, size, min(len(samples), len(reference)))
            evidence = Evidence("replicates", value.value, (values.numpy(),), scale)
        else:
            value, without = jackknifed(samples, reference, progressed=progressed)
            evidence = Evidence("jackknife", value.value, tuple(one.numpy() for one in without))
        material.keep("kid", evidence)
        return {
            material.named("kid", setting): value.value,
            "standard_error": value.standard_error,
            "interval": list(value.interval()),
            **found,
        }
