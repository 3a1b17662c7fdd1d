"""How certain a classifier is of each sample, and how many classes it sees in all of them."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.evaluation.measures.rows import check


class InceptionScore(NamedTuple):
    """Mean and standard deviation over the splits, as papers state it."""

    mean: float
    deviation: float


def inception_score(logits: Tensor, *, splits: int = 10, seed: int | None = None) -> InceptionScore:
    """exp of the mean divergence of p(class | image) from p(class) (Salimans et al. 2016, section 4).

    Args:
        logits: [N, K], before softmax.
        splits: sets of images, one after the other, that it is computed of.
        seed: of a permutation of the images before; None leaves them as they are.

    Raises:
        ValueError: where there are fewer images than splits.
    """
    check("samples", logits, splits)
    if seed is not None:
        order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
        logits = logits[order.to(logits.device)]
    bounds = [i * len(logits) // splits for i in range(splits + 1)]
    scores = torch.tensor([_score(logits[a:b].double()) for a, b in pairwise(bounds)], dtype=torch.float64)
    return InceptionScore(scores.mean().item(), scores.std(correction=0).item())


def _score(logits: Tensor) -> float:
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    marginal = p.mean(0).clamp_min(torch.finfo(torch.float64).tiny).log()
    return (p * (log_p - marginal)).sum(1).mean().exp().item()
