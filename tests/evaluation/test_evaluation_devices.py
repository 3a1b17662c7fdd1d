"""Drawing and measuring a trained run on a device without float64: as on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, first_everyday
from hydra.utils import instantiate
from mps import draw_alike, mps
from omegaconf import OmegaConf
from torch import Tensor

import ddpm
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion import Known
from ddpm.diffusion.guidance import ClassifierFree
from ddpm.diffusion.samplers import DDIM
from ddpm.diffusion.start import FromImage
from ddpm.evaluation.nll import NLL
from ddpm.runtime.sharing import Sharing
from ddpm.sampling.batches import announced_sampling
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import sheet
from ddpm.training.module import DDPM

SAMPLERS = sorted(path.stem for path in (ROOT / "conf" / "sampler").glob("*.yaml"))


@pytest.fixture
def both(conditional_run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Does the same on both devices, with the same random numbers."""
    draw_alike(monkeypatch)

    def on_both(do: Callable[[DDPM], Any]) -> list[Any]:
        found = []
        with mps() as gpu:
            for device in (torch.device("cpu"), gpu.device):
                module = ddpm.load(conditional_run, device).module
                assert module.device == device
                found.append(do(module))
        return found

    return on_both


ROUNDING = {"heun_churn": 2e-3}
"""How far float32 is from float64 on one device after four steps, where that is more than 2e-4: fresh noise
raises what the network rounded.
"""


@pytest.mark.parametrize("name", first_everyday(SAMPLERS))
def test_every_sampler_draws_the_same(name: str, both: Callable[..., list[Any]]):
    """Guided, indices that are no neighbours, from noise."""
    sampler = instantiate(OmegaConf.load(ROOT / f"conf/sampler/{name}.yaml"), num_steps=4)

    def draw(module: DDPM) -> Tensor:
        return Drawing(module, sampler=sampler, guidance=ClassifierFree(2.0))([3, 20, 5]).cpu()

    cpu, gpu = both(draw)
    torch.testing.assert_close(gpu, cpu, rtol=1e-4, atol=ROUNDING.get(name, 1e-4))


@pytest.mark.slow
@pytest.mark.e2e
def test_batches_with_all_that_can_be_asked_for(both: Callable[..., list[Any]]):
    image = torch.linspace(-1, 1, 64).view(1, 8, 8)
    known = Known(image, torch.ones(1, 8, 8, dtype=torch.bool).tril())
    asked: list[dict[str, Any]] = [
        {"weights": "raw", "labels": [1, -1]},
        {"known": known, "sampler": DDIM(3)},
        {"start": FromImage(image, 20)},
    ]

    def draw(module: DDPM) -> list[Tensor]:
        drawn = [
            announced_sampling(Drawing(module, **settings), range(5), batch_size=2) for settings in asked
        ]
        assert all(images is not None and images.device.type == "cpu" for images in drawn)
        sheet(module, drawn[0])
        by_loader = module.predict_step([torch.arange(3), torch.tensor([2, 0, 1])], 0)
        return [*drawn, by_loader.cpu()]

    cpu, gpu = both(draw)
    torch.testing.assert_close(gpu, cpu, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_steps", first_everyday([5, None]))
def test_the_likelihood(num_steps: int | None, both: Callable[..., list[Any]], tmp_path: Path):
    data = ImageDataModule(Digits())

    def measure(module: DDPM) -> dict[str, Any]:
        with module.evaluating("ema"):
            sharing = Sharing(tmp_path / str(module.device))
            return NLL(num_steps, n=6)(
                module, data, seed=0, batch_size=4, directory=tmp_path, sharing=sharing
            )

    cpu, gpu = both(measure)
    for name in ("bits_per_dim", "standard_error", "prior", "middle", "decoder"):
        assert gpu[name] == pytest.approx(cpu[name], rel=1e-4)
    for one, other in zip(gpu["by_t"]["rmse"], cpu["by_t"]["rmse"], strict=True):
        assert (one is None) == (other is None)
        assert one is None or one == pytest.approx(other, rel=1e-3)
