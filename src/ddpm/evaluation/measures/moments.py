"""Mean and covariance of features that come a few at a time."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.evaluation.measures.rows import Progressed, blocks

MOST_FEATURES = 8192
"""A covariance of them takes half a gigabyte."""


class Gaussian(NamedTuple):
    """What a Frechet distance is taken of.

    Attributes:
        mean: float64 [D].
        covariance: float64 [D, D], symmetric, unbiased (divided by n - 1).
        n: how many images it is of; None where a file does not say.
    """

    mean: Tensor
    covariance: Tensor
    n: int | None = None


class Moments:
    """Sums over features, exact however they are divided (Chan et al. 1983).

    Args:
        num_features: D.
        device: that the sums are kept on.

    Raises:
        ValueError: for more features than a covariance is computed of.
    """

    def __init__(self, num_features: int, device: torch.device | str = "cpu"):
        if num_features > MOST_FEATURES:
            raise ValueError(
                f"images have {num_features:,} features, and a covariance is computed of at most "
                f"{MOST_FEATURES:,}; choose another extractor"
            )
        self.n = 0
        self.mean = torch.zeros(num_features, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(num_features, num_features, dtype=torch.float64, device=device)

    def add(
        self, features: Tensor, counts: Tensor | None = None, *, progressed: Progressed = lambda: None
    ) -> None:
        """Take in features [N, D] of any floating type.

        Args:
            features: a row for each image.
            counts: int64 [N], how often each image is there; None is once.
            progressed: called after each block.
        """
        for indices, rows in blocks(features):
            rows = rows.to(self.mean.device)
            if counts is None:
                count, mean = len(rows), rows.mean(0)
                centred = rows - mean
            else:
                some = counts[indices.start : indices.stop].to(rows.device)
                rows, some = rows[some > 0], some[some > 0].double()
                count = int(some.sum())
                if not count:
                    continue
                mean = some @ rows / count
                centred = (rows - mean).mul_(some.sqrt()[:, None])
            self.scatter.addmm_(centred.T, centred)
            self._move(count, mean)
            progressed()

    def merge(self, other: "Moments") -> None:
        """Take in what another has seen, on another device or rank."""
        if other.n:
            self.scatter.add_(other.scatter.to(self.scatter.device))
            self._move(other.n, other.mean.to(self.mean.device))

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance of all.

        Raises:
            ValueError: for fewer than two images.
        """
        if self.n < 2:
            raise ValueError(f"{self.n} images have no covariance; at least 2 are needed")
        covariance = self.scatter / (self.n - 1)
        return Gaussian(self.mean.clone(), (covariance + covariance.T) / 2, self.n)

    def _move(self, count: int, mean: Tensor) -> None:
        """Move the mean by more images, whose own scatter is in already."""
        total = self.n + count
        shift = mean - self.mean
        self.scatter.addr_(shift, shift, alpha=self.n * count / total)
        self.mean.add_(shift, alpha=count / total)
        self.n = total


def gaussian(
    features: Tensor, counts: Tensor | None = None, *, progressed: Progressed = lambda: None
) -> Gaussian:
    """Mean and covariance of features [N, D]; see `Moments`."""
    moments = Moments(features.shape[1], features.device)
    moments.add(features, counts, progressed=progressed)
    return moments.gaussian()
