"""What the terminal says of a training on its way."""

import logging
from pathlib import Path

import pytest
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks import progress
from ddpm.training.callbacks.progress import TrainingProgress


@pytest.mark.parametrize(("too_long", "said"), [(0.0, 1), (1e9, 0)])
def test_a_run_that_takes_days_on_a_cpu_is_remarked_upon_once(
    tmp_path: Path,
    too_long: float,
    said: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(progress, "TOO_LONG", too_long)
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tmp_path, 8, TrainingProgress())
        trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=8, seed=0))
    assert caplog.text.count("on this CPU: it is meant for a GPU; trainer.max_steps=N is shorter") == said
