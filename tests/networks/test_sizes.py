"""The sizes in conf/model are those of the papers, to the last parameter. Nothing is allocated."""

from pathlib import Path

import pytest
import torch
from conftest import composed
from torch import nn

from ddpm import targets
from ddpm.app.groups import SWITCHES

CONF = Path(__file__).parents[2] / "conf" / "model"
COUNTS = {
    "smoke": 177_427,
    "tiny": 702_499,
    "small": 6_803_715,
    "unet": 35_746_307,
    "cifar10": 35_746_307,
    "cifar10_improved": 52_546_438,
    "lsun": 113_673_219,
    "adm64": 295_904_454,
    "dit": 675_129_632,
    "dit_s": 32_963_360,
    "dit_b": 130_512_416,
    "dit_l": 458_102_816,
    "dit_xl": 675_129_632,
    "jit_b": 130_690_560,
    "jit_l": 458_340_096,
}
LEARNED_SIGMA = {"cifar10_improved", "adm64", "dit", "dit_s", "dit_b", "dit_l", "dit_xl"}
CONDITIONAL = {"adm64", "dit", "dit_s", "dit_b", "dit_l", "dit_xl"}
POSITIONS = 16 * 16
"""Patches of a latent of 32x32. The papers count the fixed position embedding, which ours computes."""


def build(name: str) -> nn.Module:
    channels = 4 if name.startswith("dit") else 3
    with torch.device("meta"):
        node = composed("train", f"model={name}")["model"]
        network: nn.Module = targets.build(
            "model",
            {key: value for key, value in node.items() if key not in SWITCHES["model"]},
            in_channels=channels,
            out_channels=channels * (2 if name in LEARNED_SIGMA else 1),
            num_classes=1000 if name in CONDITIONAL else None,
        )
        return network


def test_every_size_is_counted() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(COUNTS)


@pytest.mark.e2e
@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name: str) -> None:
    network = build(name)
    count = sum(parameter.numel() for parameter in network.parameters())
    if name.startswith("dit"):
        count += POSITIONS * network.width
    assert count == COUNTS[name]
    stated = (CONF / f"{name}.yaml").read_text().partition("\n\n")[0]
    assert f"{count:,}" in stated or name in ("unet", "dit", "smoke", "tiny", "small")


@pytest.mark.e2e
@pytest.mark.parametrize("name", COUNTS)
def test_size_multiple_is_what_the_network_needs(name: str) -> None:
    network = build(name)
    channels = 4 if name.startswith("dit") else 3
    height, width = network.size_multiple, 2 * network.size_multiple
    x = torch.empty(2, channels, height, width, device="meta")
    output = network(x, torch.zeros(2, dtype=torch.int64, device="meta"))
    assert output.shape == (2, channels * (2 if name in LEARNED_SIGMA else 1), height, width)
