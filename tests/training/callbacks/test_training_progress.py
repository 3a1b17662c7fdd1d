"""What the terminal says of a training on its way."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.samplers import DDIM
from ddpm.runtime.progress import Countdown
from ddpm.training.callbacks import progress
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.diagnostics import Diagnostics
from ddpm.training.callbacks.progress import TrainingProgress
from ddpm.training.callbacks.samples import SampleGrids


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


def test_what_comes_between_the_steps_is_known_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[Countdown] = []
    monkeypatch.setattr(
        progress, "Countdown", lambda *arguments: made.append(Countdown(*arguments)) or made[-1]
    )
    module = make_module()
    module.sampler = DDIM(50)
    grids = SampleGrids(DDIM(6), every_n_steps=4, n=16, final=True)
    others = Checkpoints(every_n_steps=3), Diagnostics(2), TrainingProgress()
    trainer = make_trainer(tmp_path, 9, grids, *others)
    trainer.val_check_interval = 5
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=8, seed=0))
    (countdown,) = made
    assert {pause.name: pause.every_n_steps for pause in countdown.pauses} == {
        "validation": 5, "grid": 4, "checkpoint": 3,
    }  # fmt: skip
    guesses = {pause.name: (pause.guess, pause.at_end) for pause in countdown.pauses}
    assert guesses["validation"] == (45 / 3, None), "360 images in 45 batches; a step is three passes"
    assert guesses["grid"] == pytest.approx((6 * 16 / 3 / 8, 50 * 16 / 3 / 8))
    assert all(pause.is_seen for pause in countdown.pauses)
    assert countdown._measured == 8, "what came after the last step was still under way"


def test_the_first_step_says_nothing_of_the_speed_once(monkeypatch: pytest.MonkeyPatch):
    """Two batches a step: the second step begins twice, and its speed counts from its first batch on."""
    begun: list[int] = []
    monkeypatch.setattr(progress.Countdown, "begin_here", lambda self, done: begun.append(done))
    callback = progress.TrainingProgress()
    callback._countdown, callback._begins_at = progress.Countdown("training", 9).__enter__(), 1
    for step in (0, 0, 1, 1, 2, 2):
        callback.on_train_batch_start(SimpleNamespace(global_step=step), None, None, 0)  # type: ignore[arg-type]
    callback._stop()
    assert begun == [1]
