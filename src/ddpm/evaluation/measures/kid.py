"""The kernel distance (Bińkowski et al. 2018), KID where the features are Inception's: without bias, so that
a few hundred images already say something.
"""

import torch
from torch import Tensor

from ddpm.evaluation.measures.estimate import Estimate
from ddpm.evaluation.measures.rows import Progressed, blocks, check_both

GROUPS = 20
"""Of images, each of which is left out once, to see how far that moves the value."""


def kid(samples: Tensor, reference: Tensor, *, progressed: Progressed = lambda: None) -> Estimate:
    """The squared maximum mean discrepancy of all images, unbiased, with the kernel (x.y / D + 1)^3.

    The standard error is the jackknife's over 20 groups of images of each set; where both sets are of one
    distribution it is up to 1.4 times too large. It takes time with the square of how many there are: 5,000
    against 5,000 of 2,048 features some 10 s of a core, 50,000 100 times as much; `kid_of_subsets` is what
    others compute then.

    Args:
        samples: [M, D], at least 2.
        reference: [N, D], at least 2.
        progressed: called after each block of pairs.
    """
    return jackknifed(samples, reference, progressed=progressed)[0]


def jackknifed(
    samples: Tensor, reference: Tensor, *, progressed: Progressed = lambda: None
) -> tuple[Estimate, tuple[Tensor, Tensor]]:
    """The same, with the values without each group of samples, float64 [G], and without each group of the
    reference, float64 [H]. A group is the same indices in any set as large.
    """
    check_both(samples, reference, 2)
    own, own_sizes = _sums(samples, samples, progressed)
    theirs, theirs_sizes = _sums(reference, reference, progressed)
    between, _ = _sums(samples, reference, progressed)
    own.diagonal().sub_(_diagonals(samples))
    theirs.diagonal().sub_(_diagonals(reference))

    def value(left: Tensor, right: Tensor) -> float:
        """Of the groups that are chosen, bool [G] each."""
        m, n = int(own_sizes[left].sum()), int(theirs_sizes[right].sum())
        first = own[left][:, left].sum() / (m * (m - 1))
        second = theirs[right][:, right].sum() / (n * (n - 1))
        return (first + second - 2 * between[left][:, right].sum() / (m * n)).item()

    every = torch.ones(len(own), dtype=torch.bool), torch.ones(len(theirs), dtype=torch.bool)

    def without(side: int) -> Tensor:
        values = [
            value(*(each & ~_only(g, len(each)) if i == side else each for i, each in enumerate(every)))
            for g in range(len(every[side]))
        ]
        return torch.tensor(values, dtype=torch.float64)

    both = without(0), without(1)
    return Estimate(value(*every), sum(map(_jackknife, both)) ** 0.5), both


def kid_of_subsets(
    samples: Tensor,
    reference: Tensor,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
    progressed: Progressed = lambda: None,
) -> tuple[Estimate, Tensor]:
    """The mean over random subsets, as the field's tools compute it.

    Args:
        samples: [M, D].
        reference: [N, D].
        subsets: how many.
        size: images of each, of both sets, without replacement.
        seed: of the draws.
        progressed: called after each subset.

    Returns:
        the mean and its standard error, and the value of each subset, float64 [S], whose standard deviation
        is what others write behind their +-. The standard error counts the choice of subsets and that of the
        images, the latter as if the value were far from 0: nearer it is too large rather than too small.
        Which images are in a subset depends on the seed and on how many there are alone.

    Raises:
        ValueError: where there are fewer images than a subset has.
    """
    check_both(samples, reference, 2)
    fewest = min(len(samples), len(reference))
    if not 2 <= size <= fewest:
        raise ValueError(f"subsets of {size} images: {fewest} are there, and at least 2 are needed")
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        left = samples[torch.randperm(len(samples), generator=generator)[:size].to(samples.device)]
        right = reference[torch.randperm(len(reference), generator=generator)[:size].to(samples.device)]
        found.append(_unbiased(left.double(), right.double()))
        progressed()
    values = torch.tensor(found, dtype=torch.float64)
    deviation = values.std().item() if subsets > 1 else float("nan")
    return Estimate(values.mean().item(), deviation * scale_of_subsets(subsets, size, fewest)), values


def scale_of_subsets(subsets: int, size: int, n: int) -> float:
    """The standard error of the mean of random subsets of n images, by their standard deviation."""
    return float((1 / subsets + size / n) ** 0.5)


def _unbiased(x: Tensor, y: Tensor) -> float:
    """Of float64 [M, D] and [N, D], at once."""
    m, n = len(x), len(y)
    own, theirs = _kernel(x, x), _kernel(y, y)
    first = (own.sum() - own.trace()) / (m * (m - 1))
    second = (theirs.sum() - theirs.trace()) / (n * (n - 1))
    return (first + second - 2 * _kernel(x, y).mean()).item()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1]).add_(1).pow_(3)


def _bounds(n: int) -> list[int]:
    """Where groups of nearly one size begin, and where the last ends."""
    groups = min(GROUPS, n)
    return [g * n // groups for g in range(groups + 1)]


def _group_of(n: int) -> Tensor:
    """The group of each index, int64 [n]."""
    sizes = torch.tensor(_bounds(n)).diff()
    return torch.repeat_interleave(torch.arange(len(sizes)), sizes)


def _sums(left: Tensor, right: Tensor, progressed: Progressed) -> tuple[Tensor, Tensor]:
    """Sums of the kernel over each pair of groups, float64 [G, H], and how many are in those on the left."""
    left_groups, right_groups = _group_of(len(left)), _group_of(len(right))
    sums = torch.zeros(int(left_groups[-1]) + 1, int(right_groups[-1]) + 1, dtype=torch.float64)
    for rows, x in blocks(left):
        for columns, y in blocks(right):
            kernel = _kernel(x, y).cpu()
            by_row = torch.zeros(len(sums), len(y), dtype=torch.float64)
            by_row.index_add_(0, left_groups[rows.start : rows.stop], kernel)
            sums.T.index_add_(0, right_groups[columns.start : columns.stop], by_row.T)
            progressed()
    return sums, torch.bincount(left_groups)


def _diagonals(features: Tensor) -> Tensor:
    """The sum of the kernel of each image with itself over each group, float64 [G]."""
    groups = _group_of(len(features))
    sums = torch.zeros(int(groups[-1]) + 1, dtype=torch.float64)
    for rows, x in blocks(features):
        own = (x.square().sum(1) / x.shape[1]).add_(1).pow_(3).cpu()
        sums.index_add_(0, groups[rows.start : rows.stop], own)
    return sums


def _only(index: int, n: int) -> Tensor:
    return torch.arange(n) == index


def _jackknife(without: Tensor) -> float:
    """The variance of a value, from those without each group in turn; NaN where a group is too much."""
    if len(without) < 3:
        return float("nan")
    return ((len(without) - 1) * without.var(correction=0)).item()
