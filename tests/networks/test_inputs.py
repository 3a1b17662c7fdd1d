"""What a network is given in place of a step may be any number, and a whole one is the same as an integer."""

import pytest
import torch
from torch import nn

from ddpm.networks.dit import DiT
from ddpm.networks.unet import UNet

UNET = {
    "channels": 8,
    "multipliers": (1,),
    "blocks": 1,
    "attention_levels": (),
    "norm_groups": 4,
    "dropout": 0.0,
}


@pytest.mark.parametrize(
    "network",
    [UNet(1, 1, num_classes=2, **UNET), DiT(1, 1, num_classes=2, patch_size=4, width=16, depth=1, heads=2)],
    ids=["unet", "dit"],
)
def test_a_number_between_two_steps_is_told_from_both(network: nn.Module):
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 900])
    with torch.no_grad():
        of_steps = network(x, t)
        assert torch.equal(network(x, t.float()), of_steps)
        assert torch.equal(network(x, t.double()), of_steps)
        between = network(x, t + 0.25)
        assert (between - of_steps).abs().amax((1, 2, 3)).gt(1e-6).all()
        assert network(x, torch.tensor([-1.55, 1.1])).isfinite().all()  # of EDM, at both ends
