"""The Frechet distance is that of the formula, of other libraries, and without bias at infinity."""

import logging

import pytest
import torch
from seeded_features import features, reference, samples
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

from ddpm.evaluation.measures.frechet import (
    _say_singular,
    bootstrapped,
    extrapolated,
    frechet_distance,
    line_at_zero,
)
from ddpm.evaluation.measures.mifid import mifid
from ddpm.evaluation.measures.moments import Gaussian, gaussian

TORCH_FIDELITY = 0.632675276655835
"""torch-fidelity 0.4.0, fid_statistics_to_metric, of `samples` and `reference`; pytorch-fid 0.3.0:
0.6326752766558243.
"""


class Given(nn.Module):
    """Stands for a network to torchmetrics: images are features already."""

    num_features = 16

    def forward(self, x: Tensor) -> Tensor:
        return x


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(features(9, size, size)).Q


def of(mean: list[float], covariance: Tensor) -> Gaussian:
    return Gaussian(torch.tensor(mean, dtype=torch.float64), covariance.double())


def test_one_dimension():
    """(m_1 - m_2)^2 + (s_1 - s_2)^2."""
    one, two = of([1.0], torch.tensor([[4.0]])), of([4.0], torch.tensor([[0.25]]))
    assert frechet_distance(one, two) == pytest.approx(9 + 1.5**2, rel=1e-13)


def test_covariances_that_commute():
    """|m_1 - m_2|^2 + sum (s_i - r_i)^2 along their common axes."""
    axes = rotation(4)
    s, r = torch.tensor([3.0, 2.0, 1.0, 0.0]).double(), torch.tensor([1.0, 0.0, 5.0, 0.0]).double()
    one = of([0.0, 1, 2, 3], axes @ torch.diag(s**2) @ axes.T)
    two = of([1.0, 1, 2, 5], axes @ torch.diag(r**2) @ axes.T)
    assert frechet_distance(one, two) == pytest.approx(5 + float((s - r).square().sum()), rel=1e-12)


def test_it_is_symmetric_and_nothing_to_itself():
    one, two = gaussian(samples()), gaussian(reference())
    assert frechet_distance(one, two) == pytest.approx(frechet_distance(two, one), rel=1e-12)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)


def test_singular_covariances_are_computed_and_said(caplog: pytest.LogCaptureFixture):
    _say_singular.cache_clear()
    few = gaussian(features(1, 10))
    with caplog.at_level(logging.WARNING):
        found = [frechet_distance(few, few) for _ in range(2)][1]
    assert found == pytest.approx(0, abs=1e-6)
    assert len(caplog.records) == 2
    assert "10 images for samples and 16 features: the covariance is singular" in caplog.text
    caplog.clear()
    frechet_distance(gaussian(features(1, 16)), gaussian(features(2, 17)))
    assert len(caplog.records) == 1
    caplog.clear()
    frechet_distance(gaussian(features(1, 17)), gaussian(features(2, 17)))
    assert not caplog.records


def test_a_singular_covariance_has_the_limit_of_others():
    """As 1e-9 on the diagonal does, but for its own share."""
    few, many = gaussian(features(1, 10)), gaussian(reference())
    nearly = few._replace(covariance=few.covariance + 1e-9 * torch.eye(16))
    assert frechet_distance(few, many) == pytest.approx(frechet_distance(nearly, many), abs=1e-3)


def test_it_is_that_of_torch_fidelity_and_torchmetrics():
    one, two = samples(), reference()
    found = frechet_distance(gaussian(one), gaussian(two))
    assert found == pytest.approx(TORCH_FIDELITY, rel=1e-10)
    theirs = FrechetInceptionDistance(Given(), input_img_size=(1, 4, 4)).set_dtype(torch.float64)
    theirs.update(one, real=False)
    theirs.update(two, real=True)
    assert found == pytest.approx(theirs.compute().item(), rel=1e-4)


def test_float32_features_change_it_by_little():
    found = frechet_distance(gaussian(samples().float()), gaussian(reference().float()))
    assert found == pytest.approx(TORCH_FIDELITY, rel=1e-6)


def test_other_features_are_refused():
    with pytest.raises(ValueError, match="samples have 3 features and the reference 16"):
        frechet_distance(gaussian(samples()[:, :3]), gaussian(reference()))


def test_the_bootstrap_knows_how_far_other_samples_would_move_it():
    to = gaussian(features(2, 4000))
    found, _ = bootstrapped(features(1, 300, shift=0.3), to, replicates=40)
    others = [frechet_distance(gaussian(features(20 + i, 300, shift=0.3)), to) for i in range(40)]
    spread = torch.tensor(others).std().item()
    assert found.value == frechet_distance(gaussian(features(1, 300, shift=0.3)), to)
    assert 0.6 < found.standard_error / spread < 1.6
    low, high = found.interval()
    assert high - found.value == pytest.approx(1.96 * found.standard_error, rel=1e-3)
    assert low < found.value < high


def test_the_extrapolation_has_less_bias_than_the_distance():
    """Of samples from the reference itself the distance is 0."""
    to = Gaussian(*gaussian(features(2, 50_000))[:2])
    finite, infinite = [], []
    for i in range(5):
        drawn = features(40 + i, 400)
        finite.append(frechet_distance(gaussian(drawn), to))
        infinite.append(extrapolated(drawn, to).value)
    bias = sum(finite) / 5
    assert bias > 0.02
    assert abs(sum(infinite) / 5) < bias / 4


def test_a_line_is_found():
    x = torch.linspace(1, 2, 5).double()
    found = line_at_zero(x, 3 - 2 * x)
    assert found.value == pytest.approx(3)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_its_error_is_that_of_least_squares():
    """As numpy's covariance of a fit."""
    import numpy as np

    x, y = torch.linspace(1, 2, 9).double(), features(5, 9, 1)[:, 0]
    (_, constant), covariance = np.polyfit(x.numpy(), y.numpy(), 1, cov="unscaled")
    residuals = np.polyval([_, constant], x.numpy()) - y.numpy()
    expected = (covariance[1, 1] * (residuals**2).sum() / 7) ** 0.5
    assert line_at_zero(x, y).standard_error == pytest.approx(expected)


@pytest.mark.parametrize("noise", [1.0, 0.01])
def test_mifid_is_that_of_torchmetrics(noise: float):
    """Far from the reference, and so near that it counts as copied. torchmetrics asks how near real images
    are to samples where the paper asks the opposite: they change places.
    """
    two = reference()
    one = two[:300] + noise * samples()
    theirs = MemorizationInformedFrechetInceptionDistance(Given())
    theirs.update(one, real=True)
    theirs.update(two, real=False)
    assert mifid(one, two).distance == pytest.approx(theirs.compute().item(), rel=1e-4)


def test_mifid_takes_the_distance_to_what_is_known_of_more_images():
    one, two = samples(), reference()
    more = gaussian(features(8, 900))
    assert mifid(one, two, to_reference=more).distance == frechet_distance(gaussian(one), more)
    assert mifid(one, two).distance == frechet_distance(gaussian(one), gaussian(two))


def test_copies_cost_in_mifid():
    two = reference()
    near = two[:300] * 1.05
    far = frechet_distance(gaussian(near), gaussian(two))
    assert mifid(near, two).distance > 10 * far
    assert mifid(two, two).distance == 0
