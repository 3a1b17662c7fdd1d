"""The time left follows the speed of now."""

import re
from io import StringIO

import pytest
from conftest import patch_time
from rich.console import Console

from ddpm.runtime import progress
from ddpm.runtime.progress import Countdown, Pause


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    patch_time(monkeypatch, progress, monotonic=clock)
    return clock


def go(countdown: Countdown, clock: Clock, steps: int, seconds: float) -> None:
    for _ in range(steps):
        clock.now += seconds
        countdown.advance(countdown.done + 1)


def test_the_time_left_is_that_of_the_recent_speed(clock: Clock):
    with Countdown("training", 10_000) as countdown:
        assert countdown.left() == ""
        go(countdown, clock, 6000, 0.05)  # 20 steps a second
        assert countdown.left() == "3 min 20 s left"
        go(countdown, clock, 100, 2.0)  # another program took the cores
        assert countdown.left() == "2 h 10 min left"
        go(countdown, clock, 2400, 0.05)
        assert countdown.left() == "1 min 15 s left"


def test_a_single_slow_step_is_recent_too(clock: Clock):
    with Countdown("training", 10, done=2) as countdown:
        go(countdown, clock, 3, 300.0)
        assert countdown.left() == "25 min 0 s left"


def test_without_an_end_nothing_is_left(clock: Clock):
    with Countdown("training", -1) as countdown:
        go(countdown, clock, 10, 1.0)
        assert countdown.left() == ""


@pytest.mark.parametrize(("width", "is_said"), [(60, False), (80, False), (200, True)])
def test_a_narrow_terminal_keeps_the_steps_and_the_bar(
    width: int, is_said: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """What comes next is left out first."""
    out = StringIO()
    console = Console(width=width, force_terminal=True, file=out, color_system=None)
    monkeypatch.setattr(progress, "console", console)
    pauses = [Pause(name, 10) for name in ("validation", "checkpoint", "grid")]
    with Countdown("training", 2000, pauses=pauses) as countdown:
        go(countdown, clock, 3, 1.0)
        countdown.show(4, "loss 0.7882  259 images/s")
        countdown._bar.refresh()
        line = out.getvalue().splitlines()[-1]
    assert re.search("training [╺━ ]{9,} 4/2000 loss 0.7882", line)
    assert ("next validation 10, checkpoint 10, grid 10" in line) == is_said
