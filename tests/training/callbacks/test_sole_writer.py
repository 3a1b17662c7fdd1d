"""A run whose directory somebody else has taken over ends before it writes anything there."""

from pathlib import Path

import pytest
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.sole_writer import SoleWriter
from ddpm.training.checkpoints import numbered
from ddpm.training.ending import TrainingError


def test_nothing_is_written_once_the_directory_is_lost(tmp_path: Path):
    asked = []

    def is_lost() -> bool:
        asked.append(None)
        return len(asked) > 4

    trainer = make_trainer(tmp_path, 9, SoleWriter(is_lost), Checkpoints(every_n_steps=1))
    with pytest.raises(TrainingError, match="another process has taken the run directory over"):
        trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    assert trainer.global_step <= 5
    assert max(numbered(tmp_path / "checkpoints")) < trainer.global_step
