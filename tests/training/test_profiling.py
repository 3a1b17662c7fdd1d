"""A profiler reports in the log and in a file of the run."""

import logging
from pathlib import Path

import pytest
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.profiling import Unprofiled, profiler


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "shown"),
    [("simple", "run_training_batch"), ("advanced", "cumtime"), ("pytorch", "Self CPU")],
)
def test_the_report_is_in_the_log_and_in_a_file(
    tmp_path: Path, name: str, shown: str, caplog: pytest.LogCaptureFixture
):
    trainer = make_trainer(tmp_path, 6)
    trainer.profiler = profiler(name, tmp_path)
    with caplog.at_level(logging.INFO):
        trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=8, seed=0))
    assert shown in (tmp_path / "profile.txt").read_text()
    assert shown in caplog.text


def test_none_and_unknown_ones(tmp_path: Path):
    assert isinstance(profiler(None, tmp_path), Unprofiled)
    with pytest.raises(ValueError, match=r"profiler=simpel must be simple, advanced, pytorch or null"):
        profiler("simpel", tmp_path)
