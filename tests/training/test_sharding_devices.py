"""Sharded training on several devices: the whole program, and parts against the whole."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, made_once, run_program

from ddpm.training.checkpoints import LAST, at_step, find, load, parts

pytestmark = pytest.mark.e2e

BASE = (
    "experiment=smoke", "trainer.accelerator=cpu", "logger=none", "callbacks.samples=null",
    "data.batch_size=60", "trainer.accumulate_grad_batches=2",
)  # fmt: skip

WAYS = {
    "one": ("trainer.devices=1", "strategy=auto"),
    "ddp2": ("trainer.devices=2", "strategy=ddp"),
    "fsdp2": ("trainer.devices=2", "strategy=fsdp"),
    "fsdp3": ("trainer.devices=3", "strategy=fsdp"),
    "parts2": ("trainer.devices=2", "strategy=fsdp", "checkpoint=sharded"),
    "parts3": ("trainer.devices=3", "strategy=fsdp", "checkpoint=sharded"),
}


def train(directory: Path, *words: str) -> None:
    outcome = run_program("train.py", *words, f"hydra.run.dir={directory}", cwd=directory.parent)
    assert outcome.returncode == 0, outcome.said


def rows(directory: Path, name: str) -> np.ndarray:
    with (directory / "metrics.csv").open(newline="") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file) if row.get(name)])


RING = {
    "one": "fsdp2", "fsdp2": "ddp2", "ddp2": "parts3", "parts3": "parts2", "parts2": "fsdp3", "fsdp3": "one",
}  # fmt: skip
"""Each way once as the first and once as the second."""


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of 20 steps on one device."""

    def make(directory: Path) -> None:
        train(directory / "run", *BASE, *WAYS["one"])

    return made_once(tmp_path_factory, "whole_sharding", make) / "run"


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(way, marks=pytest.mark.slow if way in ("one", "fsdp2") else pytest.mark.long)
        for way in RING
    ],
)
def test_one_way_goes_on_from_another(first: str, whole: Path, tmp_path: Path):
    train(tmp_path / "half", *BASE, *WAYS[first], "trainer.max_steps=11")
    train(tmp_path / "run", f"ckpt={tmp_path / 'half'}", *WAYS[RING[first]], "trainer.max_steps=20")
    for name in ("train/loss", "train/gradient_norm", "val/loss"):
        np.testing.assert_allclose(rows(tmp_path / "run", name), rows(whole, name), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["fsdp2", "parts2"])
def test_a_sharded_run_goes_on_bit_for_bit_and_from_the_one_before_a_damaged_checkpoint(
    way: str, tmp_path: Path
):
    train(tmp_path / "whole", *BASE, *WAYS[way])
    train(tmp_path / "half", *BASE, *WAYS[way], "trainer.max_steps=11")
    newest = tmp_path / "half" / "checkpoints" / at_step(11)
    if way == "fsdp2":
        newest.with_name(LAST).unlink()
        damage(newest)
    else:
        damage(next((newest.parent / parts.DIRECTORY).glob(f"{newest.stem}.*")))
    outcome = run_program(
        "train.py", f"ckpt={tmp_path / 'half'}", "trainer.max_steps=20", "hydra.run.dir=rest", cwd=tmp_path
    )
    assert outcome.returncode == 0, outcome.said
    assert "a checksum differs" in outcome.said
    assert f"falling back to {newest.with_name(at_step(10))}" in outcome.said.replace("\n", "")
    ours, theirs = (load(tmp_path / name / "checkpoints" / LAST) for name in ("rest", "whole"))
    assert_equal(*({k: one[k] for k in ("state_dict", "ema", "optimizer_states")} for one in (ours, theirs)))
    assert rows(tmp_path / "rest", "train/loss").tolist() == rows(tmp_path / "whole", "train/loss").tolist()


def damage(file: Path) -> None:
    """Flip a bit."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(content)


def assert_equal(one: Any, other: Any) -> None:
    """Bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_equal(value, other[key])
    elif isinstance(one, list):
        for value, another in zip(one, other, strict=True):
            assert_equal(value, another)
    else:
        assert one == other


@pytest.mark.slow
def test_all_devices_draw_the_grid_that_one_draws(tmp_path: Path):
    words = [word for word in BASE if "samples" not in word]
    for way in ("one", "fsdp2"):
        train(tmp_path / way, *words, *WAYS[way], "trainer.max_steps=1", "callbacks.samples.every_n_steps=1")
    pictures = [tmp_path / way / "samples" / "step_00000001.png" for way in ("one", "fsdp2")]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(1, marks=pytest.mark.long),
        pytest.param(2, marks=pytest.mark.slow),
        pytest.param(3, marks=pytest.mark.long),
    ],
)
def test_parts_of_networks_learn_what_the_whole_learns(number: int, tmp_path: Path):
    command = [sys.executable, str(ROOT / "tests" / "sharded.py"), str(tmp_path / "store")]
    processes = [
        subprocess.Popen([*command, str(rank), str(number)], stderr=subprocess.PIPE, text=True)
        for rank in range(number)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * number, said


@pytest.mark.slow
def test_networks_that_begin_differently_and_unequal_validations_are_one_run(tmp_path: Path):
    """In a script of a person's own."""
    script = [sys.executable, str(ROOT / "tests" / "extensions" / "own_sharded.py")]
    for way in ("fsdp", "ddp"):
        process = subprocess.run(
            [*script, way, str(tmp_path / way)], capture_output=True, text=True, timeout=300
        )
        assert process.returncode == 0, process.stderr
    ours, theirs = (
        [torch.load(tmp_path / way / f"{rank}.pt") for rank in range(2)] for way in ("fsdp", "ddp")
    )
    assert ours[0] == ours[1]
    assert ours[0].keys() == theirs[0].keys()
    for name, value in ours[0].items():
        assert value == pytest.approx(theirs[0][name], rel=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        ("callbacks.samples.every_n_steps=5", "callbacks.samples.sampler.num_steps=1000"),
        ("callbacks.samples=null", "trainer.val_check_interval=2"),
    ],
    ids=["grid", "validation"],
)  # fmt: skip
@pytest.mark.slow
def test_a_signal_to_one_device_ends_all_wherever_they_are(words: tuple[str, ...], tmp_path: Path):
    command = ("experiment=smoke", "trainer.accelerator=cpu", "logger=none", *WAYS["fsdp2"])
    run = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command, *words, "trainer.max_steps=100000",
         f"hydra.run.dir={run}"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 200
        while not (run / "metrics.csv").exists() or len(rows(run, "train/loss")) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        rank_1 = next(
            int(pid) for pid in children if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(rank_1, signal.SIGTERM)
        assert process.wait(timeout=300) == 128 + signal.SIGTERM
    assert find(run)[1]["global_step"] >= 5
