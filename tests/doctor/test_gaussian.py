"""The algebra that the doctor's references are made of, on what can be worked out by hand."""

import math

import pytest
import torch

from ddpm.doctor.gaussian import CLEAN, Gaussian, Noising, probability_flow, standard

DATA = Gaussian(
    torch.tensor([0.3, -0.2], dtype=torch.float64),
    torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64),
)


def test_two_noising_steps_by_hand():
    noising = Noising(DATA, [0.36, 0.19])
    after = noising.marginal(1)  # kept: 0.8 and 0.9, so 0.72 of x_0 is left
    torch.testing.assert_close(after.mean, 0.72 * DATA.mean)
    expected = 0.72**2 * DATA.covariance + (1 - 0.72**2) * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(after.covariance, expected)
    assert noising.signal(1) == pytest.approx(0.72)
    assert noising.noise(1) == pytest.approx(math.sqrt(1 - 0.72**2))


def test_what_is_known_is_given_back():
    """x_1 given x_0 and x_2 of a random walk: between them, with what is left of the variance."""
    law = Noising(standard(1), [0.36, 0.19]).given(0, CLEAN, 1)
    # x_1 = 0.8 x_0 + 0.6 e, x_2 = 0.9 x_1 + sqrt(0.19) f: precisions 1 / 0.36 and 0.81 / 0.19 add up
    precision = 1 / 0.36 + 0.81 / 0.19
    assert float(law.covariance) == pytest.approx(1 / precision)
    assert float(law.gains[0]) == pytest.approx(0.8 / 0.36 / precision)
    assert float(law.gains[1]) == pytest.approx(0.9 / 0.19 / precision)
    one = torch.ones(1, 1, dtype=torch.float64)
    assert float(law.mean(one, one)) == pytest.approx((0.8 / 0.36 + 0.9 / 0.19) / precision)


def test_the_flow_moves_one_marginal_to_the_other_and_back():
    noising = Noising(DATA, [0.1, 0.2, 0.3])
    begin, end = noising.marginal(2), noising.marginal(CLEAN)
    points = torch.cat([begin.mean[None], begin.mean + torch.eye(2, dtype=torch.float64)])
    moved = probability_flow(begin, end, points)
    matrix = (moved[1:] - moved[0]).T
    torch.testing.assert_close(moved[0], end.mean)
    torch.testing.assert_close(matrix @ begin.covariance @ matrix.T, end.covariance)
    torch.testing.assert_close(probability_flow(end, begin, moved), points)
