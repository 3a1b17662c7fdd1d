"""The stream of pictures: permutations that can be asked about any place."""

import tracemalloc

import numpy as np
import pytest
from conftest import first_everyday
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.random import draws, permutation


@given(seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 10**6), n=st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_every_picture_once_in_a_pass(seed: int, epoch: int, n: int):
    found = permutation(seed, epoch, n, np.arange(n))
    assert sorted(found.tolist()) == list(range(n))


@given(n=st.integers(1, 500), first=st.integers(0, 5000), count=st.integers(1, 700), cut=st.integers(0, 700))
@settings(max_examples=60, deadline=None)
def test_draws_can_be_taken_in_any_pieces(n: int, first: int, count: int, cut: int):
    cut = min(cut, count - 1)
    whole = draws(7, n, first, count)
    pieces = [draws(7, n, first, cut)] if cut else []
    pieces.append(draws(7, n, first + cut, count - cut))
    assert whole.tolist() == np.concatenate(pieces).tolist()


def test_a_batch_crosses_from_one_pass_into_the_next():
    stream = draws(0, 10, 0, 30).reshape(3, 10)
    assert all(sorted(row) == list(range(10)) for row in stream.tolist())
    assert draws(0, 10, 8, 4).tolist() == stream.ravel()[8:12].tolist()


def test_each_pass_has_a_permutation_of_its_own():
    stream = draws(5, 10, 0, 40).reshape(4, 10)
    for epoch, row in enumerate(stream):
        assert row.tolist() == permutation(5, epoch, 10, np.arange(10)).tolist()


def test_passes_and_seeds_differ():
    orders = {tuple(permutation(seed, epoch, 100, np.arange(100))) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("n", first_everyday([7, 10, 16]))
def test_every_picture_is_as_likely_at_every_place(n: int):
    """Chi-square of a table place x picture over 4,000 passes; its mean is n - 1 a row."""
    trials = 4000
    counts = np.zeros((n, n))
    for epoch in range(trials):
        counts[np.arange(n), permutation(3, epoch, n, np.arange(n))] += 1
    expected = trials / n
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = (n - 1) ** 2
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_neighbours_are_not_kept_together():
    """The steps between following pictures are as spread as those of a true shuffle: no pattern."""
    n = 10_007
    found = permutation(0, 0, n, np.arange(n))
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.05
    assert abs(np.abs(np.diff(found)).mean() / (n / 3) - 1) < 0.05


def test_a_place_among_a_billion_costs_no_more_than_one_among_ten():
    n = 10**9
    tracemalloc.start()
    found = draws(0, n, 3 * n - 32, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # the permutation itself would take gigabytes
    assert len(set(found.tolist())) == 64
    assert found.min() >= 0
    assert found.max() < n
