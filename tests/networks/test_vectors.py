"""Networks that are conditioned on a vector of numbers."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from ddpm.networks import DiT, UNet

MAKE: dict[str, Callable[..., nn.Module]] = {
    "unet": partial(UNet, channels=16, multipliers=(1, 1), blocks=1, norm_groups=8, attention_levels=()),
    "dit": partial(DiT, width=32, depth=1, heads=2),
}


@pytest.mark.parametrize("name", MAKE)
def test_a_vector_is_added_to_the_time_and_zeros_add_nothing(name: str):
    torch.manual_seed(0)
    network = MAKE[name](2, 1, vector_size=3).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(4, 2, 8, 8), torch.arange(4)
    without = network(x, t)
    assert without.shape == (4, 1, 8, 8)
    assert torch.equal(network(x, t, vector=torch.zeros(4, 3)), without)
    shown = network(x, t, vector=torch.eye(4)[:, :3])
    changed = (shown - without).abs().amax((1, 2, 3)) > 1e-4
    assert changed.tolist() == [True, True, True, False]


@pytest.mark.parametrize("name", MAKE)
def test_a_network_without_one_is_as_it_was_and_takes_none(name: str):
    plain, other = MAKE[name](1, 1), MAKE[name](1, 1, vector_size=3)
    assert {*other.state_dict()} - {*plain.state_dict()} == {"vector.weight"}
    x, t = torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="built without vector_size, so it takes none"):
        plain(x, t, vector=torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"vector: is \[2, 4\], and this network takes \[B, 3\]"):
        other(x, t, vector=torch.zeros(2, 4))
