"""A Frechet distance that grows where samples are copies (Bai et al. 2021)."""

from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.evaluation.measures.frechet import FrechetTo, frechet_distance
from ddpm.evaluation.measures.moments import Gaussian, gaussian
from ddpm.evaluation.measures.rows import Progressed, blocks, check_both

FAR = 0.1
"""Mean cosine distance from which on nothing is taken for a copy."""

NOTHING = 1e-8
"""The Frechet distance of a set to itself is less."""


class MiFID(NamedTuple):
    """The distance, at least 0, and how near samples are to images of the reference, in [0, 1]."""

    distance: float
    mean_cosine_distance: float


def mifid(
    samples: Tensor,
    reference: Tensor,
    *,
    far: float = FAR,
    to_reference: Gaussian | FrechetTo | None = None,
    progressed: Progressed = lambda: None,
) -> MiFID:
    """The Frechet distance, divided by the mean distance of samples to the nearest image of the reference
    where that is below `far`.

    Args:
        samples: [M, D].
        reference: [N, D], the images that were trained on.
        far: see above.
        to_reference: what the Frechet distance is taken to, where more is known than these images.
        progressed: called after each block.
    """
    check_both(samples, reference, 2)
    if to_reference is None:
        to_reference = gaussian(reference, progressed=progressed)
    distance = frechet_distance(gaussian(samples, progressed=progressed), to_reference)
    near = mean_cosine_distance(samples, reference, progressed=progressed)
    if distance <= NOTHING:
        return MiFID(0.0, near)
    return MiFID(distance / (near + 1e-14) if near < far else distance, near)


def mean_cosine_distance(
    samples: Tensor, reference: Tensor, *, progressed: Progressed = lambda: None
) -> float:
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
            progressed()
        least.append(nearest)
    return torch.cat(least).mean().item()


def _directions(rows: Tensor) -> Tensor:
    lengths = rows.norm(dim=1)
    return rows[lengths > 0] / lengths[lengths > 0, None]
