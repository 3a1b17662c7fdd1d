"""The time left of a training is near the truth, by a clock that the test sets."""

from collections.abc import Callable

import pytest
from conftest import patch_time

from ddpm.runtime import progress
from ddpm.runtime.progress import Countdown, Pause

STEPS = 4000


class Simulated:
    """A training whose steps and pauses take known time."""

    def __init__(self, seconds_a_step: Callable[[int], float], last: float = 0.0):
        self.now = 50.0
        self.each = seconds_a_step
        self.costs = {"validation": 25.0, "grid": 60.0, "checkpoint": 4.0}  # in steps
        self.last = last

    def pauses(self, known: bool) -> list[Pause]:
        every = {"validation": 500, "grid": 1000, "checkpoint": 1000}
        return [
            Pause(
                name,
                every[name],
                self.costs[name] if known else 0.0,
                self.last if self.last and name == "grid" else None,
            )
            for name in every
        ]

    def said(self, countdown: Countdown) -> tuple[list[float | None], list[float]]:
        """What is said to be left after each step, before its pauses, and when that was."""
        left, at = [], []
        for step in range(1, countdown.total + 1):
            self.now += self.each(step)
            countdown.show(step)
            left.append(countdown.seconds_left())
            at.append(self.now)
            for pause in countdown.pauses:
                if pause.at_end is not None and step == countdown.total:
                    continue  # the last one is another
                if pause.every_n_steps is not None and step % pause.every_n_steps == 0:
                    self.now += self.costs[pause.name] * self.each(step)
            countdown.measure(step)
        self.now += self.last * self.each(countdown.total)
        return left, at


def errors(simulated: Simulated, monkeypatch: pytest.MonkeyPatch, known: bool = True) -> list[float]:
    """By step from 0, how far what was said is from the truth, as a share of it."""
    patch_time(monkeypatch, progress, monotonic=lambda: simulated.now)
    with Countdown("training", STEPS, pauses=simulated.pauses(known)) as countdown:
        left, at = simulated.said(countdown)
    end = simulated.now
    return [
        abs((said or 0.0) - (end - now)) / max(end - now, 1e-9) for said, now in zip(left, at, strict=True)
    ]


@pytest.mark.parametrize("last", [0.0, 300.0])
@pytest.mark.parametrize("each", [0.004, 0.06, 3.0])
def test_from_a_tenth_of_the_run_on_it_is_within_a_fifth(
    each: float, last: float, monkeypatch: pytest.MonkeyPatch
):
    found = errors(Simulated(lambda step: each, last), monkeypatch)
    assert max(found[STEPS // 10 : -40]) < 0.2


@pytest.mark.parametrize("when", [1000, 1990, 2500])
def test_soon_after_the_machine_has_become_half_as_fast_it_is_right_again(
    when: int, monkeypatch: pytest.MonkeyPatch
):
    simulated = Simulated(lambda step: 0.06 if step <= when else 0.12)
    found = errors(simulated, monkeypatch)
    soon = when + round(progress.RECENT / 0.12)
    assert max(found[soon:-40]) < 0.2
    assert found[when - 10] > 0.3  # nobody can know what is to come


def test_pauses_that_nobody_knew_the_cost_of_are_known_once_they_have_come(monkeypatch: pytest.MonkeyPatch):
    found = errors(Simulated(lambda step: 0.06), monkeypatch, known=False)
    assert max(found[1001:-40]) < 0.05


def test_pauses_do_not_slow_the_steps_down(monkeypatch: pytest.MonkeyPatch):
    """A grid of a minute among steps of a twentieth of a second: what is left does not jump behind it."""
    simulated = Simulated(lambda step: 0.05)
    simulated.costs["grid"] = 1200.0
    found = errors(simulated, monkeypatch)
    assert max(found[400:-40]) < 0.05


def test_what_comes_next_is_named_as_far_as_it_comes():
    pauses = [Pause("validation", 500), Pause("grid", 10_000, at_end=5.0), Pause("checkpoint", 3000)]
    assert Countdown("training", 4000, 700, pauses).coming() == "next validation 1,000, checkpoint 3,000"
    assert Countdown("training", -1, 9999, pauses).coming() == (
        "next validation 10,000, grid 10,000, checkpoint 12,000"
    )
    assert Countdown("training", 4000).coming() == ""
