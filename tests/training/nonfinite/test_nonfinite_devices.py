"""Numbers that are not finite on one of two devices, and what the whole program does about them."""

import csv
import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Outcome, run_program

from ddpm.training.checkpoints import find

pytestmark = pytest.mark.e2e

BASE = ("experiment=smoke", "logger=none", "callbacks.samples=null", "allow_targets=[plants]")


def run(directory: Path, *arguments: str) -> tuple[Outcome, dict[str, Any]]:
    path = os.pathsep.join([str(ROOT / "tests" / "extensions"), os.environ.get("PYTHONPATH", "")])
    outcome = run_program(
        "train.py", *BASE, f"hydra.run.dir={directory}", *arguments,
        cwd=directory.parent, env={"PYTHONPATH": path.strip(os.pathsep)},
    )  # fmt: skip
    return outcome, json.loads((directory / "run.json").read_text())


def plant(what: str, step: int, rank: int) -> list[str]:
    return [
        "callbacks.plant._target_=plants.Plant", f"callbacks.plant.what={what}",
        f"callbacks.plant.step={step}", f"callbacks.plant.rank={rank}",
    ]  # fmt: skip


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_devices_go_back_together(strategy: str, tmp_path: Path):
    directory = tmp_path / "run"
    outcome, record = run(
        directory,
        "trainer.devices=2",
        f"strategy={strategy}",
        "on_nonfinite=rollback",
        *plant("loss", step=12, rank=1),
    )
    assert outcome.returncode == 0, outcome.said
    assert record["status"] == "finished"
    (event,) = record["rollbacks"]
    assert (event["step"], event["to_step"]) == (13, 10)
    assert "step 13: the loss of image 33 of the batch" in event["why"]
    assert "on rank 1" in event["why"]
    assert [row["step"] for row in rows(directory)] == [str(step) for step in range(1, 21)]
    assert [float(row["train/learning_rate"]) for row in rows(directory)] == [2e-3] * 10 + [1e-3] * 10
    assert {path.name for path in (directory / "nonfinite/step_00000013").iterdir()} == {
        "rank_1.json", "rank_1.png",
    }  # fmt: skip
    assert find(directory)[1]["nonfinite"]["returns"] == [[13, 10]]


SLOW = {("ddp", "stop", "weight"), ("fsdp", "skip", "gradient")}
"""Each strategy and each policy among them; the other forms are long."""


@pytest.mark.parametrize(
    ("strategy", "policy", "what"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case in SLOW else pytest.mark.long)
        for case in product(("ddp", "fsdp"), ("stop", "skip"), ("loss", "gradient", "weight"))
    ],
)
def test_what_one_of_two_devices_sees_is_known_to_both(what: str, policy: str, strategy: str, tmp_path: Path):
    directory = tmp_path / "run"
    outcome, record = run(
        directory,
        "trainer.devices=2",
        f"strategy={strategy}",
        f"on_nonfinite={policy}",
        *plant(what, step=12, rank=1),
    )
    if policy == "skip" and what != "weight":
        assert outcome.returncode == 0, outcome.said
        assert [row["diagnostics/skipped_steps"] for row in rows(directory)][11:14] == ["", "1", "1"]
        return
    assert outcome.returncode == 1, outcome.said
    assert record["status"] == "failed"
    assert record["why"].count("step 13: ") == 1
    if (what, strategy) == ("gradient", "fsdp"):  # which no rank can compute alone
        assert "the gradient of conv_in.bias" in record["why"]
    else:
        assert "on rank 1" in record["why"]
    assert "Traceback" not in outcome.said
    names = {path.name for path in (directory / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "step_00000010.ckpt"}


@pytest.mark.slow
def test_a_rate_that_destroys_the_network_leaves_good_checkpoints(tmp_path: Path):
    directory = tmp_path / "run"
    outcome, record = run(
        directory, "trainer.devices=1", "optimizer.lr=1e9", "trainer.gradient_clip_val=null",
        "callbacks.checkpoints.every_n_steps=1",
    )  # fmt: skip
    assert outcome.returncode == 1
    assert record["status"] == "failed"
    last = max(int(row["step"]) for row in rows(directory))
    assert record["why"].startswith(f"step {last + 1}: ")
    assert (directory / "nonfinite" / f"step_{last + 1:08d}" / "report.json").exists()
    assert all(weight.isfinite().all() for weight in find(directory)[1]["state_dict"].values())
