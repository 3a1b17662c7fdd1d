"""The Frechet distance between Gaussians that are fitted to features: FID, where they are Inception's."""

import logging
from functools import cache

import torch
from torch import Tensor

from ddpm.evaluation.measures.estimate import Estimate
from ddpm.evaluation.measures.moments import Gaussian, gaussian
from ddpm.evaluation.measures.rows import Progressed, check

log = logging.getLogger(__name__)

SMALLEST = 1e-14
"""Eigenvalues of a covariance below this share of the largest are rounding errors of zero."""


def frechet_distance(samples: Gaussian, reference: "Gaussian | FrechetTo") -> float:
    """|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) (Dowson and Landau 1982; Heusel et al. 2017, eq. 6).

    Of fewer images than there are features plus one a covariance is singular, and the distance is larger by
    a bias; it is computed all the same, and said. It is symmetric, and never below 0.
    """
    to_reference = _to(reference)
    for name, one in (("samples", samples), ("the reference", to_reference)):
        if one.n is not None and one.n <= len(one.mean):
            _say_singular(name, one.n, len(one.mean))
    return to_reference(samples)


@cache
def _say_singular(name: str, n: int, num_features: int) -> None:
    """Once, however many measures are taken of a set."""
    log.warning(
        "Frechet distance: %d images for %s and %d features: the covariance is singular and the distance too "
        "large; %d images or more have none of this, and 50,000 are usual",
        n, name, num_features, num_features + 1,
    )  # fmt: skip


class FrechetTo:
    """The distance of many Gaussians to one, whose covariance is parted into its factors once.

    The trace of (C_1 C_2)^(1/2) is the sum of the roots of the eigenvalues of F' C_1 F, where C_2 = F F': a
    symmetric matrix, whose eigenvalues are real and, but for rounding, not negative. So it needs no
    correction where a covariance is singular, as a root of C_1 C_2 itself does.
    """

    def __init__(self, reference: Gaussian):
        self.n = reference.n
        self.mean = reference.mean.double()
        covariance = reference.covariance.double()
        self.trace = covariance.trace()
        values, vectors = torch.linalg.eigh(covariance)
        large = values > SMALLEST * values[-1].clamp_min(0)
        self.factor = vectors[:, large] * values[large].sqrt()

    def __call__(self, samples: Gaussian) -> float:
        """The distance, without a warning."""
        mean, covariance = samples.mean.to(self.mean), samples.covariance.to(self.mean)
        if mean.shape != self.mean.shape:
            raise ValueError(
                f"samples have {len(mean)} features and the reference {len(self.mean)}: they are of two "
                "extractors"
            )
        product = self.factor.T @ covariance @ self.factor
        roots = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt()
        distance = (mean - self.mean).square().sum() + covariance.trace() + self.trace - 2 * roots.sum()
        return max(0.0, distance.item())


def _to(reference: Gaussian | FrechetTo) -> FrechetTo:
    return reference if isinstance(reference, FrechetTo) else FrechetTo(reference)


def bootstrapped(
    features: Tensor,
    reference: Gaussian | FrechetTo,
    *,
    replicates: int = 20,
    seed: int = 0,
    progressed: Progressed = lambda: None,
) -> tuple[Estimate, Tensor]:
    """The distance of features to a reference that is taken as it is, and its standard error.

    Each replicate draws as many images with replacement. Images that are there twice add a bias of their own
    to a distance, so that the replicates are not around the value: their spread alone is used. For 50,000
    images of 2,048 features a replicate takes some 15 s of a core.

    Args:
        features: [N, D] of samples.
        reference: what they are compared with.
        replicates: how many are drawn; the standard error of 20 is known to a sixth.
        seed: of the draws.
        progressed: called after each block of features.

    Returns:
        both, and the distance of each replicate, float64 [R]. Which images a replicate has depends on the
        seed and N alone, so that those of two sets of features that belong together image by image are pairs.
    """
    check("samples", features, 2)
    to_reference = _to(reference)
    generator = torch.Generator().manual_seed(seed)
    n, found = len(features), []
    for _ in range(replicates):
        counts = torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n)
        found.append(to_reference(gaussian(features, counts, progressed=progressed)))
        progressed()
    drawn = torch.tensor(found, dtype=torch.float64)
    spread = drawn.std().item() if replicates > 1 else float("nan")
    every = gaussian(features, progressed=progressed)
    return Estimate(frechet_distance(every, to_reference), spread), drawn


def extrapolated(
    features: Tensor,
    reference: Gaussian | FrechetTo,
    *,
    points: int = 15,
    seed: int = 0,
    progressed: Progressed = lambda: None,
) -> Estimate:
    """The distance that infinitely many samples would have (Chong and Forsyth 2020, algorithm 1): a line in
    1/N through the distances of subsets, at 1/N = 0. The bias of the reference stays.

    Args:
        features: [N, D] of samples, at least 10.
        reference: what they are compared with.
        points: subsets, of N/10 to N images, evenly; none has so few that its covariance is singular, if
            there are twice as many images as features.
        seed: of the draws.
        progressed: called after each block of features.

    Returns:
        the distance, and the standard error of the line there. Subsets share images, so that it is somewhat
        too small.
    """
    check("samples", features, 10)
    n, num_features = features.shape
    fewest = max(n // 10, min(n // 2, num_features + 1), 2)
    to_reference = _to(reference)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(fewest, n, points, dtype=torch.float64).long()
    distances = []
    for size in sizes.tolist():
        chosen = torch.zeros(n, dtype=torch.int64)
        chosen[torch.randperm(n, generator=generator)[:size]] = 1
        distances.append(to_reference(gaussian(features, chosen, progressed=progressed)))
        progressed()
    return line_at_zero(1 / sizes.double(), torch.tensor(distances, dtype=torch.float64))


def line_at_zero(x: Tensor, y: Tensor) -> Estimate:
    """Where a line through points, float64 [K] each, fitted by least squares, has x = 0."""
    centre, spread = x.mean(), (x - x.mean()).square().sum()
    slope = ((x - centre) * y).sum() / spread
    residuals = y - y.mean() - slope * (x - centre)
    variance = residuals.square().sum() / max(1, len(x) - 2)
    error = (variance * (1 / len(x) + centre.square() / spread)).sqrt()
    return Estimate((y.mean() - slope * centre).item(), error.item())
