"""What training shows: each picture where it belongs, in files and loggers; the training stays as it is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import wandb_records
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from models import make_module, make_trainer
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from ddpm.data.batches import Batch
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.samplers import DDIM
from ddpm.diffusion.schedules import constant
from ddpm.evaluation.nearest_images import NearestImages
from ddpm.sampling.figures import grid, to_uint8, with_condition
from ddpm.training.callbacks.at_start import AtStart
from ddpm.training.callbacks.data_images import DataImages
from ddpm.training.callbacks.denoising import Denoising
from ddpm.training.callbacks.forward_process import ForwardProcess
from ddpm.training.callbacks.loss_by_timestep import LossByTimestep
from ddpm.training.callbacks.samples import SampleGrids
from ddpm.training.callbacks.schedule_figure import ScheduleFigure
from ddpm.training.module import DDPM


class Shows(Logger):
    """Keeps what it is given; refuses what it is told to."""

    name = version = "shows"

    def __init__(self, refuses: bool = False) -> None:
        super().__init__()
        self.shown: list[tuple[str, int, str]] = []
        self.refuses = refuses

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_image(self, key: str, images: list[Any], step: int, caption: list[str]) -> None:
        if self.refuses:
            raise RuntimeError("no room")
        self.shown.append((key, step, caption[0]))

    log_video = log_image


ONE_STEP = constant(1, beta=5e-4)


def everything(every_n_steps: int = 2) -> list[Callback]:
    return [
        SampleGrids(DDIM(3), every_n_steps=every_n_steps, n=4, final=False, raw=1),
        DataImages(),
        ForwardProcess(),
        ScheduleFigure(),
        LossByTimestep(every_n_steps),
        Denoising(n=4, num_steps=4, frames=2),
        NearestImages(n=4, k=2, among=100),
    ]


def trained(directory: Path, *callbacks: Callback, logger: Logger | None = None, steps: int = 4) -> DDPM:
    module, trainer = make_module(), make_trainer(directory, steps, *callbacks)
    if logger is not None:
        trainer.loggers = [logger]
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    return module


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*.*") if path.is_file())


FIGURES = [
    "figures/denoising.png", "figures/denoising_film.gif", "figures/forward.png", "figures/images.png",
    "figures/loss_by_timestep.png", "figures/nearest.png", "figures/over_t.png",
]  # fmt: skip
GRIDS = [f"samples/{name}.png" for name in ("raw_step_00000002", "step_00000002", "step_00000004")]


@pytest.mark.e2e
def test_every_picture_is_shown_once_where_it_belongs_and_training_stays_as_it_is(tmp_path: Path):
    logger = Shows()
    shown = trained(tmp_path, *everything(), logger=logger).state_dict()
    plain = trained(tmp_path / "plain").state_dict()
    assert all(torch.equal(shown[name], plain[name]) for name in plain)
    assert sorted((key, step) for key, step, _ in logger.shown) == [
        ("data/forward", 0),
        ("data/images", 0),
        ("diagnostics/loss_by_timestep", 2),
        ("diagnostics/loss_by_timestep", 4),
        ("samples/denoising", 4),
        ("samples/denoising_film", 4),
        ("samples/grid", 2),
        ("samples/grid", 4),
        ("samples/grid_raw", 2),
        ("samples/nearest", 4),
        ("schedule/over_t", 0),
    ]
    said = {(key, step): caption for key, step, caption in logger.shown}
    assert said["samples/grid", 2] == "step 2: averaged weights, DDIM, 3 steps"
    assert said["samples/grid_raw", 2] == "step 2: raw weights, DDIM, 3 steps"
    assert "4 samples of the grid, and the 2 nearest of 100 of 1,437 training" in said["samples/nearest", 4]
    assert files(tmp_path) == [*FIGURES, *GRIDS]
    assert Image.open(tmp_path / "figures" / "denoising_film.gif").n_frames == 3
    average, raw = (np.asarray(Image.open(tmp_path / name)) for name in (GRIDS[1], GRIDS[0]))
    assert not np.array_equal(average, raw)


@pytest.mark.e2e
def test_of_a_chain_of_one_step_there_are_files_also_where_a_logger_refuses_every_picture(tmp_path: Path):
    module = make_module()
    module.schedule = ONE_STEP
    trainer = make_trainer(tmp_path, 1, ForwardProcess(), ScheduleFigure(), Denoising(n=1))
    trainer.loggers = [Shows(refuses=True)]
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    assert files(tmp_path) == [*FIGURES[:3], FIGURES[-1]]


@pytest.mark.e2e
def test_images_of_other_channels_are_shown_with_their_channels_side_by_side(tmp_path: Path):
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(4, 4, 1)

        def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.layer(x_t)

    module = DDPM(Wide(), ONE_STEP, image_shape=(4, 8, 8), sampler=DDIM(1))
    loader = DataLoader(torch.zeros(4, 4, 8, 8), batch_size=2)  # type: ignore[arg-type]
    make_trainer(tmp_path, 2, DataImages(n=4), SampleGrids(DDIM(1), n=4)).fit(module, loader)
    assert files(tmp_path) == ["figures/images.png", "samples/step_00000002.png"]
    height, width, _ = np.asarray(Image.open(tmp_path / "samples" / "step_00000002.png")).shape
    assert width - 2 == 2 * (8 * (4 * 9 - 1) + 2)  # two images of four channels with lines between, enlarged
    assert height - 2 == 2 * (64 + 2)


class Counts(AtStart):
    name: ClassVar[str] = "counted"

    def __init__(self) -> None:
        super().__init__()
        self.drawn = 0

    def draw(self, trainer: Any, *arguments: Any) -> None:
        self.drawn += 1
        file = Path(trainer.default_root_dir, "figures", "counted.png")
        file.parent.mkdir(exist_ok=True)
        file.touch()


class Breaks(Counts):
    def draw(self, trainer: Any, *arguments: Any) -> None:
        raise RuntimeError("no font")


def test_a_run_that_goes_on_has_its_pictures_of_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    first, second, fresh, elsewhere = Counts(), Counts(), Counts(), Counts()
    trainer: Any = SimpleNamespace(
        is_global_zero=True, callbacks=[], strategy=SimpleNamespace(barrier=int),
        default_root_dir=str(tmp_path),
    )  # fmt: skip
    module: Any = make_module()
    batch = Batch(torch.zeros(2, 1, 8, 8), None, 0, 0)
    for batch_idx in (0, 1):
        first.on_train_batch_start(trainer, module, batch, batch_idx)
    second.load_state_dict(first.state_dict())
    second.on_train_batch_start(trainer, module, batch, 0)
    fresh.load_state_dict({})
    fresh.on_train_batch_start(trainer, module, batch, 0)
    assert (first.drawn, second.drawn, fresh.drawn) == (1, 0, 1)
    (tmp_path / "elsewhere").mkdir()
    trainer.default_root_dir = str(tmp_path / "elsewhere")
    elsewhere.load_state_dict(first.state_dict())
    elsewhere.on_train_batch_start(trainer, module, batch, 0)
    assert elsewhere.drawn == 1
    Breaks().on_train_batch_start(trainer, module, batch, 0)
    assert "Breaks: is not drawn (RuntimeError: no font); training goes on" in caplog.text


def test_images_stand_beside_what_they_are_conditioned_on(tmp_path: Path):
    trainer: Any = SimpleNamespace(
        is_global_zero=True, callbacks=[], strategy=SimpleNamespace(barrier=int), loggers=[], global_step=0,
        default_root_dir=str(tmp_path),
    )  # fmt: skip
    module: Any = SimpleNamespace(image_shape=(1, 8, 8), classes=None)
    condition = Condition(torch.stack([torch.full((3, 8, 8), value) for value in (-1.0, 1.0)]))
    batch = Batch(torch.zeros(2, 1, 8, 8), None, 0, 0, condition)
    DataImages().on_train_batch_start(trainer, module, batch, 0)
    found = np.asarray(Image.open(tmp_path / "figures" / "images.png"))
    pairs = with_condition(to_uint8(batch.x_0), to_uint8(condition.image))
    assert pairs.shape == (2, 3, 8, 17)
    assert np.array_equal(found, grid(pairs))


def test_large_images_are_fewer(tmp_path: Path):
    module: Any = SimpleNamespace(image_shape=(3, 256, 256), classes=None)
    trainer: Any = SimpleNamespace(default_root_dir=str(tmp_path), loggers=[], global_step=0)
    x_0 = torch.zeros(20, 3, 256, 256)
    DataImages().draw(trainer, module, x_0, [""] * 20)
    found = np.asarray(Image.open(tmp_path / "figures" / "images.png"))
    assert np.array_equal(found, grid(to_uint8(x_0[:16])))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataImages(0),
        lambda: ForwardProcess(steps=0),
        lambda: Denoising(frames=-1),
        lambda: NearestImages(n=17),
        lambda: SampleGrids(DDIM(3), raw=-1),
    ],
)
def test_numbers_out_of_range_are_refused(make: Any):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_weights_and_biases_has_them_from_a_run_as_it_is_by_default(smoke_run: Path):
    rows = [record["item"] for record in wandb_records(smoke_run, "history")]
    found = {
        (key.removesuffix("._type"), row["_step"]) for row in rows for key in row if key.endswith("._type")
    }
    assert found >= {
        *((key, 0) for key in ("data/images", "data/forward", "schedule/over_t")),
        *((key, step) for key in ("samples/grid", "samples/grid_raw") for step in (10, 20)),
        *(("diagnostics/loss_by_timestep", step) for step in (10, 20)),
        ("diagnostics/val_loss_by_timestep", 20),
        *((key, 20) for key in ("samples/denoising", "samples/denoising_film", "samples/nearest")),
    }, sorted(found)
    last = next(row for row in rows if row["_step"] == 20)
    assert last["samples/grid.captions"] == ["step 20: averaged weights, DDIM, 5 steps"]
