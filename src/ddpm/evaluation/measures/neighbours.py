"""Which features are nearest to which, in blocks."""

import torch
from torch import Tensor

from ddpm.evaluation.measures.rows import Progressed, blocks

BLOCK_BYTES = 1 << 24
"""Of a block of rows: two of them, and the distances between them, are held."""


ROUNDING = 1e-13
"""A squared distance is wrong by less than this share of the two squares that it is the difference of."""


def nearest(
    features: Tensor,
    among: Tensor,
    k: int = 1,
    *,
    leave_out_self: bool = False,
    progressed: Progressed = lambda: None,
) -> tuple[Tensor, Tensor]:
    """The k nearest of each.

    Args:
        features: [N, D].
        among: [M, D], those that may be near.
        k: how many, at most M.
        leave_out_self: `among` is the same set, and none is its own neighbour.
        progressed: called after each block.

    Returns:
        Euclidean distances, ascending, float64 [N, k], and the indices of the neighbours, int64 [N, k]; of
        equally near ones any.

    Raises:
        ValueError: where there are fewer.
    """
    if k > len(among) - leave_out_self:
        raise ValueError(f"{len(among)} images: {k} nearest neighbours need more")
    distances = torch.empty(len(features), k, dtype=torch.float64)
    indices = torch.empty(len(features), k, dtype=torch.int64)
    for rows, x in blocks(features, BLOCK_BYTES):
        best = torch.full((len(x), k), torch.inf, dtype=torch.float64, device=x.device)
        which = torch.zeros(len(x), k, dtype=torch.int64, device=x.device)
        for columns, y in blocks(among, BLOCK_BYTES):
            squared = squared_distances(x, y)
            if leave_out_self:
                squared.diagonal(rows.start - columns.start).fill_(torch.inf)
            found, at = squared.topk(min(k, len(y)), largest=False, sorted=False)
            best, order = torch.cat([best, found], 1).topk(k, largest=False)
            which = torch.cat([which, at + columns.start], 1).gather(1, order)
            progressed()
        # of equal features the difference above leaves a rounding error; theirs is 0
        exact = torch.stack([(x - among[which[:, i]].double()).norm(dim=1) for i in range(k)], 1)
        distances[rows.start : rows.stop] = exact.cpu()
        indices[rows.start : rows.stop] = which.cpu()
    return distances, indices


def radii(features: Tensor, k: int, *, progressed: Progressed = lambda: None) -> Tensor:
    """The distance of each to its k-th nearest of the same set, float64 [N]; see `nearest`."""
    return nearest(features, features, k, leave_out_self=True, progressed=progressed)[0][:, -1]


def balls_around(
    points: Tensor, centres: Tensor, radii: Tensor, *, progressed: Progressed = lambda: None
) -> Tensor:
    """In how many balls each point lies, on whose surface included: int64 [N].

    Args:
        points: [N, D].
        centres: [M, D].
        radii: float64 [M].
        progressed: called after each block.
    """
    counts = torch.zeros(len(points), dtype=torch.int64)
    for rows, x in blocks(points, BLOCK_BYTES):
        for columns, y in blocks(centres, BLOCK_BYTES):
            reach = radii[columns.start : columns.stop].to(x)
            squared, limit = squared_distances(x, y), reach.square()
            inside = squared <= limit
            # near a surface the rounding of `squared` decides; the difference itself, as of radii, is exact
            rounding = ROUNDING * (x.square().sum(1)[:, None] + y.square().sum(1))
            for i, j in (pairs.T for pairs in ((squared - limit).abs() <= rounding).nonzero().split(len(x))):
                inside[i, j] = (x[i] - y[j]).norm(dim=1) <= reach[j]
            counts[rows.start : rows.stop] += inside.sum(1).cpu()
            progressed()
    return counts


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Of float64 [N, D] and [M, D], float64 [N, M], at least 0."""
    squares = x.square().sum(1)[:, None] + y.square().sum(1)
    return squares.addmm_(x, y.T, alpha=-2).clamp_min_(0)
