"""Ending a run after so much time, however often it was continued."""

from datetime import timedelta
from typing import Any

from lightning.pytorch.callbacks import Timer


class TimeLimit(Timer):
    """Ends this start of a run after a time; the next start has its whole time again.

    Lightning's own keeps the elapsed time in checkpoints: a continued run would end at once.

    Args:
        duration: "DD:HH:MM:SS", a timedelta, or its arguments as a dictionary, as for `trainer.max_time`.
    """

    def __init__(self, duration: str | timedelta | dict[str, int]):
        if not isinstance(duration, str | timedelta | dict):
            raise ValueError(
                f"{duration} must be DD:HH:MM:SS, or the arguments of a timedelta: {{minutes:90}}"
            )
        super().__init__(duration=duration, verbose=False)
        self.duration = str(timedelta(seconds=float(self._duration or 0)))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What an earlier start has used up is not counted."""


def is_over(timer: Timer) -> bool:
    """Whether the time is over; after the training, whether it was when the training ended."""
    left = timer.time_remaining()
    return left is not None and left <= 0
