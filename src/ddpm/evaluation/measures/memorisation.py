"""Are samples copies of images that were trained on, and of which?"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm.evaluation.measures.neighbours import nearest
from ddpm.evaluation.measures.rows import check, check_both

NEIGHBOURS = 50
THRESHOLD = 0.5


class Memorisation(NamedTuple):
    """What was found.

    Attributes:
        to_training: distance of each sample to the nearest image that was trained on, float64 [M].
        nearest_training: which one that is, int64 [M].
        to_held_out: distance of each sample to the nearest held-out image, float64 [M].
        held_out_to_training: distance of each held-out image to the nearest that was trained on, float64 [H].
        ratio: the median of `to_training` among as many images as were held out, by that of `to_held_out`: 1
            where samples know no more of one set than of the other, less where they are copies.
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
    neighbours: int = NEIGHBOURS,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> Memorisation:
    """Compare distances of samples to images that were trained on and that were held out.

    A sample is a copy where its nearest training image is nearer than `threshold` times the mean of its 50
    nearest (Carlini et al. 2023, section 4.2), so that dense regions of the data do not count as copied.

    Args:
        samples: [M, D].
        training: [N, D], at least as many as are held out.
        held_out: [H, D].
        neighbours: that the mean is taken of; all, where there are fewer.
        threshold: see above.
        seed: of the choice of training images for `ratio`.
    """
    from scipy.stats import mannwhitneyu  # half a second that nothing else needs

    check_both(samples, training)
    check("held_out", held_out)
    k = min(neighbours, len(training))
    near, which = nearest(samples, training, k)
    own, _ = nearest(held_out, training, k)
    to_held_out = nearest(samples, held_out)[0][:, 0]
    chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))
    equally_many = training[chosen[: len(held_out)].to(training.device)]
    to_equally_many = nearest(samples, equally_many)[0][:, 0]
    test = mannwhitneyu(near[:, 0].numpy(), own[:, 0].numpy(), alternative="less", method="asymptotic")
    copied = _copied(near, threshold)
    return Memorisation(
        to_training=near[:, 0],
        nearest_training=which[:, 0],
        to_held_out=to_held_out,
        held_out_to_training=own[:, 0],
        ratio=_ratio(to_equally_many, to_held_out),
        z=_z(float(test.statistic), len(samples), len(held_out)),
        p_value=float(test.pvalue),
        copies=[(i, int(which[i, 0])) for i in np.flatnonzero(copied).tolist()],
        false_copies=int(_copied(own, threshold).sum()),
    )


def _copied(distances: Tensor, threshold: float) -> np.ndarray:
    """bool [N] of distances to the nearest, ascending, [N, k]. Where all are 0 it is a copy as well."""
    found: np.ndarray = (distances[:, 0] <= threshold * distances.mean(1)).numpy()
    return found if distances.shape[1] > 1 else np.zeros(len(distances), dtype=bool)


def _ratio(one: Tensor, other: Tensor) -> float:
    divisor = other.median().item()
    return one.median().item() / divisor if divisor else float("nan")


def _z(u: float, m: int, n: int) -> float:
    """The statistic U of Mann and Whitney in standard deviations from what is expected."""
    return (u - m * n / 2) / (m * n * (m + n + 1) / 12) ** 0.5
