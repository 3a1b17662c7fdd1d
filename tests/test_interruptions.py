"""What failures cost: the simulation that the docs quote and the formula beside it agree."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.interruptions import DAY, Run, best, daly, lost, simulated, young

RUN = Run(nodes=1000, mtbf=250 * DAY, stop=1.2, write=20, restart=300)


@pytest.mark.parametrize("nodes", [1, 128, 1000, 10_000])
@pytest.mark.parametrize("interval", [60.0, 600.0, 7200.0])
def test_simulation_and_formula_agree(nodes: int, interval: float):
    run = replace(RUN, nodes=nodes)
    # the useful share is a mean over 200,000 lives; four standard errors of it, for the lost one
    assert simulated(run, interval) == pytest.approx(lost(run, interval), abs=0.01 * lost(run, interval))


def test_failures_one_by_one():
    """A run that is walked through event by event, without the formula for what a life keeps."""
    run, interval = replace(RUN, nodes=5000, write=45.0), 60.0
    random = np.random.default_rng(1)
    time = done = kept = 0.0
    failure = random.exponential(run.failure_every)
    pending: list[tuple[float, float]] = []  # when a write ends, and what is then kept
    while time < 5e6:
        back = time + run.restart  # interrupted, it begins again
        while failure < back:
            back = failure + run.restart
            failure += random.exponential(run.failure_every)
        time, done, pending = back, kept, []
        while time + interval + run.stop <= failure:
            time, done = time + interval + run.stop, done + interval
            pending.append((time + run.write, done))
        kept = max([kept, *(what for when, what in pending if when <= failure)])
        time, failure = failure, failure + random.exponential(run.failure_every)
    assert 1 - kept / time == pytest.approx(lost(run, interval), rel=0.02)


@pytest.mark.parametrize("nodes", [1, 8, 128, 1000, 100_000])
def test_the_best_interval_loses_least(nodes: int):
    run = replace(RUN, nodes=nodes)
    at = best(run)
    assert lost(run, at) < min(lost(run, 0.98 * at), lost(run, 1.02 * at))
    assert best(replace(run, restart=3000, write=0)) == at


def test_the_approximations_hold_where_a_stop_is_short_beside_what_is_between_failures():
    assert young(RUN) == pytest.approx(best(RUN), rel=0.02)
    assert daly(RUN) == pytest.approx(best(RUN), rel=1e-4)
    often = replace(RUN, nodes=100_000, stop=60.0)  # fails every 216 s
    assert daly(often) == pytest.approx(best(often), rel=0.02)
    assert not math.isclose(young(often), best(often), rel_tol=0.2)
    assert daly(replace(often, stop=500.0)) == often.failure_every


def test_writing_in_front_of_training_costs_more():
    in_front = replace(RUN, stop=RUN.stop + RUN.write, write=0.0)
    assert lost(in_front, best(in_front)) > 2 * lost(RUN, best(RUN))
