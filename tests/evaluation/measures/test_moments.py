"""Streaming mean and covariance are those of all features at once."""

import numpy as np
import pytest
import torch
from seeded_features import features

from ddpm.evaluation.measures import moments, rows
from ddpm.evaluation.measures.moments import Moments, gaussian


def test_they_are_numpys():
    drawn = features(1, 200, 5, shift=3)
    found = gaussian(drawn)
    np.testing.assert_allclose(found.mean, drawn.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(drawn.numpy(), rowvar=False), rtol=1e-12)
    assert found.n == 200


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_parts_and_ranks_add_up_to_the_whole(shift: float):
    """Also where the mean is a million times the spread, which sums of squares do not survive."""
    drawn = features(1, 200, 5, shift=shift)
    whole, one, two = gaussian(drawn), Moments(5), Moments(5)
    for part in drawn[:130].split(7):
        one.add(part)
    two.add(drawn[130:])
    one.merge(two)
    one.merge(Moments(5))
    found = one.gaussian()
    torch.testing.assert_close(found.covariance, whole.covariance, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.mean, whole.mean, rtol=1e-12, atol=0)


def test_the_order_does_not_matter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "MOST_ROWS", 16)
    drawn = features(1, 200, 5)
    other = gaussian(drawn.flip(0))
    torch.testing.assert_close(other.covariance, gaussian(drawn).covariance, rtol=1e-12, atol=1e-14)


def test_counts_repeat_images():
    drawn = features(1, 50, 5)
    counts = torch.arange(50) % 3
    found, expected = gaussian(drawn, counts), gaussian(drawn.repeat_interleave(counts, 0))
    assert found.n == expected.n == int(counts.sum())
    torch.testing.assert_close(found.covariance, expected.covariance, rtol=1e-12, atol=1e-14)


def test_float32_features_are_summed_in_float64():
    drawn = features(1, 500, 5, shift=100).float()
    found = gaussian(drawn)
    assert found.covariance.dtype == torch.float64
    torch.testing.assert_close(found.covariance, gaussian(drawn.double()).covariance, rtol=0, atol=0)


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match="1 images have no covariance"):
        gaussian(torch.zeros(1, 3))


def test_too_many_features_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(moments, "MOST_FEATURES", 4)
    with pytest.raises(ValueError, match="5 features, and a covariance is computed of at most 4"):
        Moments(5)
