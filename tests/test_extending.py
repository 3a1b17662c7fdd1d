"""docs/extending.md: the package that it makes, written out and run."""

import json
import os
from pathlib import Path

import pytest
from conftest import ROOT, files_on, run_program

WORDS = ["--config-dir", "my_conf", "allow_targets=[mylab]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `mylab/` and `my_conf/` as the page says, and one run in it."""
    cwd = tmp_path_factory.mktemp("mylab")
    for path, text in files_on(ROOT / "docs" / "extending.md").items():
        (cwd / path).parent.mkdir(parents=True, exist_ok=True)
        (cwd / path).write_text(text)
    return cwd


def program(script: str, *words: str, cwd: Path) -> str:
    path = os.pathsep.join([str(cwd), os.environ.get("PYTHONPATH", "")])
    outcome = run_program(script, *words, cwd=cwd, env={"PYTHONPATH": path})
    assert outcome.returncode == 0, outcome.said
    return outcome.stdout


@pytest.mark.e2e
def test_options_of_a_package_of_ones_own_train_draw_and_measure(place: Path):
    chosen = [
        "experiment=smoke", "trainer.devices=1", "schedule=power", "schedule.num_timesteps=50",
        "sampler=tempered", "sampler.num_steps=5", "sampler.temperature=0.5", "model=convnet", "data=stripes",
        "optimizer=decoupled", "lr_schedule=exponential", "logger=[wandb,json_lines]",
        "callbacks=[default,mean_image]", "hydra.run.dir=run",
    ]  # fmt: skip
    program("train.py", *WORDS, *chosen, cwd=place)
    rows = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "mylab/brightness" in row] == [10, 20]
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 21))
    rates = {row["step"]: row["train/learning_rate"] for row in rows if "train/loss" in row}
    assert rates[20] == pytest.approx(2e-3 * 0.999**19)  # the experiment's rate
    pictures = (place / "run").glob("wandb/offline-run-*/files/media/images/mylab/mean_*.png")
    assert sorted(int(path.name.split("_")[1]) for path in pictures) == [10, 20]

    program("sample.py", "ckpt=run", "allow_targets=[mylab]", "n=4", "out=drawn", cwd=place)
    assert (place / "drawn" / "grid.png").exists()
    measured = [
        "ckpt=run",
        "metrics=[denoising_error]",
        "metrics.denoising_error.t=40",
        "hydra.run.dir=measured",
    ]
    program("evaluate.py", *WORDS, *measured, cwd=place)
    found = json.loads((place / "measured" / "metrics.json").read_text())["denoising_error"]
    assert 0 < found["rmse"] < 2
    assert found["images"] == 64
