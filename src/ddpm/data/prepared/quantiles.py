"""How large the images of a set were before they were resized, in a few numbers."""

import numpy as np

SHARES = (0.0, 0.05, 0.5, 0.95, 1.0)
"""Of the images, that are at most as large as each number says: the least of all, ..., the largest."""

MEDIAN = SHARES.index(0.5)


def quantiles(sizes: np.ndarray) -> dict[str, list[float]]:
    """Sizes that are there, below which these shares of all lie.

    Args:
        sizes: [N, 2], (height, width) of each image, N at least 1.

    Returns:
        height, width: in pixels.
        aspect: width by height, to three digits behind the point.
    """
    height, width = np.asarray(sizes, np.float64).T

    def chosen(numbers: np.ndarray) -> list[float]:
        return np.quantile(numbers, SHARES, method="inverted_cdf").tolist()

    return {
        "height": chosen(height),
        "width": chosen(width),
        "aspect": np.round(chosen(width / height), 3).tolist(),
    }
