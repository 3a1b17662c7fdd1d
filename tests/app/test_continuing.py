"""Continuing a run: what is taken over, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from conftest import composed

from ddpm.app.continuing import Resume
from ddpm.app.continuing import resume as resumed
from ddpm.errors import UsageError
from ddpm.training.checkpoints import LAST, AtomicCheckpointIO
from ddpm.training.loggers import MetricsCSV

DATA = {"fingerprint": "of the images"}


def checkpoint_of(directory: Path, config: dict[str, Any], step: int) -> Path:
    (directory / "checkpoints").mkdir(parents=True)
    weights = {"state_dict": {}, "ema": {"parameters": {}, "num_updates": step}}
    AtomicCheckpointIO().save_checkpoint(
        {"config": config, "data": DATA, "global_step": step, **weights}, directory / "checkpoints" / LAST
    )
    return directory


def test_a_run_continues_with_its_own_configuration(tmp_path: Path):
    config = composed("train")
    run = checkpoint_of(tmp_path / "run", config, 100)
    resume = resumed({**config, "ckpt": str(run)}, DATA)
    assert resume.step == 100
    assert resume.run == run


def test_a_run_does_not_train_on_at_a_rate_of_zero(tmp_path: Path):
    config = composed("train")
    total = config["lr_schedule"]["total_steps"]
    run = checkpoint_of(tmp_path / "run", config, total)
    longer = {**config, "ckpt": str(run), "trainer": {**config["trainer"], "max_steps": total + 1}}
    with pytest.raises(
        UsageError,
        match=f"learning rate of this run falls to 0 at step {total}; .*lr_schedule=constant",
    ):
        resumed(longer, DATA)
    on = composed("train", "lr_schedule=constant", f"trainer.max_steps={total + 1}")
    assert resumed({**on, "ckpt": str(run)}, DATA).step == total


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("schedule=cosine", "schedule._target_"),
        ("conditional=true", "conditional"),
        ("data.label_drop=0.5", "data.label_drop"),
        ("model.channels=64", "model.channels"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
    ],
)
def test_another_run_is_refused_by_name(override: str, named: str, tmp_path: Path):
    run = checkpoint_of(tmp_path / "run", composed("train"), 100)
    with pytest.raises(UsageError, match=f"belongs to another run: {named} is .* here and .* checkpoint"):
        resumed({**composed("train", override), "ckpt": str(run)}, DATA)


def test_where_the_images_lie_may_differ_but_not_what_they_are(tmp_path: Path):
    run = checkpoint_of(tmp_path / "run", composed("train", "data.num_workers=0"), 100)
    config = {**composed("train", "data.num_workers=2"), "ckpt": str(run)}
    assert resumed(config, DATA).step == 100
    with pytest.raises(UsageError, match="the images are not those that it was trained on"):
        resumed(config, {"fingerprint": "of others"})


def test_continuing_in_place_drops_what_came_after_the_checkpoint(tmp_path: Path):
    for step in (10, 20, 30):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / f"step_{step:08d}.ckpt").touch()
    (tmp_path / "metrics.csv").write_text("step,train/loss\n10,3.0\n20,2.0\n30,1.0\n")
    resume = Resume(tmp_path / "checkpoints/step_00000020.ckpt", 20, None)
    resume.take_over_history(MetricsCSV(tmp_path / "metrics.csv"))
    assert (tmp_path / "metrics.csv").read_text() == "step,train/loss\n10,3.0\n20,2.0\n"
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step_00000010.ckpt", "step_00000020.ckpt"]


def test_continuing_elsewhere_leaves_the_first_run_alone(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "checkpoints").mkdir(parents=True)
    second.mkdir()
    for step in (20, 30):
        (first / "checkpoints" / f"step_{step:08d}.ckpt").touch()
    (first / "metrics.csv").write_text("step,train/loss\n20,2.0\n30,1.0\n")
    resume = Resume(first / "checkpoints/step_00000020.ckpt", 20, None)
    resume.take_over_history(MetricsCSV(second / "metrics.csv"))
    assert (second / "metrics.csv").read_text() == "step,train/loss\n20,2.0\n"
    assert (first / "metrics.csv").read_text() == "step,train/loss\n20,2.0\n30,1.0\n"
    assert len(list((first / "checkpoints").iterdir())) == 2
