"""The trainer's keys mean what Lightning's mean."""

import csv
import json
import os
import re
import warnings
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from conftest import ROOT, composed, only_run, run_here, run_program
from lightning.pytorch.loggers import Logger
from models import make_module

from ddpm.app import train
from ddpm.app.run_directory import Place
from ddpm.app.trainer import build_loggers, build_trainer
from ddpm.errors import UsageError
from ddpm.runtime.computing import AS_IT_IS
from ddpm.training.loggers import MetricsCSV, WandbLogger

pytestmark = pytest.mark.e2e

SMALL = (
    "experiment=smoke", "trainer.devices=1", "trainer.accelerator=cpu", "logger=none",
    "callbacks.samples=null",
    "allow_targets=[watch]", "callbacks.seen._target_=watch.Seen", "callbacks.seen.file=seen.json",
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs are started, with the callbacks that watch in reach."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "extensions")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Path, dict[str, Any]]:
    """The run directory, and what the run saw."""
    assert run_here(monkeypatch, "train", *SMALL, *words) == 0
    return only_run(place), json.loads((place / "seen.json").read_text())


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_limit_train_batches_shows_the_images_of_the_first_batches_again_and_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    directory, seen = trained(
        place, monkeypatch, "trainer.limit_train_batches=2", "trainer.max_steps=6",
        "trainer.val_check_interval=3", "trainer.limit_val_batches=1",
    )  # fmt: skip
    first = [*chain(*seen["train"][:2])]
    for start in (2, 4):
        assert sorted(chain(*seen["train"][start : start + 2])) == pytest.approx(sorted(first))
    assert len({tuple(batch) for batch in seen["train"]}) > 1
    losses = [float(row["train/loss"]) for row in rows(directory)]
    assert len(set(losses)) == 6, "noise is drawn anew"
    assert seen["validation"] == [3, 6]


def test_overfit_batches_shows_one_batch(place: Path, monkeypatch: pytest.MonkeyPatch):
    directory, seen = trained(
        place, monkeypatch, "trainer.overfit_batches=1", "trainer.max_steps=4",
        "trainer.val_check_interval=4",
    )  # fmt: skip
    assert len(seen["train"]) == 4
    for batch in seen["train"][1:]:
        assert batch == pytest.approx(seen["train"][0])
    assert len({float(row["train/loss"]) for row in rows(directory)}) == 4, "noise is drawn anew"
    assert len(seen["validation"]) == 1


def test_a_float_is_a_share_of_the_training_images(place: Path, monkeypatch: pytest.MonkeyPatch):
    """A tenth of 1,437 images are two whole batches of 64."""
    _, seen = trained(place, monkeypatch, "trainer.limit_train_batches=0.1", "trainer.max_steps=4")
    assert sorted(chain(*seen["train"][:2])) == pytest.approx(sorted(chain(*seen["train"][2:])))
    (place / "whole").mkdir()
    monkeypatch.chdir(place / "whole")
    _, whole = trained(place / "whole", monkeypatch, "trainer.limit_train_batches=1.0", "trainer.max_steps=4")
    assert whole["train"][:2] == seen["train"][:2]
    assert sorted(chain(*whole["train"][:2])) != pytest.approx(sorted(chain(*whole["train"][2:])))


def test_fast_dev_run_tries_everything_and_keeps_nothing(place: Path, monkeypatch: pytest.MonkeyPatch):
    words = [word for word in SMALL if not word.startswith(("logger", "callbacks.samples"))]
    words += ["callbacks=[default,best]", "logger=many"]
    assert run_here(monkeypatch, "train", *words, "trainer.fast_dev_run=2") == 0
    directory = only_run(place)
    seen = json.loads((place / "seen.json").read_text())
    assert len(seen["train"]) == 2
    assert seen["validation"] == [2, 2], "as many batches as steps, once"
    assert len(rows(directory)) == 2
    left = {path.name for path in directory.iterdir()}
    assert "checkpoints" not in left
    assert not left & {"wandb", "tensorboard", "csv"}
    grids = sorted(path.name for path in (directory / "samples").iterdir())
    assert grids == ["raw_step_00000002.png", "step_00000002.png"]


def test_min_steps_and_value_clipping_reach_the_trainer(place: Path, monkeypatch: pytest.MonkeyPatch):
    directory, _ = trained(
        place, monkeypatch, "trainer.max_steps=3", "trainer.gradient_clip_algorithm=value",
        "trainer.gradient_clip_val=0",
    )  # fmt: skip
    losses = [float(row["train/loss"]) for row in rows(directory)]
    assert losses[2] < losses[0], "0 clips nothing, as in Lightning"


def test_a_small_share_of_the_validation_is_at_least_a_batch(place: Path, monkeypatch: pytest.MonkeyPatch):
    """A tenth of six batches; Lightning would end with an error once everything is set up."""
    _, seen = trained(place, monkeypatch, "trainer.overfit_batches=0.1", "trainer.max_steps=2")
    assert seen["validation"] == [2]


CALLBACKS = "lightning.pytorch.callbacks"


def test_what_callbacks_of_lightning_tell_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A summary, a bar in place of ours, and what a verbose one says; of Lightning itself nothing else."""
    trained(
        place, monkeypatch, "trainer.max_steps=2", f"callbacks.summary._target_={CALLBACKS}.ModelSummary",
        f"callbacks.bar._target_={CALLBACKS}.TQDMProgressBar",
        f"callbacks.best={{_target_:{CALLBACKS}.ModelCheckpoint,monitor:val/loss,verbose:true}}",
    )  # fmt: skip
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert "Trainable params" in said
    assert "Epoch 0: 100%" in said
    assert "'val/loss' reached" in said
    assert "GPU available" not in said
    assert "Trainer.fit" not in said


def test_callbacks_find_the_loggers_that_they_ask_for(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Without one, and in a trial, what is meant for one is taken and dropped, as Lightning does."""
    asks = ("trainer.max_steps=2", "callbacks.asks._target_=watch.Asks")
    directory, _ = trained(place, monkeypatch, *asks)
    assert (directory / "asked.txt").exists(), "trainer.log_dir is the run's"
    (place / "trial").mkdir()
    monkeypatch.chdir(place / "trial")
    trained(place / "trial", monkeypatch, *asks, "trainer.fast_dev_run=1")


def test_checkpoints_of_lightning_lie_in_the_run(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a directory of their own, and with a time as Hydra builds one."""
    words = (
        *SMALL, "allow_targets=[watch,sabotage]", "callbacks.raises._target_=sabotage.Raises",
        f"callbacks.saved._target_={CALLBACKS}.OnExceptionCheckpoint",
        f"callbacks.timed={{_target_:{CALLBACKS}.ModelCheckpoint,save_top_k:-1,filename:timed,"
        "train_time_interval:{_target_:datetime.timedelta,microseconds:1}}",
    )  # fmt: skip
    assert run_here(monkeypatch, "train", *words) == 1
    left = {path.name for path in (only_run(place) / "checkpoints").iterdir()}
    assert left >= {"on_exception.ckpt", "timed.ckpt"}


def test_a_profiler_is_built_as_it_is_described(place: Path, monkeypatch: pytest.MonkeyPatch):
    directory, _ = trained(
        place, monkeypatch, "trainer.max_steps=2",
        "trainer.profiler={_target_:lightning.pytorch.profilers.AdvancedProfiler,line_count_restriction:5}",
    )  # fmt: skip
    assert "Profile stats for: run_training_batch" in (directory / "fit-profile.txt").read_text()


@pytest.mark.parametrize("preset", ["fdr", "limit", "overfit"])
def test_debug_presets_run(preset: str, place: Path, monkeypatch: pytest.MonkeyPatch):
    words = [word for word in SMALL if not word.startswith(("logger", "callbacks.samples"))]
    short = [] if preset == "fdr" else ["trainer.max_steps=4", "trainer.val_check_interval=2"]
    assert run_here(monkeypatch, "train", *words, f"debug={preset}", *short) == 0
    seen = json.loads((place / "seen.json").read_text())
    assert len(seen["train"]) == (1 if preset == "fdr" else 4)
    if preset == "overfit":
        assert seen["train"][3] == pytest.approx(seen["train"][0])


def loggers(tmp_path: Path, *words: str, **place: Any) -> dict[str, Any]:
    """The loggers that a configuration builds, by the name of their class."""
    config = composed("train", *words)
    at = Place(tmp_path / "run", **place)
    built = build_loggers(config, at, {"num_train": 3}, None, {"schedule": "linear"})
    return {type(logger).__name__: logger for logger in built}


def test_loggers_are_given_what_the_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in [
        name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_ERROR_REPORTING"
    ]:
        monkeypatch.delenv(name)
    built = loggers(tmp_path, "logger=[wandb,csv]", "tags=[ablation,图]")
    assert list(built) == ["WandbLogger", "CSVLogger", "MetricsCSV"]
    begin = built["WandbLogger"]._wandb_init
    assert begin["tags"] == ["ablation", "图"]
    assert (begin["name"], begin["project"], begin["group"]) == ("run", "ddpm", None)
    assert begin["config"]["data_set.num_train"] == 3
    assert begin["config"]["schedule"] == "cosine"
    assert Path(built["CSVLogger"].root_dir).is_relative_to(tmp_path / "run")


def test_a_job_of_a_sweep_is_called_by_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built = loggers(tmp_path, sweep="now", label="schedule=cosine")
    begin = built["WandbLogger"]._wandb_init
    assert (begin["name"], begin["group"]) == ("schedule=cosine", "now")


def test_variables_of_weights_and_biases_hold_where_no_key_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in {
        "WANDB_PROJECT": "theirs",
        "WANDB_ENTITY": "team",
        "WANDB_MODE": "disabled",
        "WANDB_NAME": "called",
    }.items():
        monkeypatch.setenv(name, value)
    logger = loggers(tmp_path)["WandbLogger"]
    assert logger._wandb_init["project"] == "theirs"
    assert logger._wandb_init["name"] is None, "left to W&B"
    assert logger._wandb_init.get("entity") is None, "left to W&B"
    assert logger.mode == "disabled"
    typed = ("logger.wandb.project=mine", "logger.wandb.name=图 1", "logger.wandb.mode=offline")
    logger = loggers(tmp_path, *typed, "logger.wandb.entity=ours")["WandbLogger"]
    begin = logger._wandb_init
    assert (begin["project"], begin["name"], begin["entity"]) == ("mine", "图 1", "ours")
    assert logger.mode == "offline"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"project": "a/b"}, r"^logger\.wandb: Invalid project name 'a/b'"),
        ({"id": "a/b"}, r"^logger\.wandb: Run ID cannot contain"),
        ({"settings": {"nosuch": 1}}, r"^logger\.wandb: nosuch: Extra inputs are not permitted"),
        ({"save_dir": "/dev/null/x"}, r"^logger\.wandb: .*/dev/null"),
    ],
)
def test_what_only_its_beginning_tells_of_a_logger_is_one_message(settings, message, tmp_path: Path):
    logger = WandbLogger(**{"save_dir": str(tmp_path), **settings})
    with pytest.raises(UsageError, match=message):
        train._begin_loggers(
            [logger, MetricsCSV(tmp_path / "metrics.csv")], {"csv": None, "wandb": {"mode": None}}
        )


class Plain(Logger):
    """All that Lightning asks of a logger."""

    name = version = "plain"

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any) -> None:
        pass


def test_a_logger_need_not_have_an_experiment(tmp_path: Path):
    train._begin_loggers([Plain(), MetricsCSV(tmp_path / "metrics.csv")], {"plain": {"_target_": "Plain"}})


@pytest.mark.slow
def test_what_weights_and_biases_refuses_in_its_variables_is_one_message(tmp_path: Path):
    """In a process of its own, as W&B reads them once."""
    outcome = run_program("train.py", "experiment=smoke", cwd=tmp_path, env={"WANDB_RESUME": "perhaps"})
    assert outcome.returncode == 2, outcome.said
    assert re.search(r"^error: logger\.wandb: resume: .*'allow'", outcome.stderr, re.MULTILINE)


def test_a_logger_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match=r"logger\.mine: .*ExperimentWriter is no Lightning logger"):
        loggers(tmp_path, "logger.mine._target_=lightning.pytorch.loggers.csv_logs.ExperimentWriter")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UsageError, match=r"WANDB_MODE=sometimes must be offline, online or disabled"):
        loggers(tmp_path)


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ((), 1800),
        (("timeout=7.5",), 7.5),
        (("timeout=7", "strategy=ddp"), 7),
        (("strategy=ddp", "strategy.timeout.seconds=3"), 3),
    ],
)
def test_ranks_wait_for_each_other_as_long_as_the_timeout(
    tmp_path: Path, words: tuple[str, ...], seconds: float
):
    """Also those that Lightning chooses to start, whose own default is torch's."""
    config = composed("train", "experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=2", *words)
    trainer = build_trainer(config, tmp_path, [], [], AS_IT_IS)
    assert trainer.strategy._timeout == timedelta(seconds=seconds)


def test_a_network_that_no_checkpoint_could_be_written_of_is_refused_before_it_trains():
    module = make_module()
    train._check_finite(module)
    module.network.register_buffer("mask", torch.full((2,), float("-inf")), persistent=False)
    train._check_finite(module)
    module.network.register_buffer("other", torch.full((2,), float("-inf")))
    with pytest.raises(UsageError, match=r"model: network\.other holds NaN or infinity before any training"):
        train._check_finite(module)


def test_a_callback_that_leaves_the_program_finishes_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ends: list[BaseException | None] = []

    def leave(*_: Any) -> None:
        raise SystemExit(0)

    monkeypatch.setattr(train.terminal, "set_up", lambda *_, **__: None)
    monkeypatch.setattr(train, "_train", leave)
    monkeypatch.setattr(train, "ending", lambda trainer, raised: ends.append(raised))
    anything: Any = MagicMock(is_global_zero=False, world_size=1, directory=tmp_path)
    with warnings.catch_warnings(), pytest.raises(SystemExit):
        train._fit(*[anything] * 4, [], None, anything, anything)
    assert [type(one) for one in ends] == [SystemExit]
