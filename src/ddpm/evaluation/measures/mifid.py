"""A Frechet distance that grows where samples are copies (Bai et al. 2021)."""

import torch
from torch import Tensor

from ddpm.evaluation.measures.frechet import frechet_distance
from ddpm.evaluation.measures.moments import gaussian
from ddpm.evaluation.measures.rows import blocks, check_both

FAR = 0.1
"""Mean cosine distance from which on nothing is taken for a copy."""


def mifid(samples: Tensor, reference: Tensor, *, far: float = FAR) -> float:
    """The Frechet distance, divided by the mean distance of samples to the nearest image of the reference
    where that is below `far`.

    Args:
        samples: [M, D].
        reference: [N, D], the images that were trained on.
        far: see above.
    """
    check_both(samples, reference, 2)
    distance = frechet_distance(gaussian(samples), gaussian(reference))
    if distance <= 1e-8:  # of a set to itself
        return 0.0
    near = mean_cosine_distance(samples, reference)
    return distance / (near + 1e-14) if near < far else distance


def mean_cosine_distance(samples: Tensor, reference: Tensor) -> float:
    """The mean over samples of the least 1 - |cos| to an image of the reference; features of zeros are left
    out.
    """
    least = []
    for _, x in blocks(samples):
        x = _directions(x)
        nearest = torch.ones(len(x), dtype=torch.float64, device=x.device)
        for _, y in blocks(reference):
            y = _directions(y)
            if len(y):
                nearest = torch.minimum(nearest, 1 - (x @ y.T).abs().amax(1))
        least.append(nearest)
    return torch.cat(least).mean().item()


def _directions(rows: Tensor) -> Tensor:
    lengths = rows.norm(dim=1)
    return rows[lengths > 0] / lengths[lengths > 0, None]
