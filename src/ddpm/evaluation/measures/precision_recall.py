"""How many samples look like images of the reference, and how many of those the samples can look like."""

from typing import NamedTuple

from torch import Tensor

from ddpm.evaluation.measures.neighbours import balls_around, radii
from ddpm.evaluation.measures.rows import Progressed, check_both


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]."""

    precision: float
    recall: float


def precision_recall(
    samples: Tensor, reference: Tensor, *, k: int = 3, progressed: Progressed = lambda: None
) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2): the share of a set that lies in
    a ball around one of the other set, which reaches to its k-th nearest neighbour.

    Both change with the number of images: they are compared at equal numbers. Time goes with its square:
    50,000 against 50,000 of 2,048 features take some 14 min of a core.

    Args:
        samples: [M, D], more than k.
        reference: [N, D], more than k.
        k: neighbours.
        progressed: called after each block of pairs.
    """
    counted = counts(samples, reference, k=k, progressed=progressed)
    return PrecisionRecall(*(each.double().mean().item() for each in counted))


def counts(
    samples: Tensor, reference: Tensor, *, k: int = 3, progressed: Progressed = lambda: None
) -> tuple[Tensor, Tensor]:
    """Which samples and which images of the reference count: bool [M] and [N]; arguments as above."""
    check_both(samples, reference, k + 1)

    def inside(points: Tensor, centres: Tensor) -> Tensor:
        reach = radii(centres, k, progressed=progressed)
        return balls_around(points, centres, reach, progressed=progressed) > 0

    return inside(samples, reference), inside(reference, samples)
