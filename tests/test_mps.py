"""The stand-in for MPS refuses what MPS refuses, and computes what it does not as the CPU does."""

import copy

import pytest
import torch
from mps import mps
from torch import Tensor, nn


def test_it_computes_what_the_cpu_computes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Dropout(0.0))
    x = torch.randn(3, 2, 5, 5)
    losses = {}
    for place in ("cpu", "gpu"):
        trained = copy.deepcopy(net)
        with mps() as gpu:
            device = torch.device("cpu") if place == "cpu" else gpu.device
            parameters = list(trained.parameters())
            trained.to(device)
            assert all(p is q for p, q in zip(parameters, trained.parameters(), strict=True))
            optimizer = torch.optim.AdamW(trained.parameters(), lr=0.1)
            losses[place] = []
            for _ in range(3):
                loss = trained(x.to(device)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses[place].append(loss.item())
    assert losses["gpu"] == pytest.approx(
        losses["cpu"], rel=1e-6
    )  # the optimizer takes parameters at once there
    assert losses["gpu"][2] < losses["gpu"][0]


def test_it_makes_tensors_in_every_way():
    with mps() as gpu:
        generator = torch.Generator(gpu.device)
        generator.manual_seed(1)
        made = [
            torch.zeros(3, device=gpu.device),
            torch.tensor([1.0, 2.0], device=gpu.device),
            torch.arange(4, device=gpu.device),
            torch.empty(2, device=gpu.device).uniform_(generator=generator),
            torch.ones(3).to(gpu.device),
            torch.ones(3, dtype=torch.float64).float().to(gpu.device),
            torch.zeros(2, 3, device=gpu.device)[1],
            torch.zeros_like(torch.ones(2, device=gpu.device)),
        ]
        assert {x.device for x in made} == {gpu.device}
        with torch.inference_mode():
            assert (made[0].view(3, 1) + 1).flatten().tolist() == [1, 1, 1]
        base = torch.zeros(4, device=gpu.device)
        base[1:3].add_(2)
        assert base.cpu().tolist() == [0, 2, 2, 0]


@pytest.mark.parametrize("make", [
    lambda x: x.double(),
    lambda x: torch.zeros(2, dtype=torch.float64, device=x.device),
    lambda x: torch.ones(2, dtype=torch.float64).to(x.device),
    lambda x: torch.arange(3, dtype=torch.float64, device=x.device),
    lambda x: x.double().cpu(),
])  # fmt: skip
def test_it_refuses_float64(make):
    with mps() as gpu, pytest.raises(TypeError, match="doesn't support float64"):
        make(torch.ones(2, device=gpu.device))


@pytest.mark.parametrize("operator", [
    torch.special.log_ndtr,
    torch.special.ndtri,
    lambda x: torch.linalg.eigh(x.outer(x)),
    lambda x: x.mode(),
])  # fmt: skip
def test_it_refuses_operators_that_mps_lacks(operator):
    for inference in (False, True):
        with mps() as gpu, torch.inference_mode(inference), pytest.raises(NotImplementedError, match="MPS"):
            operator(torch.rand(3, device=gpu.device))


@pytest.mark.parametrize("operator", [
    torch.special.erfcx, torch.erfc, torch.special.ndtr, torch.expm1, lambda x: x.cumsum(0),
    lambda x: torch.searchsorted(x, x), lambda x: torch.linalg.vector_norm(x), lambda x: x.sort().values,
    lambda x: x @ x, lambda x: nn.functional.scaled_dot_product_attention(*[x.view(1, 1, 1, 3)] * 3),
])  # fmt: skip
def test_it_admits_those_that_mps_has(operator):
    x = torch.rand(3)
    with mps() as gpu:
        found = operator(x.to(gpu.device))
        assert found.device == gpu.device
        torch.testing.assert_close(found.cpu(), operator(x))


def test_it_refuses_two_devices_in_one_operator():
    with mps() as gpu, pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device=gpu.device) + torch.ones(2)


def test_it_knows_when_the_host_waits():
    with mps() as gpu:
        x = torch.rand(3, device=gpu.device)
        y = torch.where(x > 0, x, 0).sum() + torch.ones(3).to(gpu.device).sum() * 2.0
        assert gpu.waits == []
        assert isinstance(y, Tensor)
        assert bool(y > 0)
        x.cpu()
        x[x > 2]
        assert len(gpu.waits) == 3


def test_nothing_of_it_is_left():
    generator = torch.Generator
    with mps():
        assert torch.Generator is not generator
    assert torch.Generator is generator
    assert not torch.accelerator.is_available()
