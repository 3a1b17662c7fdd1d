"""Some rows of features at a time, in float64."""

from collections.abc import Callable, Iterator

from torch import Tensor

BLOCK_BYTES = 1 << 25
"""Of a block of rows in float64."""

MOST_ROWS = 2048
"""Of a block: a number for each pair of rows of two of them is 32 MiB."""


Progressed = Callable[[], None]
"""Called now and then by what takes long, so that whoever waits for it knows that it goes on."""


def blocks(features: Tensor, bytes_: int = BLOCK_BYTES) -> Iterator[tuple[range, Tensor]]:
    """All rows of features [N, D], float64, with their indices."""
    n, d = features.shape
    size = max(1, min(MOST_ROWS, bytes_ // (8 * max(1, d))))
    for first in range(0, n, size):
        indices = range(first, min(first + size, n))
        yield indices, features[indices.start : indices.stop].double()


def check(name: str, features: Tensor, fewest: int = 1) -> None:
    """Refuse what is no set of features.

    Raises:
        ValueError: for another shape or type, fewer rows, NaN or infinity.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"{name}: features must be floating [N, D], not {features.dtype} {list(features.shape)}"
        )
    if len(features) < fewest:
        raise ValueError(f"{name}: {len(features)} images, and at least {fewest} are needed")
    if not all(bool(rows.isfinite().all()) for _, rows in blocks(features)):
        raise ValueError(f"{name}: features hold NaN or infinity")


def check_both(samples: Tensor, reference: Tensor, fewest: int = 1) -> None:
    """The same for two sets, which must have as many features.

    Raises:
        ValueError: also where they have not.
    """
    check("samples", samples, fewest)
    check("reference", reference, fewest)
    if samples.shape[1] != reference.shape[1]:
        raise ValueError(
            f"samples have {samples.shape[1]} features and the reference {reference.shape[1]}: they are of "
            "two extractors"
        )
