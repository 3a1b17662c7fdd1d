"""Samples are measured in training as evaluate.py measures them, whenever and wherever that is."""

import csv
import json
import logging
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from conftest import first_everyday, run_program
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from models import make_module, make_trainer

from ddpm.app.measuring.drawn import draw
from ddpm.data.module import ImageDataModule
from ddpm.data.prepared.cache import Cache
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.samplers import DDIM
from ddpm.errors import UsageError
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.pixels import Pixels
from ddpm.evaluation.quality import during_training, measuring
from ddpm.evaluation.quality.cost import Cost, stretched
from ddpm.evaluation.quality.drawn import classes_of
from ddpm.evaluation.quality.during_training import SampleQuality
from ddpm.evaluation.quality.frechet import FrechetDistance
from ddpm.evaluation.quality.nearest import Nearest
from ddpm.evaluation.quality.precision_recall import PrecisionRecall
from ddpm.runtime.sharing import Sharing
from ddpm.sampling.drawing import Drawing
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.continuation import Continuation
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.interruption import Interruption
from ddpm.training.checkpoints import numbered
from ddpm.training.ending import Interrupted
from ddpm.training.loggers import MetricsCSV

NAME = "samples/fd"


class PixelDistance(FrechetDistance):
    """Of the pixels themselves, which takes no time."""

    of: ClassVar[type[Extractor]] = Pixels


def quality(sampler: DDIM | None = None, **settings: Any) -> SampleQuality:
    chosen: dict[str, Any] = {
        "metrics": {"fd": PixelDistance(0, 0)}, "every_n_steps": 2, "n": 20, "share": None, **settings,
    }  # fmt: skip
    return SampleQuality(sampler=sampler or DDIM(2), **chosen)


def digits() -> ImageDataModule:
    return ImageDataModule(Digits(), batch_size=16, seed=0)


class Layer(torch.nn.Module):
    """A network of one layer: what is learned does not matter here, and training takes no time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.layer(x_t)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """What is logged, by step."""
    found: dict[int, float] = {}

    def log_scalars(trainer: Trainer, row: dict[str, float]) -> None:
        found[trainer.global_step] = row[NAME]
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in row.items()})

    monkeypatch.setattr(during_training, "log_scalars", log_scalars)
    return found


@pytest.mark.parametrize("classes", first_everyday([True, False]))
def test_a_value_is_that_of_evaluate(classes: bool, tmp_path: Path, seen: dict[int, float]):
    data, names = digits(), [str(i) for i in range(10)] if classes else None
    network = Labelled() if classes else Layer()
    module, callback = make_module(network, classes=names), quality(n=20)
    make_trainer(tmp_path, 3, callback).fit(module, datamodule=data)
    sharing, metrics = Sharing(tmp_path / "pieces"), {"fd": PixelDistance(0, 0)}
    drawing = Drawing(module, sampler=DDIM(2), weights="ema")
    run: Any = SimpleNamespace(module=module)
    asked = classes_of(module, data.data_set, 20)
    samples = draw(run, drawing, 20, asked, 16, {}, sharing)
    comparison = measuring.Comparison(data.data_set, "train", {"fd": Pixels()}, Cache())
    comparison.extractors["fd"].prepare(data.data_set, "cpu")
    found = measuring.measure(metrics, samples, comparison, seed=0, directory=tmp_path, sharing=sharing)["fd"]
    assert seen[3] == pytest.approx(found[callback.names[NAME]], rel=1e-6)
    assert callback.names == {NAME: "fd20_train_pixels_ema_ddim2"}
    raw = Drawing(module, sampler=DDIM(2), weights="raw")
    other = draw(run, raw, 20, asked, 16, {}, Sharing(tmp_path / "raw"))
    found = measuring.measure(
        metrics, other, comparison, seed=0, directory=tmp_path, sharing=Sharing(tmp_path / "other")
    )["fd"]
    assert seen[3] != pytest.approx(found["fd20_train_pixels_raw_ddim2"], rel=1e-6)


class Labelled(torch.nn.Module):
    """A network that shows which class it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.layer(x_t) * (1 + labels.view(-1, 1, 1, 1) / 5)


@pytest.mark.parametrize(("steps", "every", "measured"), [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 100, [3])])
def test_it_is_measured_every_n_steps_and_at_the_end(
    steps: int, every: int, measured: list[int], tmp_path: Path, seen: dict[int, float]
):
    make_trainer(tmp_path, steps, quality(every_n_steps=every)).fit(make_module(Layer()), datamodule=digits())
    assert list(seen) == measured
    assert len(set(seen.values())) == len(measured)


@pytest.mark.parametrize("world_size", first_everyday([3, 2, 9]))
def test_any_number_of_ranks_has_the_same_samples(
    world_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ranks one after the other, whose features are added here."""
    module, data = make_module(Layer()), digits()
    found: dict[int, torch.Tensor] = {}
    for world in (1, world_size):
        shares: list[torch.Tensor] = []
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda rows, to=shares: to.append(rows.clone()))
        for rank in range(world):
            callback = quality(n=100)
            callback.check(module, data)
            trainer: Any = SimpleNamespace(
                world_size=world,
                global_rank=rank,
                is_global_zero=rank == 0,
                callbacks=[],
                strategy=SimpleNamespace(broadcast=lambda size: size, root_device=torch.device("cpu")),
            )
            (own,) = callback._features(trainer, module, callback._drawing(module)).values()
        found[world] = torch.stack(shares).sum(0) if shares else own
    assert torch.equal(found[world_size], found[1])
    assert (found[1] != 0).any(1).all()


def test_measuring_changes_nothing_of_the_training(tmp_path: Path):
    weights = []
    for callbacks in ((), (quality(share=0.5),)):
        module = make_module(Layer())
        make_trainer(tmp_path, 3, *callbacks).fit(module, datamodule=digits())
        weights.append(torch.cat([parameter.flatten() for parameter in module.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("measurement", "share", "found"),
    [(1.0, 0.1, 10), (1.01, 0.1, 20), (3.0, 0.1, 50), (51.0, 0.1, 1000), (51.0, None, 10), (0.5, 1.0, 10)],
)
def test_the_interval_keeps_measuring_to_its_share(measurement: float, share: float | None, found: int):
    assert stretched(10, Cost(measurement, 1.0), share) == found


def test_an_interval_that_was_stretched_is_said_and_stays(
    tmp_path: Path,
    seen: dict[int, float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """The next start may find the machine quicker."""
    for seconds, steps in ((15.0, 6), (0.001, 14)):
        monkeypatch.setattr(SampleQuality, "_timed", lambda *_, found=seconds: Cost(found, 10.0))
        callback = quality(every_n_steps=1, share=0.5)
        saved = numbered(tmp_path / "checkpoints")
        with caplog.at_level(logging.INFO):
            make_trainer(tmp_path, steps, Continuation(), Checkpoints(3), callback).fit(
                make_module(Layer()), datamodule=digits(), ckpt_path=saved[max(saved)] if saved else None
            )
        assert callback.every_n_steps == 5
    assert list(seen) == [5, 6, 10, 14]
    assert sum("every 5 steps, not every 1," in line for line in caplog.messages) == 2
    # other settings have it chosen anew
    other = quality(every_n_steps=1, share=0.4)
    make_trainer(tmp_path, 14, Continuation(), Checkpoints(3), other).fit(
        make_module(Layer()),
        datamodule=digits(),
        ckpt_path=max(numbered(tmp_path / "checkpoints").items())[1],
    )
    assert other.every_n_steps == 1


class KilledError(Exception):
    """Nothing but what is on disk survives it."""


class Killed(DDIM):
    """A sampler in whose midst the run ends, where its step is known."""

    trainer: Trainer
    at = -1

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        if self.trainer.global_step == self.at:
            raise KilledError
        return super().__call__(*arguments, **settings)


def start(directory: Path, kill_at: int) -> bool:
    """Start or continue a run of 5 steps; whether it came to its end."""
    sampler = Killed(2)
    rows = MetricsCSV(directory / "metrics.csv")
    trainer = make_trainer(
        directory, 5, Continuation(), Checkpoints(every_n_steps=1, keep=None), quality(sampler),
        EarlyStopping(NAME, patience=100), best(directory),
    )  # fmt: skip
    trainer.loggers = [rows]
    saved = numbered(directory / "checkpoints")
    newest = max(saved, default=0)
    if newest:
        rows.continue_from(rows.path, newest)
    sampler.trainer, sampler.at = trainer, kill_at
    try:
        trainer.fit(make_module(Layer()), datamodule=digits(), ckpt_path=saved.get(newest))
    except KilledError:
        return False
    return True


def best(directory: Path, monitor: str = NAME) -> ModelCheckpoint:
    return ModelCheckpoint(directory / "checkpoints", "best", monitor=monitor, enable_version_counter=False)


def measured_in(directory: Path, name: str = NAME) -> dict[int, str]:
    with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return {int(row["step"]): row[name] for row in csv.DictReader(file) if row.get(name)}


def test_a_run_that_is_killed_in_its_measurements_goes_on_as_if_nothing_had_been(tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for directory in (whole, killed):
        directory.mkdir()
    assert start(whole, -1)
    for step in (4, 5, -1):
        assert start(killed, step) == (step < 0)
    assert measured_in(killed) == measured_in(whole)
    assert list(measured_in(whole)) == [2, 4, 5]
    ours, theirs = (
        torch.load(directory / "checkpoints" / "best.ckpt", weights_only=True)
        for directory in (killed, whole)
    )
    assert ours["global_step"] == theirs["global_step"]
    for name, tensor in ours["ema"]["parameters"].items():
        assert torch.equal(tensor, theirs["ema"]["parameters"][name])
    states = [
        next(state for key, state in checkpoint["callbacks"].items() if key.startswith("EarlyStopping"))
        for checkpoint in (ours, theirs)
    ]
    assert states[0] == states[1]


def find(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Measure these, one after the other."""
    left = iter(values)
    monkeypatch.setattr(SampleQuality, "_timed", lambda *_: Cost(1.0, 1.0))
    monkeypatch.setattr(SampleQuality, "_values", lambda *_: {NAME: next(left)})


def test_best_is_of_the_step_with_the_lowest_value(
    tmp_path: Path, seen: dict[int, float], monkeypatch: pytest.MonkeyPatch
):
    """Validations come more often, before the first value and between."""
    find(monkeypatch, 3.0, 1.0, 2.0, 5.0)
    trainer = make_trainer(tmp_path, 7, quality(), best(tmp_path), Checkpoints(1, keep=None))
    trainer.val_check_interval = trainer.limit_val_batches = 1
    trainer.fit(make_module(Layer()), datamodule=digits())
    assert seen == {2: 3.0, 4: 1.0, 6: 2.0, 7: 5.0}
    found = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert found["global_step"] == 4
    step_4 = torch.load(numbered(tmp_path / "checkpoints")[4], weights_only=True)
    for name, tensor in found["ema"]["parameters"].items():
        assert torch.equal(tensor, step_4["ema"]["parameters"][name])


def test_early_stopping_counts_measurements(
    tmp_path: Path, seen: dict[int, float], monkeypatch: pytest.MonkeyPatch
):
    find(monkeypatch, 3.0, 1.0, 2.0, 5.0)
    trainer = make_trainer(tmp_path, 20, quality(), EarlyStopping(NAME, patience=2))
    trainer.val_check_interval = trainer.limit_val_batches = 1
    trainer.fit(make_module(Layer()), datamodule=digits())
    assert trainer.global_step == 8
    assert list(seen) == [2, 4, 6, 8]


class Signal(EveryNSteps):
    """Asks the run to end at a step, behind all that comes before this callback."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_measurement_counts_once_though_the_run_goes_on_right_behind_it(
    tmp_path: Path, seen: dict[int, float], monkeypatch: pytest.MonkeyPatch
):
    """The step is measured again, with the same value; patience and the best of all are as without a halt."""
    find(monkeypatch, 3.0, 1.0, 2.0, 2.0, 5.0, 5.0)
    for halt in (6, 0):
        stopping = EarlyStopping(NAME, patience=2)
        top = ModelCheckpoint(tmp_path / "top", "of_{step}", monitor=NAME, save_top_k=4)
        own = (quality(), stopping, top, Checkpoints(100, keep=None), Signal(halt), Interruption())
        trainer = make_trainer(tmp_path, 20, Continuation(), *own)
        saved = numbered(tmp_path / "checkpoints").get(6)
        with pytest.raises(Interrupted) if halt else nullcontext():
            trainer.fit(make_module(Layer()), datamodule=digits(), ckpt_path=saved)
    assert trainer.global_step == 8
    assert seen == {2: 3.0, 4: 1.0, 6: 2.0, 8: 5.0}
    assert sorted(score.item() for score in top.best_k_models.values()) == [1.0, 2.0, 3.0, 5.0]
    assert len(list((tmp_path / "top").iterdir())) == 4


def test_a_signal_in_the_midst_of_measuring_saves_and_ends(tmp_path: Path, seen: dict[int, float]):
    class Signalled(DDIM):
        drawn = 0

        def __call__(self, *arguments: Any, **settings: Any) -> Any:
            self.drawn += 1
            if self.drawn == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(*arguments, **settings)

    sampler = Signalled(2)
    trainer = make_trainer(tmp_path, 4, Checkpoints(100), quality(sampler, n=200), Interruption())
    with pytest.raises(Interrupted):
        trainer.fit(make_module(Layer()), datamodule=digits())
    assert seen == {}
    assert sampler.drawn == 2
    assert list(numbered(tmp_path / "checkpoints")) == [2]


def test_steps_that_come_again_are_measured_again(tmp_path: Path, seen: dict[int, float]):
    """Behind a return to a checkpoint, with which the rows of later steps went."""
    callback = quality()
    for _ in range(2):
        seen.clear()
        make_trainer(tmp_path, 2, callback).fit(make_module(Layer()), datamodule=digits())
        assert list(seen) == [2]


def test_several_values_of_a_metric_have_names_of_their_own(tmp_path: Path):
    callback = quality(metrics={"pr": PrecisionRecall(), "off": None}, extractor=Pixels(), every_n_steps=9)
    trainer = make_trainer(tmp_path, 1, callback)
    trainer.fit(make_module(Layer()), datamodule=digits())
    assert {"samples/pr/precision", "samples/pr/recall"} <= set(trainer.callback_metrics)
    assert callback.measures("samples/pr/recall")
    assert not callback.measures("samples/prs")


def test_what_cannot_be_measured_is_told_before_training(tmp_path: Path):
    loader = torch.utils.data.DataLoader(torch.zeros(8, 1, 8, 8), batch_size=4)
    with pytest.raises(ValueError, match=r"trainer\.fit\(datamodule=\.\.\.\)"):
        make_trainer(tmp_path, 1, quality()).fit(make_module(Layer()), loader)
    module = make_module(Layer())
    for settings, said in (
        ({"sampler": DDIM(101)}, "100"),
        ({"n": 1}, "1 samples are too few"),
        ({"reference": "nowhere.npz"}, r"reference=nowhere\.npz: must be train, validation, or a file"),
    ):
        with pytest.raises(UsageError, match=said):
            quality(**settings).check(module, digits())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"metrics": {"fd": None}}, "nothing is to be measured"),
        ({"n": 0}, "n=0 must be at least 1"),
        ({"share": 0.0}, r"share=0\.0 must be above 0"),
        ({"every_n_steps": 0}, "every_n_steps=0"),
        ({"metrics": {"near": Nearest()}}, r"metrics\.near: looks at the images themselves"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        quality(**settings)


SMOKE = (
    "experiment=smoke", "callbacks=[default,best,quality]", "callbacks.best.monitor=samples/fd_classifier",
    "callbacks.quality.every_n_steps=8", "callbacks.quality.n=40", "callbacks.quality.share=null",
    "callbacks.quality.sampler.num_steps=5", "logger=none",
)  # fmt: skip


@pytest.mark.e2e
@pytest.mark.slow
def test_best_by_the_samples_is_what_evaluate_measures_on_any_number_of_devices(tmp_path: Path):
    for devices in (1, 2):
        words = (f"trainer.devices={devices}", "trainer.accelerator=cpu", f"hydra.run.dir=of_{devices}")
        assert run_program("train.py", *SMOKE, *words, cwd=tmp_path).returncode == 0
    name = "samples/fd_classifier"
    found = {step: float(value) for step, value in measured_in(tmp_path / "of_1", name).items()}
    of_two = {step: float(value) for step, value in measured_in(tmp_path / "of_2", name).items()}
    assert len(found) > 1
    assert of_two == pytest.approx(found, rel=1e-4)  # the training itself agrees to rounding
    full = json.loads((tmp_path / "of_1" / "run.json").read_text())["measured"][name]
    assert full == "fd40_train_classifier_ema_ddim5"
    measured = run_program(
        "evaluate.py", "ckpt=of_1/checkpoints/best.ckpt", "metrics=[fd_classifier]", "n=40", "sampler=ddim",
        "sampler.num_steps=5", "hydra.run.dir=measured", cwd=tmp_path,
    )  # fmt: skip
    assert measured.returncode == 0
    metrics = json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert metrics["step"] == min(found, key=lambda step: found[step])
    assert metrics["fd_classifier"][full] == pytest.approx(min(found.values()), rel=1e-6)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("callbacks=[default,best]", "callbacks.best.monitor=samples/fid"), "which nothing measures"),
        (
            ("callbacks=[default,quality_fid]", "callbacks.quality.metrics.fid=null"),
            "callbacks.quality: metrics: nothing is to be measured",
        ),
        (
            ("callbacks=[default,quality]", "callbacks.quality.reference=a.npz"),
            "callbacks.quality: reference",
        ),
    ],
)
def test_a_mistake_is_told_by_its_key(words: tuple[str, ...], said: str, tmp_path: Path):
    done = run_program("train.py", "experiment=smoke", "logger=none", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.said
    assert not list(tmp_path.iterdir())
