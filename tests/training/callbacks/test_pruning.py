"""The run of a trial ends early where its search says so, saved, and says why."""

import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.pruning import Pruning
from ddpm.training.checkpoints import find
from ddpm.training.ending import Pruned, ending


class Told:
    """Stands for a trial: it is left behind at a step."""

    def __init__(self, left_behind_at: int, monitor: str = "val/loss", raises: Exception | None = None):
        self.left_behind_at = left_behind_at
        self.monitor = monitor
        self.raises = raises
        self.reported: dict[int, float] = {}

    def report(self, value: float, step: int) -> bool:
        if self.raises is not None:
            raise self.raises
        self.reported[step] = value
        return step >= self.left_behind_at


def fit(directory: Path, told: Any) -> tuple[Trainer, BaseException | None]:
    trainer = make_trainer(directory, 6, Checkpoints(every_n_steps=100), Pruning(told))
    trainer.val_check_interval = 2
    try:
        trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    except Pruned as pruned:
        return trainer, pruned
    return trainer, None


def test_it_ends_at_the_step_and_is_saved(tmp_path: Path):
    told = Told(left_behind_at=4)
    trainer, raised = fit(tmp_path, told)
    assert list(told.reported) == [2, 4]
    assert told.reported[4] == float(trainer.callback_metrics["val/loss"])
    ended = ending(trainer, raised)
    assert (ended.status, ended.exit_code) == ("pruned", 0)
    assert (ended.why or "").endswith("earlier trials were better at step 4")
    assert find(tmp_path)[1]["global_step"] == 4


def test_one_that_is_through_is_complete(tmp_path: Path):
    told = Told(left_behind_at=6)
    trainer, raised = fit(tmp_path, told)
    assert list(told.reported) == [2, 4, 6]
    assert ending(trainer, raised).status == "finished"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (Told(2, monitor="val/bpd"), "val/bpd is not measured"),
        (
            Told(2, raises=OSError("no space left")),
            "the search is not told of step 2: OSError: no space left",
        ),
    ],
)
def test_a_search_that_hears_nothing_is_no_reason_to_end(
    told: Told, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        trainer, raised = fit(tmp_path, told)
    assert raised is None
    assert trainer.global_step == 6
    assert caplog.text.count(said) == 1
