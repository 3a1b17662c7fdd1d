"""Are samples copies of images that were trained on, and of which?"""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.evaluation.measures.neighbours import nearest
from ddpm.evaluation.measures.rows import MOST_ROWS, Progressed, check, check_both

ALIKE = 1e-6
"""Features that differ by no more than this share of their size are of one image."""

NEIGHBOURS = 10
"""Of which the second is sought: the nearest that is no duplicate of the first."""

THRESHOLD = 1 / 3


class Memorisation(NamedTuple):
    """What was found.

    Attributes:
        to_training: distance of each sample to the nearest image that was trained on, float64 [M].
        nearest_training: which one that is, int64 [M].
        to_held_out: distance of each sample to the nearest held-out image, float64 [M].
        held_out_to_training: distance of each held-out image to the nearest that was trained on, float64 [H].
        ratio: the median of `to_training` by that of `held_out_to_training`: 1 where samples are as near to
            what was trained on as new images are, less where they are copies.
        z: of Mann-Whitney's test whether samples are nearer to the training images than held-out images are
            (Meehan et al. 2020, C_T of one cell). Far below 0 they are copies, far above 0 the model fits
            badly.
        p_value: of samples that are no nearer to be as near by chance.
        copies: (sample, training image) of each sample that is a copy.
        false_copies: how many held-out images the same rule takes for copies.
    """

    to_training: Tensor
    nearest_training: Tensor
    to_held_out: Tensor
    held_out_to_training: Tensor
    ratio: float
    z: float
    p_value: float
    copies: list[tuple[int, int]]
    false_copies: int


def memorisation(
    samples: Tensor,
    training: Tensor,
    held_out: Tensor,
    *,
    threshold: float = THRESHOLD,
    progressed: Progressed = lambda: None,
) -> Memorisation:
    """Compare distances of samples to images that were trained on and that were held out.

    A sample is a copy where its nearest training image is nearer than a third of the distance to the second
    (Yoon et al. 2023, section 3), duplicates of the nearest left out: in a dense region of the data all are
    near, and none is a copy for it.

    Args:
        samples: [M, D].
        training: [N, D].
        held_out: [H, D].
        threshold: the third.
        progressed: called after each block of pairs.
    """
    from scipy.stats import mannwhitneyu  # half a second that nothing else needs

    check_both(samples, training)
    check("held_out", held_out)
    near, which, copied = _nearest_and_copied(samples, training, threshold, progressed)
    own, _, falsely = _nearest_and_copied(held_out, training, threshold, progressed)
    to_held_out = nearest(samples, held_out, progressed=progressed)[0][:, 0]
    test = mannwhitneyu(near.numpy(), own.numpy(), alternative="less", method="asymptotic")
    return Memorisation(
        to_training=near,
        nearest_training=which,
        to_held_out=to_held_out,
        held_out_to_training=own,
        ratio=_ratio(near, own),
        z=_z(float(test.statistic), len(samples), len(held_out)),
        p_value=float(test.pvalue),
        copies=[(i, int(which[i])) for i in copied.nonzero().flatten().tolist()],
        false_copies=int(falsely.sum()),
    )


def _nearest_and_copied(
    features: Tensor, training: Tensor, threshold: float, progressed: Progressed
) -> tuple[Tensor, Tensor, Tensor]:
    """Distance of each to the nearest, float64 [N], which that is, int64 [N], and whether it is copied."""
    k = min(NEIGHBOURS, len(training))
    distances, which = nearest(features, training, k, progressed=progressed)
    near, first = distances[:, 0], which[:, 0]
    second, left = near.clone(), torch.arange(len(features))  # if all of them are alike
    while True:
        other = _first_other(training, which, progressed)
        found = other < k
        second[left[found]] = distances.gather(1, other.clamp_max(k - 1)[:, None])[:, 0][found]
        left = left[~found]
        if not len(left) or k == len(training):
            break
        k = min(4 * k, len(training))  # what is there many times is the likeliest to be copied
        distances, which = nearest(features[left], training, k, progressed=progressed)
    copied = near <= threshold * second
    return near, first, copied if len(training) > 1 else torch.zeros_like(copied)


def _first_other(training: Tensor, which: Tensor, progressed: Progressed) -> Tensor:
    """Which neighbour is the first that is another image than the nearest, int64 [N]; k where none is."""
    n, k = which.shape
    other = torch.full((n,), k, dtype=torch.int64)
    for begin in range(0, n, MOST_ROWS):
        rows = which[begin : begin + MOST_ROWS]
        image = training[rows[:, 0]].double()
        same = ALIKE * (1 + image.norm(dim=1))
        for j in range(k - 1, 0, -1):
            differs = ((training[rows[:, j]].double() - image).norm(dim=1) > same).cpu()
            other[begin : begin + MOST_ROWS][differs] = j
        progressed()
    return other


def _ratio(one: Tensor, other: Tensor) -> float:
    divisor = other.median().item()
    return one.median().item() / divisor if divisor else float("nan")


def _z(u: float, m: int, n: int) -> float:
    """The statistic U of Mann and Whitney in standard deviations from what is expected."""
    return (u - m * n / 2) / (m * n * (m + n + 1) / 12) ** 0.5
