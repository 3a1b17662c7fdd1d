"""Pictures of what happens on the way from noise to images: the figures 6 to 10 of Ho et al. 2020."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ddpm.sampling.figures import table

Arrays = Mapping[str, np.ndarray]
"""Of a row, as `ddpm.sampling.rows.Row.like` has them."""


def progressive(drawn: Arrays, steps: Sequence[int], captions: Sequence[str]) -> np.ndarray:
    """A row an image: the x_0 that was predicted at each step, and the image (Ho et al. 2020, figures 6 and
    10).

    Args:
        drawn: with the predicted x_0 of these steps as `way`.
        steps: in the order visited.
        captions: of the images; "" for none.

    Returns:
        uint8 [height, width, 3].
    """
    cells = np.concatenate([drawn["way"], drawn["images"][:, None]], axis=1)
    return table(_planes(cells), headings=[*(f"t = {t}" for t in steps), "x_0"], captions=captions)


def shared(rows: Sequence[Arrays], steps: Sequence[int]) -> np.ndarray:
    """A row a step: the x_t that its images share, and the images (Ho et al. 2020, figure 7).

    Args:
        rows: each with x_t at its step as `way`.
        steps: of the rows.

    Returns:
        uint8 [height, width, 3].
    """
    cells = np.stack([np.concatenate([row["way"][0], row["images"]]) for row in rows])
    headings = ["x_t", *[""] * len(rows[0]["images"])]
    return table(_planes(cells), headings=headings, captions=_named(steps))


def from_pictures(
    rows: Sequence[Arrays], steps: Sequence[int], first: Tensor, last: Tensor | None = None
) -> np.ndarray:
    """A row a step: the picture that was noised to it, and what was drawn from there; or what lies between
    two pictures (Ho et al. 2020, figures 8 and 9), under its share of the way.

    Args:
        rows: the images of each.
        steps: of the rows.
        first: where they start, uint8 [C, H, W].
        last: where they lead to, likewise; None for variations of the first.

    Returns:
        uint8 [height, width, 3].
    """
    ends = [_plain(picture)[None] for picture in (first, last) if picture is not None]
    cells = np.stack([np.concatenate([ends[0], row["images"], *ends[1:]]) for row in rows])
    n = len(rows[0]["images"])
    if last is None:
        headings = ["source", *[""] * n]
    else:
        headings = ["source", *(f"{i / (n - 1):.3g}" for i in range(n)), "source"]
    return table(_planes(cells), headings=headings, captions=_named(steps))


def _named(steps: Sequence[int]) -> list[str]:
    return [f"t = {t}" for t in steps]


def _plain(picture: Tensor) -> np.ndarray:
    """uint8 [H, W, C] of uint8 [C, H, W]."""
    return picture.movedim(0, -1).numpy()


def _planes(cells: np.ndarray) -> Tensor:
    """uint8 [..., C, H, W] of uint8 [..., H, W, C]."""
    return torch.from_numpy(cells).movedim(-1, -3)
