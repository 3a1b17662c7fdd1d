"""Samples and measurements on several devices are those of one, whoever is killed in between."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, run_program

ON_CPU = ("trainer.accelerator=cpu", "sampler=ddim", "sampler.num_steps=10")


def sampled(out: Path, *words: str) -> np.ndarray:
    """The images that a process of its own draws, uint8 [N, H, W, C]."""
    outcome = run_program("sample.py", f"out={out}", *ON_CPU, *words, cwd=out.parent)
    assert outcome.returncode == 0, outcome.said
    return np.load(out / "samples.npz")["arr_0"]


@pytest.mark.e2e
@pytest.mark.slow
def test_any_number_of_devices_draws_the_same_images(smoke_run: Path, tmp_path: Path):
    words = (f"ckpt={smoke_run}", "n=64", "batch_size=16")
    one = sampled(tmp_path / "1", *words)
    for devices in (2, 3):
        assert np.array_equal(sampled(tmp_path / str(devices), *words, f"trainer.devices={devices}"), one)
    sharded = sampled(tmp_path / "fsdp", *words, "trainer.devices=2", "strategy=fsdp")
    assert np.abs(sharded.astype(int) - one).max() <= 1
    free = sampled(tmp_path / "free", f"ckpt={smoke_run}", "n=64", "trainer.devices=3")
    assert np.abs(free.astype(int) - one).max() <= 1
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(ROOT / "sample.py")]
    subprocess.run(
        [*torchrun, *ON_CPU, *words, "trainer.devices=2", f"out={tmp_path / 'torchrun'}"],
        check=True, timeout=200, cwd=tmp_path,
    )  # fmt: skip
    assert np.array_equal(np.load(tmp_path / "torchrun/samples.npz")["arr_0"], one)


@pytest.mark.e2e
@pytest.mark.long
def test_a_sampling_killed_again_and_again_is_as_an_undisturbed_one(smoke_run: Path, tmp_path: Path):
    """Either rank, at any moment, by a signal that can be heard or not."""
    words = (f"ckpt={smoke_run}", "n=320", "batch_size=16", "trainer.devices=2", "sampler.num_steps=400")
    undisturbed = sampled(tmp_path / "undisturbed", *words)
    chance, out, kills = random.Random(5), tmp_path / "out", 0
    for start in range(10):
        command = [sys.executable, str(ROOT / "sample.py"), f"out={out}", *ON_CPU, *words]
        leader = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            code = leader.wait(timeout=chance.uniform(5, 12) if start < 4 else 200)
        except subprocess.TimeoutExpired:
            victims = [leader.pid, *_children(leader.pid)]
            victim, signum = chance.choice(victims), chance.choice([signal.SIGKILL, signal.SIGTERM])
            subprocess.run(["kill", f"-{signum.value}", str(victim)], check=False, timeout=300)
            code = leader.wait(timeout=300)
            kills += 1
            assert code != 0
            for _ in range(200):
                if not any(Path(f"/proc/{pid}").exists() for pid in victims[1:]):
                    break
                time.sleep(0.1)
            else:
                pytest.fail("a rank lives on")
        if code == 0:
            break
    assert kills > 0
    assert np.array_equal(np.load(out / "samples.npz")["arr_0"], undisturbed)
    assert not (out / "pieces").exists()


def _children(pid: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False, timeout=300
    ).stdout
    return [int(word) for word in found.split()]


@pytest.mark.e2e
@pytest.mark.slow
def test_two_devices_measure_what_one_does(smoke_run: Path, tmp_path: Path):
    found = []
    for devices, strategy in ((1, "auto"), (2, "ddp"), (2, "fsdp")):
        out = tmp_path / f"{devices} {strategy}"
        words = (
            f"ckpt={smoke_run}", "metrics.nll.n=32", "metrics.nll.num_steps=4", "batch_size=8",
            "trainer.accelerator=cpu", f"trainer.devices={devices}", f"strategy={strategy}",
            f"hydra.run.dir={out}",
        )  # fmt: skip
        outcome = run_program("evaluate.py", *words, cwd=tmp_path)
        assert outcome.returncode == 0, outcome.said
        found.append(json.loads((out / "metrics.json").read_text())["nll"])
    assert found[0] == found[1]
    assert found[2]["bits_per_dim"] == pytest.approx(found[0]["bits_per_dim"], rel=1e-6)
    assert found[0]["images"] == 32


QUALITY = (
    "metrics=[fd_classifier,nearest,own_label]", "n=37", "batch_size=8", "trainer.accelerator=cpu",
    "metrics.fd_classifier.replicates=3", "sampler.num_steps=40",
)  # fmt: skip


@pytest.mark.e2e
@pytest.mark.slow
def test_samples_are_measured_alike_on_any_number_of_devices_and_after_a_kill(
    conditional_run: Path, tmp_path: Path, own_cache: Path
):
    def command(out: Path, *words: str) -> tuple[str, ...]:
        return (f"ckpt={conditional_run}", *QUALITY, f"hydra.run.dir={out}", *words)

    def values(out: Path) -> dict[str, Any]:
        found = json.loads((out / "metrics.json").read_text())
        measured = {name: found[name] for name in ("fd_classifier", "nearest", "own_label")}
        for one in measured.values():
            for cost in ("seconds_per_image", "devices"):  # differs, as it must
                del one["of"][cost]
        return measured

    for devices in (1, 2, 3):
        out = tmp_path / str(devices)
        outcome = run_program("evaluate.py", *command(out, f"trainer.devices={devices}"), cwd=tmp_path)
        assert outcome.returncode == 0, outcome.said
    one = values(tmp_path / "1")
    assert "fd37_train_classifier_ema_ddim40_guided2" in one["fd_classifier"]

    killed = tmp_path / "killed"
    words = [sys.executable, str(ROOT / "evaluate.py"), *command(killed)]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(6000):
        if any((killed / "pieces").glob("images/[0-9]*.npz")) or process.poll() is not None:
            break
        time.sleep(0.01)
    process.kill()
    assert process.wait(timeout=300) == -signal.SIGKILL
    assert any((killed / "pieces").glob("images/[0-9]*.npz"))
    outcome = run_program("evaluate.py", *command(killed), cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    assert "of 37 are there from an earlier start" in outcome.said
    for name in ("2", "3", "killed"):
        _assert_alike(values(tmp_path / name), one, name)
        assert not (tmp_path / name / "pieces").exists()


def _assert_alike(found: Any, expected: Any, where: str) -> None:
    """Numbers to 1e-6, all else the same."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for key, value in expected.items():
            _assert_alike(found[key], value, f"{where}: {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for one, other in zip(found, expected, strict=True):
            _assert_alike(one, other, where)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6), where
    else:
        assert found == expected, where


@pytest.mark.e2e
@pytest.mark.slow
def test_ranks_that_were_asked_for_something_else_are_told(smoke_run: Path, tmp_path: Path):
    """As where one machine has another checkpoint or another command."""
    command = [sys.executable, str(ROOT / "sample.py"), f"ckpt={smoke_run}", *ON_CPU, "trainer.devices=2"]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29671", "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [*command, f"n={32 + rank}", f"out={tmp_path / 'out'}"],
            cwd=tmp_path,
            env={**_plain_environment(), **environment, "LOCAL_RANK": str(rank), "NODE_RANK": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    assert "runs something else: n is 33 there and 32 on rank 0" in said[0]


def _plain_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("MASTER_", "WORLD_"))}
