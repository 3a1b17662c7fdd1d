"""Training goes on where a logger fails."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from models import make_module, make_trainer
from torch.utils.data import DataLoader, TensorDataset

from ddpm.training.callbacks.completed_steps import CompletedSteps
from ddpm.training.loggers import MetricsCSV, failures, log_picture, may_fail
from ddpm.training.metrics import log_scalars


@pytest.fixture(autouse=True)
def nothing_has_failed() -> None:
    failures._failures.clear()


class Unreachable(Logger):
    """A logger of somebody's own, whose server is away."""

    name = version = "mine"

    def _fail(self, *args: Any, **kwargs: Any) -> None:
        raise ConnectionError("the server\nis away")

    log_metrics = log_hyperparams = log_image = save = finalize = after_save_checkpoint = _fail


def test_whatever_fails_the_run_comes_to_its_end_with_all_its_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    mine, csv = Unreachable(), MetricsCSV(tmp_path / "metrics.csv")
    trainer = make_trainer(tmp_path, 5, CompletedSteps())
    trainer.loggers = [mine, csv]
    trainer.fit(make_module(), DataLoader(TensorDataset(torch.rand(40, 1, 8, 8) * 2 - 1), batch_size=8))
    assert trainer.global_step == 5
    log_scalars(trainer, {"a": 1.0})
    assert ",a" in csv.path.read_text()
    assert [line for line in caplog.messages if line.startswith("Unreachable.log_metrics")] == [
        "Unreachable.log_metrics failed (ConnectionError: the server); training goes on, and metrics.csv has "
        "what is logged"
    ]
    assert "Unreachable.finalize failed" in caplog.text


def test_it_is_told_once_for_each_kind_and_every_hundredth_time(caplog: pytest.LogCaptureFixture):
    logger = Unreachable()
    may_fail(logger)
    may_fail(logger)
    for step in range(201):
        logger.log_metrics({"a": 1.0}, step=step)
    assert not log_picture(logger, "a", np.zeros((4, 4, 3), np.uint8), step=1)
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "Unreachable.log_metrics failed (ConnectionError: the server)",
        "Unreachable.log_metrics failed (ConnectionError: the server) for the 100th time",
        "Unreachable.log_metrics failed (ConnectionError: the server) for the 200th time",
        "Unreachable.log_picture failed (ConnectionError: the server)",
    ]


def test_a_mistake_about_a_picture_is_nobodys_failure():
    with pytest.raises(ValueError, match="uint8"):
        log_picture(Unreachable(), "a", np.zeros((4, 4)), step=1)


def test_tensorboard_goes_on_in_another_file_when_its_writer_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer.record_writer import RecordWriter

    logger = TensorBoardLogger(tmp_path, name="", version="")
    may_fail(logger)
    logger.log_metrics({"a": 0.0}, step=0)
    logger.save()

    def refuse(*_: Any) -> None:
        raise OSError("No space left on device")

    died: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading, "excepthook", died.append)
        patch.setattr(RecordWriter, "write", refuse)
        for step in range(1, 5):  # its thread dies, and that is noticed in a row or two
            logger.log_metrics({"a": float(step)}, step=step)
            logger.save()
    assert died
    logger.log_metrics({"a": 50.0}, step=50)
    logger.finalize("success")
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in read.Scalars("a")][-1] == 50


def test_lightnings_csv_keeps_rows_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    logger = CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1)
    may_fail(logger)
    logger.log_metrics({"a": 1.0}, step=1)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(logger.experiment._fs, "open", refuse)
        logger.log_metrics({"a": 2.0}, step=2)
    logger.log_metrics({"a": 3.0}, step=3)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["a,step", "1.0,1", "2.0,2", "3.0,3"]
