"""Layers start as the papers say."""

import pytest
import torch
from torch import nn

from ddpm.networks.initialisation import xavier, zero

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [
        (nn.Linear(200, 300), 200, 300),
        (nn.Conv2d(40, 60, 3), 9 * 40, 9 * 60),
        (nn.Conv2d(40, 60, 1, bias=False), 40, 60),
    ],
)
def test_weights_are_uniform_by_the_mean_of_the_fans(layer: nn.Module, fan_in: int, fan_out: int):
    xavier(layer)
    bound = (6 / (fan_in + fan_out)) ** 0.5
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert layer.weight.detach().var() == pytest.approx(2 / (fan_in + fan_out), rel=0.05)
    assert layer.bias is None or not layer.bias.any()


def test_normalisations_stay_as_they_are():
    norm = nn.GroupNorm(2, 4)
    xavier(norm)
    assert torch.equal(norm.weight, torch.ones(4))


def test_zero_is_weights_and_biases():
    layer = nn.Linear(3, 4)
    zero(layer)
    assert not any(parameter.any() for parameter in layer.parameters())
