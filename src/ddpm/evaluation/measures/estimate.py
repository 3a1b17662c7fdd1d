"""A value, and how far another draw of the images would move it."""

from typing import NamedTuple

from scipy.special import ndtri


class Estimate(NamedTuple):
    """A value with its standard error; NaN where too little is known for one."""

    value: float
    standard_error: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where the value lies with this probability, if errors are Gaussian."""
        margin = float(ndtri((1 + level) / 2)) * self.standard_error
        return self.value - margin, self.value + margin
