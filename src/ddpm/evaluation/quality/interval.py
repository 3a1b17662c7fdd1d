"""How often measuring is worth its time."""

import itertools

ROUND = (1, 2, 5)
"""Times a power of ten: what an interval is multiplied by. Few factors make it depend little on how busy a
machine is."""


def stretched(every_n_steps: int, measurement: float, step: float, share: float | None) -> int:
    """Optimizer steps from one measurement to the next: as many as were asked for, or the first of 2, 5, 10,
    20, ... times as many that keeps measuring to its share of the training.

    Args:
        every_n_steps: that were asked for.
        measurement: seconds of one.
        step: seconds of an optimizer step.
        share: of the time of training that measuring may take; None for any.
    """
    if share is None or measurement <= 0:
        return every_n_steps
    factors = (factor * 10**power for power in itertools.count() for factor in ROUND)
    return next(
        every_n_steps * factor
        for factor in factors
        if measurement <= share * step * every_n_steps * factor or factor > 1e12
    )
