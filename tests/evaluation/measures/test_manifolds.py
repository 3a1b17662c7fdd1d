"""Precision and recall, density and coverage are those of prdc and torch-fidelity."""

import math

import pytest
import torch
from seeded_features import features, reference, samples

from ddpm.evaluation.measures import rows
from ddpm.evaluation.measures.density_coverage import density_coverage
from ddpm.evaluation.measures.neighbours import balls_around, nearest, radii
from ddpm.evaluation.measures.precision_recall import precision_recall

PRDC = {
    3: (0.8833333333333333, 0.8275, 1.0677777777777777, 0.8525),
    5: (0.9466666666666667, 0.9075, 1.1273333333333333, 0.935),
}
"""prdc 0.2, compute_prdc(reference, samples, k): precision, recall, density, coverage. torch-fidelity 0.4.0
has 0.8833333253860474 and 0.8274999856948853 for k = 3.
"""


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("most_rows", [29, 2048])
def test_they_are_those_of_prdc(k: int, most_rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "MOST_ROWS", most_rows)
    one, two = samples(), reference()
    found = *precision_recall(one, two, k=k), *density_coverage(one, two, k=k)
    assert found == pytest.approx(PRDC[k], abs=1e-12)


def test_the_order_and_float32_do_not_matter():
    one, two = samples().float().flip(0), reference().float().roll(5, 0)
    assert (*precision_recall(one, two), *density_coverage(one, two, k=3)) == pytest.approx(PRDC[3], abs=1e-9)


def test_a_set_covers_itself():
    one = reference()
    assert precision_recall(one, one) == (1, 1)
    assert density_coverage(one, one).coverage == 1


def test_sets_that_are_apart_share_nothing():
    far = samples() + 100
    assert precision_recall(far, reference()) == (0, 0)
    assert density_coverage(far, reference()) == (0, 0)


def test_one_mode_alone_is_precise_and_covers_half():
    two = torch.cat([features(2, 200), features(3, 200) + 100])
    precision, recall = precision_recall(features(1, 200), two)
    assert precision > 0.7
    assert recall < 0.5


@pytest.mark.parametrize("most_rows", [7, 2048])
def test_neighbours_are_those_of_all_distances(most_rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "MOST_ROWS", most_rows)
    one, two = samples()[:50], reference()[:60]
    expected, indices = torch.cdist(one, two).sort(1)
    found, which = nearest(one, two, 4)
    torch.testing.assert_close(found, expected[:, :4])
    assert torch.equal(which, indices[:, :4])
    own = torch.cdist(one, one).sort(1).values
    torch.testing.assert_close(radii(one, 3), own[:, 3])


def test_the_distance_of_equal_features_is_zero():
    one = 1e3 + reference()
    assert nearest(one[:5], one)[0].tolist() == [[0.0]] * 5


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="samples: 3 images, and at least 4 are needed"):
        precision_recall(samples()[:3], reference())
    with pytest.raises(ValueError, match="5 images: 5 nearest neighbours need more"):
        density_coverage(samples(), reference()[:5])


def test_a_grid_is_known():
    """On a line of whole numbers the nearest is 1 away, the third 2."""
    line = torch.arange(10.0)[:, None]
    assert radii(line, 1).tolist() == [1] * 10
    assert radii(line, 3)[5].item() == 2
    assert not math.isnan(radii(line, 9).sum().item())


def test_a_surface_belongs_to_its_ball():
    """Of what is there twice the nearest other is at 0, and what is the same lies on that surface."""
    points = features(1, 50)
    twice = torch.cat([points, points])
    found = precision_recall(points, twice, k=1)
    assert found.precision == 1
    around = balls_around(points, twice, torch.zeros(100, dtype=torch.float64))
    assert around.tolist() == [2] * 50
