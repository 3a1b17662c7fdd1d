"""Precision and recall that one stray image does not move."""

from typing import NamedTuple

from torch import Tensor

from ddpm.evaluation.measures.neighbours import balls_around, nearest, radii
from ddpm.evaluation.measures.rows import Progressed, check_both


class DensityCoverage(NamedTuple):
    """Density may exceed 1; coverage is a share."""

    density: float
    coverage: float


def density_coverage(
    samples: Tensor, reference: Tensor, *, k: int = 5, progressed: Progressed = lambda: None
) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020, eq. 3 and 4): in how many of k balls of the reference a sample
    lies on average, and the share of balls that have a sample in them.

    Args:
        samples: [M, D].
        reference: [N, D], more than k.
        k: neighbours that a ball of the reference reaches to.
        progressed: called after each block of pairs.
    """
    balls, covered = counts(samples, reference, k=k, progressed=progressed)
    return DensityCoverage(balls.mean().item(), covered.double().mean().item())


def counts(
    samples: Tensor, reference: Tensor, *, k: int = 5, progressed: Progressed = lambda: None
) -> tuple[Tensor, Tensor]:
    """In how many balls each sample lies, by k, float64 [M], and which images of the reference are covered,
    bool [N]; arguments as above.
    """
    check_both(samples, reference)
    reach = radii(reference, k, progressed=progressed)
    balls = balls_around(samples, reference, reach, progressed=progressed).double() / k
    return balls, nearest(reference, samples, progressed=progressed)[0][:, 0] <= reach
