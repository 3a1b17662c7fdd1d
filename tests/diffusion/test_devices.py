"""Training and sampling on a device without float64, for every option of `conf/`: as on the CPU."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, first_everyday
from hydra.utils import instantiate
from models import makes_sense
from mps import mps
from omegaconf import OmegaConf
from torch import Tensor

from ddpm.diffusion import Denoiser, Known, Parametrization, q_sample
from ddpm.diffusion.guidance import ClassifierFree
from ddpm.diffusion.likelihood import bound, some_steps
from ddpm.diffusion.objectives import Epsilon, V
from ddpm.diffusion.samplers import DDIM, DDIMInversion
from ddpm.diffusion.schedules import cosine, linear
from ddpm.diffusion.start import Between, FromImage
from ddpm.diffusion.variances import FixedLarge, Learned, LearnedRange
from ddpm.diffusion.weighting import Noised

BETAS = str(ROOT / "tests/diffusion/betas.csv")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in Path(ROOT / "conf" / group).glob("*.yaml"))


def option(group: str, name: str, **changes: Any) -> Any:
    node = OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")
    if OmegaConf.is_missing(node, "path"):
        node.path = BETAS
    return instantiate(node, **changes, _convert_="all")


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    shift = 0 if labels is None else labels.view(-1, 1, 1, 1) / 5
    return torch.tanh(0.8 * x_t.roll(1, -1) + t.view(-1, 1, 1, 1) / 100 + shift)


def noise_for(device: torch.device):
    return lambda index, like: drawn(index, *like.shape).to(device)


@pytest.mark.parametrize("objective", first_everyday(options("objective")))
@pytest.mark.parametrize("weighting", options("weighting"))
def test_losses_and_their_gradients(objective: str, weighting: str):
    """On every schedule, at the ends of the chain and within."""
    loss = option("weighting", weighting)
    examined = 0
    for schedule in options("schedule"):
        for variance in (Learned(), LearnedRange()) if loss.trains_variance else (FixedLarge(),):
            chain = option("schedule", schedule)
            parts = Parametrization(option("objective", objective), variance)
            if not makes_sense(chain, parts, loss):
                continue
            last = chain.num_timesteps - 1
            t = torch.tensor([0, 1, last // 2, last - 1, last])
            x_0, eps = (drawn(0, 5, 2, 3, 3).clamp(-1, 1) * 127.5).round() / 127.5, drawn(1, 5, 2, 3, 3)
            output = drawn(2, 5, 2 * (1 + variance.outputs), 3, 3)
            found = {}
            with mps() as gpu:
                for device in (torch.device("cpu"), gpu.device):
                    for name, parameter in list(getattr(loss, "_parameters", {}).items()):
                        loss._parameters[name] = parameter.detach().to(device).requires_grad_()
                    gpu.waits.clear()  # it is where it is trained before the first step
                    shown = [part.to(device) for part in (x_0, t, eps)]
                    said = output.detach().to(device).requires_grad_()
                    losses = loss.losses(parts, chain, Noised(*shown, q_sample(chain, *shown)), said)
                    losses.sum().backward()
                    waits = list(gpu.waits)
                    found[device.type] = losses.detach().cpu(), said.grad.cpu()
            assert not waits
            torch.testing.assert_close(found["cpu"], found[gpu.device.type], rtol=1e-5, atol=1e-7)
            examined += 1
    assert examined


@pytest.mark.parametrize("sampler", options("sampler"))
@pytest.mark.parametrize("objective", first_everyday(options("objective")))
@pytest.mark.parametrize("variance", options("variance"))
def test_sampling(sampler: str, objective: str, variance: str):
    """Guided, with known pixels, from a start below the end, and with what is seen on the way."""
    process = option("sampler", sampler, num_steps=7)
    said = option("variance", variance)
    parts = Parametrization(option("objective", objective), said)

    def doubled(x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.cat([network(x_t, t, labels)] * (1 + said.outputs), dim=1)

    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    found = {}
    with mps() as gpu:
        for device in (torch.device("cpu"), gpu.device):
            schedule, seen = linear(60), []
            denoiser = Denoiser(
                doubled,
                parts,
                labels=torch.tensor([0, 1, 2], device=device),
                guidance=ClassifierFree(3.0, rescale=0.7),
                known=Known(drawn(5, 1, 2, 3, 3).clamp(-1, 1).to(device), mask.to(device)),
            )
            end = process(
                denoiser,
                schedule,
                drawn(6, 3, 2, 3, 3).to(device),
                noise=noise_for(device),
                start=40,
                on_step=lambda t, x_t, x_0, seen=seen: seen.append((t, x_t)),
            )
            waits = list(gpu.waits)
            found[device.type] = end.cpu(), [(t, x_t.cpu()) for t, x_t in seen]
    assert not waits
    torch.testing.assert_close(found["cpu"], found[gpu.device.type], rtol=1e-5, atol=1e-5)


def test_encoding_and_starts():
    first, last = drawn(1, 2, 3, 3).clamp(-1, 1), drawn(2, 2, 3, 3).clamp(-1, 1)
    found = {}
    with mps() as gpu:
        for device in (torch.device("cpu"), gpu.device):

            def draw(indices: range, device: torch.device = device) -> Tensor:
                return torch.stack([drawn(i, 2, 3, 3) for i in indices]).to(device)

            schedule = linear(60)
            denoiser = Denoiser(network, Parametrization(V(), FixedLarge()))
            starts = [
                FromImage(first, 30).x_t(schedule, range(3), draw),
                Between(first, last, 30, 3).x_t(schedule, range(3), draw),
                DDIMInversion(5)(denoiser, schedule, draw(range(2)), start=30),
            ]
            found[device.type] = [x_t.cpu() for x_t in starts]
    torch.testing.assert_close(found["cpu"], found[gpu.device.type], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [None, 4])
def test_the_bound(count: int | None):
    x_0 = (drawn(0, 3, 2, 3, 3).clamp(-1, 1) * 127.5).round() / 127.5
    u = torch.rand(19, 3, generator=torch.Generator().manual_seed(0))
    found = {}
    with mps() as gpu:
        for device in (torch.device("cpu"), gpu.device):
            denoiser = Denoiser(network, Parametrization(Epsilon(), FixedLarge()))
            steps = None if count is None else some_steps(u.to(device), count)
            result = bound(denoiser, cosine(20), x_0.to(device), noise=noise_for(device), steps=steps)
            waits = list(gpu.waits)
            found[device.type] = [part.cpu() for part in result]
    assert not waits
    torch.testing.assert_close(found["cpu"], found[gpu.device.type], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("timesteps", options("timesteps"))
def test_timesteps(timesteps: str):
    u = torch.rand(64, generator=torch.Generator().manual_seed(0))
    on_cpu, chain = option("timesteps", timesteps), cosine(5)
    on_gpu = copy.deepcopy(on_cpu)
    with mps() as gpu:
        for _ in range(20):
            for each, device in ((on_cpu, torch.device("cpu")), (on_gpu, gpu.device)):
                t = each.draw(u[:16].to(device), chain, range(16), 16)
                each.observe(t, (1.0 + t) / 7, chain)
                weight = each.weight(t, chain)
        assert not gpu.waits
        assert weight.device == gpu.device
        found = [each.draw(u.to(device), chain) for each, device in ((on_cpu, "cpu"), (on_gpu, gpu.device))]
        assert torch.equal(found[0], found[1].cpu())


def test_guidance_with_an_interval():
    """It may wait: that saves half of the work."""
    with mps() as gpu:
        denoiser = Denoiser(
            network,
            Parametrization(V(), FixedLarge()),
            labels=torch.zeros(2, dtype=torch.int64, device=gpu.device),
            guidance=ClassifierFree(3.0, interval=[5, 30]),
        )
        end = DDIM(5)(denoiser, linear(60), drawn(6, 2, 2, 3, 3).to(gpu.device), noise=noise_for(gpu.device))
        assert set(gpu.waits) == {"aten::_local_scalar_dense"}
        assert end.device == gpu.device
