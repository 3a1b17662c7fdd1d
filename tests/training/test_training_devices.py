"""Training on a device without float64, by Lightning's own loop: the same as on the CPU."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, first_everyday
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from models import small_unet
from mps import TYPE, draw_alike, mps
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ddpm.data import module as data_module
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.diffusion.samplers import DDIM
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.timesteps import LossSecondMoment, Stratified, Uniform
from ddpm.diffusion.variances import LearnedRange
from ddpm.diffusion.weighting import Hybrid
from ddpm.networks import UNet
from ddpm.networks.dit import DiT
from ddpm.training.callbacks.samples import SampleGrids
from ddpm.training.callbacks.scalars import TrainingRows
from ddpm.training.checkpoints import AtomicCheckpointIO
from ddpm.training.ema import EMA, NoAverage
from ddpm.training.loggers import MetricsCSV
from ddpm.training.lr_schedules import warmup
from ddpm.training.module import DDPM

CLASSES = ["a", "b", "c"]


class OneGPU(Accelerator):
    """What Lightning asks about a Mac's GPU."""

    def setup_device(self, device: torch.device) -> None:
        pass

    def teardown(self) -> None:
        pass

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> Any:
        return [torch.device(TYPE, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return TYPE


class Noisy:
    """A source of a few images with labels."""

    def read(self) -> DataSet:
        images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
        return DataSet(
            ImageSet(images[:30], np.arange(30) % 3), ImageSet(images[30:], np.arange(10) % 3), CLASSES
        )


@pytest.fixture
def same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers that are the same on both devices."""
    draw_alike(monkeypatch)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The speed of the machine is no matter here."""
    monkeypatch.setattr("ddpm.training.callbacks.scalars.matmul_peak", lambda device, precision: 1e9)


def unet(dropout: float = 0.0, **settings: Any) -> nn.Module:
    shape: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "norm_groups": 4}
    return UNet(1, 1, **shape, attention_levels=(1,), dropout=dropout, **settings)


def dit(**settings: Any) -> nn.Module:
    return DiT(1, 1, patch_size=2, width=16, depth=2, heads=2, **settings)


def make(network: Callable[..., nn.Module] = small_unet, **settings: Any) -> DDPM:
    torch.manual_seed(0)
    made = network()
    for parameter in made.parameters():  # nothing that begins at zero hides what is behind it
        nn.init.normal_(parameter, std=0.1)
    settings = {"optimizer": option("optimizer", "sgd"), "ema": partial(EMA, decay=0.9), **settings}
    return DDPM(made, linear(50), image_shape=(1, 8, 8), sampler=DDIM(4), **settings)


def option(group: str, name: str) -> Any:
    return instantiate(OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml"))


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def trainer_on(device: torch.device, directory: Path, **settings: Any) -> Trainer:
    place: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "plugins": [AtomicCheckpointIO()]}
    if device.type != "cpu":
        strategy = SingleDeviceStrategy(device, OneGPU(), checkpoint_io=AtomicCheckpointIO())
        place = {"strategy": strategy}
    directory.mkdir(exist_ok=True)
    callbacks = [TrainingRows(), *settings.pop("callbacks", ())]
    given = {
        "max_steps": 4,
        "gradient_clip_val": 1.0,
        "log_every_n_steps": 2,
        "val_check_interval": 4 * settings.get("accumulate_grad_batches", 1),
        "logger": [MetricsCSV(directory / "metrics.csv")],
        **settings,
    }
    return Trainer(
        **place,
        **given,
        callbacks=callbacks,
        default_root_dir=directory,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def weights_of(module: DDPM) -> list[Tensor]:
    averages = module.ema.state_dict().get("parameters", {}).values()
    return [weight.detach().cpu() for weight in (*module.network.parameters(), *averages)]


def trained(
    directory: Path,
    *,
    module: Callable[[], DDPM] = make,
    data: Callable[[], ImageDataModule] | None = None,
    loader: Callable[[], DataLoader[Any]] | None = None,
    trainer: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Train on both devices and compare weights, averages and losses."""
    found = {}
    for place in ("cpu", "gpu"):
        with mps() as gpu:
            device = torch.device("cpu") if place == "cpu" else gpu.device
            made, running = module(), trainer_on(device, directory / place, **trainer())
            if loader is not None:
                running.fit(made, loader(), loader())
            else:
                running.fit(made, datamodule=data() if data else ImageDataModule(Noisy(), 12, seed=1))
            assert made.device.type == "cpu" or place == "gpu"
            found[place] = weights_of(made), float(running.callback_metrics["val/loss"])
    torch.testing.assert_close(found["gpu"][0], found["cpu"][0], rtol=1e-4, atol=1e-5)
    assert found["gpu"][1] == pytest.approx(found["cpu"][1], rel=1e-4)


NETWORKS = {
    "unet of classes": partial(unet, num_classes=3),
    "unet": unet,
    "dit": dit,
    "dit of classes": partial(dit, num_classes=3),
}


@pytest.mark.usefixtures("same_numbers")
@pytest.mark.parametrize("network", first_everyday(NETWORKS))
@pytest.mark.parametrize("resident", [True, False])
def test_networks_and_data(network: str, resident: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The set on the device and off it, with all that is done to images and labels."""
    monkeypatch.setattr(data_module, "memory_of", lambda device: 1 << 30)
    conditional = "classes" in network
    changed = {"classes": CLASSES, "label_drop": 0.3} if conditional else {}

    def data() -> ImageDataModule:
        return ImageDataModule(
            Noisy(),
            12,
            horizontal_flip=True,
            dequantize=True,
            label_drop=0.3,
            device_share=0.25 if resident else 0.0,
            num_workers=0,
            seed=1,
        )

    trained(tmp_path, module=lambda: make(NETWORKS[network], **changed), data=data)


@pytest.mark.usefixtures("same_numbers")
@pytest.mark.parametrize(
    "timesteps", first_everyday([partial(LossSecondMoment, history=1), Uniform, Stratified])
)
@pytest.mark.parametrize("clip", first_everyday(["norm", "value"]))
def test_timesteps_and_clipping(timesteps: Any, clip: str, tmp_path: Path):
    def module() -> DDPM:
        network = partial(
            UNet,
            1,
            2,
            channels=8,
            multipliers=(1,),
            attention_levels=(),
            blocks=1,
            norm_groups=4,
            dropout=0.0,
        )
        return make(network, timesteps=timesteps(), variance=LearnedRange(), weighting=Hybrid())

    settings = {"accumulate_grad_batches": 2, "gradient_clip_algorithm": clip, "gradient_clip_val": 0.01}
    trained(tmp_path, module=module, trainer=lambda: dict(settings))


@pytest.mark.usefixtures("same_numbers")
@pytest.mark.parametrize("optimizer", first_everyday(options("optimizer")))
def test_optimizers(optimizer: str, tmp_path: Path):
    schedule = partial(warmup, warmup_steps=3)
    trained(
        tmp_path,
        module=lambda: make(optimizer=option("optimizer", optimizer), lr_schedule=schedule, ema=NoAverage),
    )


@pytest.mark.usefixtures("same_numbers")
def test_a_loader_of_somebodys_own(tmp_path: Path):
    images, labels = torch.rand(24, 1, 8, 8) * 2 - 1, torch.arange(24) % 3

    def loader() -> DataLoader[Any]:
        return DataLoader(TensorDataset(images, labels), batch_size=8)

    network = partial(unet, num_classes=3)
    trained(
        tmp_path,
        module=lambda: make(network, classes=CLASSES, label_drop=0.5),
        loader=loader,
    )


def test_what_a_run_does_beside(tmp_path: Path):
    """Grids of samples, numbers of the device's own, a checkpoint that is continued on the CPU."""

    def module() -> DDPM:
        network = partial(unet, num_classes=3, dropout=0.1)
        return make(network, classes=CLASSES, timesteps=LossSecondMoment(1))

    def data() -> ImageDataModule:
        return ImageDataModule(Noisy(), 12, seed=1)

    with mps() as gpu:
        on_gpu = module()
        grids = SampleGrids(DDIM(3), every_n_steps=2, n=5, final=True)
        trainer = trainer_on(gpu.device, tmp_path / "gpu", callbacks=[grids])
        trainer.fit(on_gpu, datamodule=data())
        assert len(list((tmp_path / "gpu/samples").iterdir())) == 2
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        expected = weights_of(on_gpu)
    on_cpu = module()
    trainer_on(torch.device("cpu"), tmp_path / "cpu").fit(
        on_cpu, datamodule=data(), ckpt_path=tmp_path / "last.ckpt"
    )
    torch.testing.assert_close(weights_of(on_cpu), expected)
