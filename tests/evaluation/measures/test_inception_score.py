"""The Inception Score is the formula, and torch-fidelity's."""

import math

import pytest
import torch
from seeded_features import features
from torch import Tensor, nn
from torchmetrics.image.inception import InceptionScore

from ddpm.evaluation.measures.inception_score import inception_score

TORCH_FIDELITY = 3.251643679162727, 0.08165686036500339
"""torch-fidelity 0.4.0, isc_features_to_metric(features(3, 200, 10, scale=3.0), splits=5, shuffle=False)."""


class Given(nn.Module):
    """Stands for a network to torchmetrics: images are logits already."""

    num_features = 10

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_it_is_that_of_torch_fidelity_and_torchmetrics():
    logits = features(3, 200, 10, scale=3.0)
    found = inception_score(logits, splits=5)
    assert found == pytest.approx(TORCH_FIDELITY, rel=1e-10)
    theirs = InceptionScore(Given(), splits=1)
    theirs.update(logits)
    assert inception_score(logits, splits=1, seed=1).mean == pytest.approx(
        theirs.compute()[0].item(), rel=1e-4
    )


def test_certain_and_evenly_spread_is_the_number_of_classes():
    certain = 1000 * torch.eye(10, dtype=torch.float64).repeat(20, 1)
    assert inception_score(certain, splits=4) == pytest.approx((10, 0), abs=1e-9)


def test_it_is_one_where_every_image_looks_alike():
    assert inception_score(features(3, 1, 10).repeat(50, 1), splits=5) == pytest.approx((1, 0), abs=1e-12)


def test_a_permutation_changes_the_splits_alone():
    logits = features(3, 200, 10, scale=3.0)
    assert inception_score(logits, seed=1).mean != inception_score(logits).mean
    assert inception_score(logits, splits=1, seed=1).mean == pytest.approx(
        inception_score(logits, splits=1).mean
    )
    assert not math.isnan(inception_score(logits.float()).deviation)


def test_more_splits_than_images_are_refused():
    with pytest.raises(ValueError, match="samples: 9 images, and at least 10 are needed"):
        inception_score(features(3, 9, 10))
