"""Copies are found and named, and what is no copy is not."""

import pytest
import torch
from scipy.stats import mannwhitneyu
from seeded_features import features

from ddpm.evaluation.measures.memorisation import memorisation

TRAINING, HELD_OUT = features(1, 300), features(2, 100)


def test_new_images_are_cleared():
    found = memorisation(features(3, 200), TRAINING, HELD_OUT)
    assert found.copies == []
    assert found.false_copies == 0
    assert abs(found.z) < 3
    assert found.p_value > 0.001
    assert found.ratio == pytest.approx(1, abs=0.1)


def test_copies_are_named():
    of = torch.tensor([7, 3, 250])
    copies = TRAINING[of] + 0.01 * features(4, 3)
    found = memorisation(torch.cat([features(3, 20), copies]), TRAINING, HELD_OUT)
    assert found.copies == [(20, 7), (21, 3), (22, 250)]


def test_a_model_that_copies_is_flagged():
    chosen = torch.arange(200) % 16
    found = memorisation(TRAINING[chosen] + 0.02 * features(5, 200), TRAINING, HELD_OUT)
    assert found.z < -10
    assert found.p_value < 1e-20
    assert found.ratio < 0.1
    assert [j for _, j in found.copies] == chosen.tolist()


def test_a_model_that_fits_badly_is_no_copier():
    found = memorisation(features(3, 200, scale=2), TRAINING, HELD_OUT)
    assert found.z > 3
    assert found.ratio > 1.2


def test_duplicates_among_the_training_images_hide_nothing():
    training = torch.cat([TRAINING, TRAINING[:5], TRAINING[:5]])
    found = memorisation(TRAINING[:5] + 0.01 * features(4, 5), training, HELD_OUT)
    assert [(i, j % 300 % 5) for i, j in found.copies] == [(i, i) for i in range(5)]


@pytest.mark.parametrize("times", [9, 10, 12, 60])
@pytest.mark.parametrize("rounding", [0, 1e-8])
def test_an_image_that_is_there_many_times_hides_nothing(times: int, rounding: float):
    again = TRAINING[:1] * (1 + rounding * torch.arange(times, dtype=torch.float64))[:, None]
    training = torch.cat([TRAINING, again])
    samples = torch.cat([features(3, 20), TRAINING[:1] + 0.01 * features(4, 1)])
    ((sample, image),) = memorisation(samples, training, HELD_OUT).copies
    assert sample == 20
    assert image == 0 or image >= 300


def test_the_statistic_is_scipys():
    samples = features(3, 50)
    found = memorisation(samples, TRAINING, HELD_OUT)
    near = torch.cdist(samples, TRAINING).amin(1)
    own = torch.cdist(HELD_OUT, TRAINING).amin(1)
    torch.testing.assert_close(found.to_training, near)
    torch.testing.assert_close(found.held_out_to_training, own)
    torch.testing.assert_close(found.to_held_out, torch.cdist(samples, HELD_OUT).amin(1))
    u, p = mannwhitneyu(near, own, alternative="less", method="asymptotic")
    assert found.p_value == p
    assert found.z == pytest.approx((u - 2500) / (5000 * 151 / 12) ** 0.5)
    assert found.ratio == pytest.approx((near.median() / own.median()).item())
