"""What a run is, what is best of it and what somebody should look at stands where dashboards have a place."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from conftest import patch_time, wandb_records
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger

from ddpm.training.callbacks.bests import Bests
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.loggers import (
    MetricsCSV,
    WandbLogger,
    alerts,
    log_card,
    log_columns,
    log_summary,
    raise_alert,
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> tuple[MLFlowLogger, Mock]:
    client = Mock()
    monkeypatch.setattr(MLFlowLogger, "experiment", client)
    monkeypatch.setattr(MLFlowLogger, "run_id", "id")
    return MLFlowLogger.__new__(MLFlowLogger), client


def tensorboard(directory: Path) -> Any:
    """What TensorBoard reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(directory))
    read.Reload()
    return read


ROWS = {"images": "1,437 to train on", "network": "5 | 6 parameters"}


@pytest.mark.e2e
def test_weights_and_biases_offline(tmp_path: Path):
    logger = WandbLogger(save_dir=tmp_path)
    trainer: Any = SimpleNamespace(loggers=[logger], global_step=7)
    log_card(logger, ROWS)
    log_summary(logger, {"parameters": 5, "best/val/loss": 0.25})
    for _ in range(3):
        raise_alert(trainer, "the loss has jumped", "step 7: it is 9 times that of before")
    checkpoint = tmp_path / "step_00000007.ckpt"
    checkpoint.write_bytes(b"weights")
    logger.log_checkpoint(checkpoint, 7)  # which log_model=false leaves alone
    logger.log_metrics({"train/loss": 0.5}, step=7)
    logger.finish(0)
    summary: dict[str, Any] = {}
    for record in wandb_records(tmp_path, "summary"):
        summary |= record["update"]
    assert (summary["parameters"], summary["best/val/loss"], summary["train/loss"]) == (5, 0.25, 0.5)
    assert len(wandb_records(tmp_path, "alert")) == 1
    assert {record["type"] for record in wandb_records(tmp_path, "artifact")} == {"run_table"}


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("log_model", "kept"), [("all", [7, 9]), pytest.param(True, [9], marks=pytest.mark.slow)]
)
def test_checkpoints_are_versions_of_an_artifact(
    log_model: Any, kept: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    logger = WandbLogger(save_dir=tmp_path, log_model=log_model, id="abc")
    for step in (7, 9):
        path = tmp_path / f"step_{step}.ckpt"
        path.write_bytes(b"weights" * step)
        logger.log_checkpoint(path, step)
    logger.finalize("success")
    logger.finish(0)
    found = wandb_records(tmp_path, "artifact")
    assert [set(record["aliases"]) for record in found] == [{"latest", f"step_{step}"} for step in kept]
    assert {(record["name"], record["type"]) for record in found} == {("model-abc", "model")}
    copies = sorted(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert [copy for copy in copies if copy.startswith(b"weights")] == [b"weights" * step for step in kept]


def test_tensorboard(tmp_path: Path):
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    trainer: Any = SimpleNamespace(loggers=[logger], global_step=7)
    log_card(logger, ROWS)
    log_columns(logger, {"schedule": "cosine", "optimizer.lr": 0.5, "betas": [0, 1]}, ["val/loss"])
    raise_alert(trainer, "the loss has jumped", "nine times")
    logger.finalize("success")
    read = tensorboard(tmp_path)
    (card,) = read.Tensors("run/card/text_summary")
    assert card.tensor_proto.string_val[0].decode() == (
        "| | |\n|---|---|\n| images | 1,437 to train on |\n| network | 5 \\| 6 parameters |"
    )
    (alert,) = read.Tensors("alerts/the loss has jumped/text_summary")
    assert (alert.step, alert.tensor_proto.string_val[0]) == (7, b"nine times")
    content = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"cosine" in content
    assert not read.Tags()["scalars"]


def test_mlflow_has_tags_a_description_and_metrics(told: tuple[MLFlowLogger, Mock]):
    logger, client = told
    trainer: Any = SimpleNamespace(loggers=[logger], global_step=7)
    log_summary(logger, {"parameters": 5, "best/val/loss": 0.25})
    log_card(logger, {"images": "many"})
    raise_alert(trainer, "the loss has jumped", "nine times")
    client.log_metric.assert_called_once_with("id", "best/val/loss", 0.25)
    assert [call.args[1:] for call in client.set_tag.call_args_list] == [
        ("parameters", 5),
        ("mlflow.note.content", "| | |\n|---|---|\n| images | many |"),
        ("alert the loss has jumped", "step 7: nine times"),
    ]


def test_loggers_without_such_places_are_left_alone(tmp_path: Path):
    for logger in (MetricsCSV(tmp_path / "metrics.csv"), CSVLogger(tmp_path)):
        log_summary(logger, {"parameters": 5})
        log_card(logger, ROWS)
        log_columns(logger, {"a": 1}, ["val/loss"])
    assert not (tmp_path / "metrics.csv").exists()


def test_one_alert_of_a_kind_an_hour(monkeypatch: pytest.MonkeyPatch, told: tuple[MLFlowLogger, Mock]):
    logger, client = told
    trainer: Any = SimpleNamespace(loggers=[logger], global_step=7)
    now = 10.0
    patch_time(monkeypatch, alerts, monotonic=lambda: now)
    for now, kind in ((10.0, "a"), (11.0, "b"), (3609.0, "a"), (3610.0, "a"), (3700.0, "b")):
        raise_alert(trainer, kind, str(now))
    assert [call.args[2] for call in client.set_tag.call_args_list] == [
        f"step 7: {at}" for at in (10.0, 11.0, 3610.0, 3700.0)
    ]


def test_an_alert_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture, told: tuple[MLFlowLogger, Mock]):
    logger, client = told
    client.set_tag.side_effect = OSError("the server is away")
    raise_alert(SimpleNamespace(loggers=[logger], global_step=7), "a", "b")  # type: ignore[arg-type]
    assert "the server is away" in caplog.text


def test_what_is_best_is_known_beyond_a_checkpoint(told: tuple[MLFlowLogger, Mock]):
    logger, client = told
    watching = EarlyStopping("samples/precision", mode="max")
    trainer: Any = SimpleNamespace(
        loggers=[logger], callbacks=[watching], sanity_checking=False, callback_metrics={}, global_step=0
    )

    def measure(bests: Bests, step: int, loss: float, precision: float) -> None:
        trainer.global_step = step
        trainer.callback_metrics |= {
            "val/loss": torch.tensor(loss), "samples/precision": torch.tensor(precision),
        }  # fmt: skip
        bests.on_validation_end(trainer, None)  # type: ignore[arg-type]

    first, goes_on = Bests(), Bests()
    measure(first, 10, 0.5, 0.5)
    measure(first, 20, 0.25, 0.25)
    goes_on.load_state_dict(first.state_dict())
    measure(goes_on, 30, 0.375, 0.75)
    assert goes_on.found == {"val/loss": (0.25, 20), "samples/precision": (0.75, 30)}
    told_metrics = [call.args[1:] for call in client.log_metric.call_args_list]
    assert told_metrics == [
        ("best/val/loss", 0.5),
        ("best/samples/precision", 0.5),
        ("best/val/loss", 0.25),
        ("best/samples/precision", 0.75),
    ]


def test_each_checkpoint_is_handed_over_before_the_oldest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    given: list[tuple[str, int, bool]] = []

    def log_checkpoint(path: Path, step: int) -> None:
        given.append((path.name, step, (tmp_path / "step_00000001.ckpt").exists()))
        raise OSError("the server is away")

    logger = WandbLogger(save_dir=tmp_path, mode="disabled")
    monkeypatch.setattr(logger, "log_checkpoint", log_checkpoint)
    callback = Checkpoints(every_n_steps=1, keep=2)
    for step in (1, 2, 3):
        path = tmp_path / f"step_{step:08d}.ckpt"
        path.write_bytes(b"weights")
        callback._follow(path, step, [logger, MetricsCSV(tmp_path / "metrics.csv")])
    assert given == [(f"step_{step:08d}.ckpt", step, True) for step in (1, 2, 3)]
    assert not (tmp_path / "step_00000001.ckpt").exists()
    assert "the server is away" in caplog.text
