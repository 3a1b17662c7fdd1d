"""Spikes of the training loss: rows far above those before them."""

import math
from collections import deque
from statistics import median
from typing import Any

RECENT = 20
"""Rows that a row is compared with."""

FEWEST = 10
"""Rows that must have been seen before one can be a spike."""

SPREADS = 6.0
"""Above the median, from which on a row is a spike."""

LEAST_SPREAD = 0.05
"""Of the median: rows that hardly differ do not make a spike of a small step."""


class LossSpikes:
    """Compares each row's loss with the rows before it.

    A row is a spike where loss > median + 6 spread, the median that of the last 20 rows and the spread the
    larger of 1.4826 times their median absolute deviation, which is the standard deviation of Gaussian
    numbers, and a twentieth of the median. A spike joins the recent rows like any other, so that a loss that
    stays high is marked for ten rows at most.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)

    def ratio(self, loss: float) -> float | None:
        """How many times the median the loss of the next row is, where it is a spike; else None. Of losses
        around 0 or below, which a weighting that learns has, 1 and how far it is above the median in sizes of
        that, or in deviations where these are larger.
        """
        if not math.isfinite(loss):
            return None
        found = None
        if len(self._recent) >= FEWEST:
            middle = median(self._recent)
            deviation = 1.4826 * median(abs(one - middle) for one in self._recent)
            if loss > middle + SPREADS * max(deviation, LEAST_SPREAD * abs(middle)):
                size = max(abs(middle), deviation)
                found = 1 + (loss - middle) / size if size else math.inf
        self._recent.append(loss)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers for a checkpoint."""
        return {"recent": list(self._recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._recent = deque(state.get("recent", ()), maxlen=RECENT)
