"""The same command goes on with its run, whoever starts it again: bit for bit the undisturbed run."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, first_everyday, run_here

from ddpm.training.checkpoints import find
from ddpm.training.loggers.wandb_files import last_step

pytestmark = pytest.mark.e2e

SMOKE = (
    "experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=1", "logger=none",
    "callbacks.checkpoints.every_n_steps=5",
)  # fmt: skip


def ends(at: list[int], *, rank: int = 0, kill: bool = True) -> tuple[str, ...]:
    """The words of a command whose starts end at these steps, and the one after them does not."""
    return (
        "callbacks.ends._target_=sabotage.Ends", f"callbacks.ends.at={at}".replace(" ", ""),
        f"callbacks.ends.rank={rank}", f"callbacks.ends.kill={str(kill).lower()}",
        "allow_targets=[sabotage]",
    )  # fmt: skip


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "SLURM_"))}
    paths = [str(ROOT / "tests" / "extensions"), kept.get("PYTHONPATH", "")]
    kept["WANDB_ERROR_REPORTING"] = "false"
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}


def record(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "run.json").read_text())


def rows(directory: Path) -> list[dict[str, str]]:
    """Of metrics.csv, without how long everything took."""
    with (directory / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if not name.startswith("perf/")}
            for row in csv.DictReader(file)
        ]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = find(one)[1], find(other)[1]
    assert first["global_step"] == second["global_step"]
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, weights in first["state_dict"].items():
        assert torch.equal(weights, second["state_dict"][name]), name
    for name, weights in first["ema"]["parameters"].items():
        assert torch.equal(weights, second["ema"]["parameters"][name]), name
    for index, state in first["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, second["optimizer_states"][0]["state"][index][name]), name
    assert rows(one) == rows(other)


@pytest.fixture(autouse=True)
def extensions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "extensions"))
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_the_same_command_goes_on_until_all_is_done(
    smoke_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
):
    """It fails before anything is saved, and in the middle; then it is done, and says so."""
    command = (*SMOKE, *ends([3, 13], kill=False), "hydra.run.dir=run")
    assert run_here(monkeypatch, "train", *command) == 1
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")] == []
    assert "continue it   the same command again" in capsys.readouterr().out
    assert run_here(monkeypatch, "train", *command) == 1
    assert run_here(monkeypatch, "train", *command) == 0
    assert_same_run(tmp_path / "run", smoke_run)
    found = record(tmp_path / "run")
    assert [(start["step"], start["status"]) for start in found["starts"]] == [
        (0, "failed"), (0, "failed"), (10, "finished"),
    ]  # fmt: skip
    assert found["wall_seconds"] == pytest.approx(sum(start["seconds"] for start in found["starts"]), abs=0.1)
    capsys.readouterr()
    before = contents(tmp_path / "run")
    assert run_here(monkeypatch, "train", *command, prepare=lambda *_: pytest.fail("was built")) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "run: finished at step 20 already (trainer.max_steps=20 is reached); train on with "
    )
    assert said.rstrip().endswith("train.py ckpt=run trainer.max_steps=40") or "ddpm train ckpt=run" in said
    assert said.count("\n") == 1
    assert contents(tmp_path / "run") == before


def test_with_more_steps_it_trains_on(smoke_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    command = (*SMOKE, "hydra.run.dir=run")
    assert run_here(monkeypatch, "train", *command, "trainer.max_steps=10") == 0
    assert run_here(monkeypatch, "train", *command) == 0
    assert_same_run(tmp_path / "run", smoke_run)


@pytest.mark.parametrize("origin", first_everyday(["ckpt", "init"]))
def test_a_directory_of_its_own_comes_before_what_ckpt_and_init_name(
    origin: str, smoke_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Queued again, the command still says where the run began."""
    begun = {"ckpt": 20, "init": 0}[origin]
    words = (*SMOKE, f"{origin}={smoke_run}", f"trainer.max_steps={begun + 10}")
    command = (*words, "hydra.run.dir=run", *ends([begun + 2, begun + 7], kill=False))
    for code in (1, 1, 0):
        assert run_here(monkeypatch, "train", *command) == code
    assert [start["step"] for start in record(tmp_path / "run")["starts"]] == [begun, begun, begun + 5]
    assert run_here(monkeypatch, "train", *words, "hydra.run.dir=whole") == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def wandb_run(directory: Path) -> tuple[set[str], list[int]]:
    """The ids of an offline W&B run, and the steps of its rows, read by W&B's own tool."""
    (file,) = directory.glob("run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    records = [json.loads(line) for line in done.stdout.splitlines()]
    ids = {one["run"]["run_id"] for one in records if one["type"] == "run"}
    return ids, [one["history"]["item"]["_step"] for one in records if one["type"] == "history"]


def cut_within_a_row(file: Path, step: int) -> None:
    """As a killed run leaves it: up to somewhere within a record, that of a step."""
    for size in range(file.stat().st_size, 0, -50):
        os.truncate(file, size)
        found = last_step(file.parent)
        if found is not None and found < step:
            return


@pytest.mark.parametrize("step", first_everyday([8, 12]))
def test_offline_every_start_goes_on_in_the_same_wandb_run(
    step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
):
    """Though the first was killed, and some of what it had logged was not on the disk yet, or was, and comes
    again after its last checkpoint.
    """
    command = (*SMOKE, "logger=wandb", *ends([13], kill=False), "hydra.run.dir=run", "callbacks.samples=null")
    assert run_here(monkeypatch, "train", *command) == 1
    (first,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (file,) = first.glob("*.wandb")
    cut_within_a_row(file, step)
    assert last_step(first) == step - 1
    capsys.readouterr()
    assert run_here(monkeypatch, "train", *command) == 0
    (second,) = set((tmp_path / "run" / "wandb").glob("offline-run-*")) - {first}
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  dashboard ")]
    assert line.split()[1:] == [
        "wandb",
        "sync",
        *(str(path.relative_to(tmp_path)) for path in (first, second)),
    ]
    (ids, begun), (same, went_on) = wandb_run(first), wandb_run(second)
    assert ids == same == {record(tmp_path / "run")["wandb_id"]}
    assert begun[-1] == min(step - 1, 9), "the row of the checkpoint's step is completed in the next start"
    assert [*begun, *went_on] == list(range(21))


def start(*words: str, cwd: Path, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=cwd, env=environment(**variables),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.long
def test_a_job_of_slurm_that_is_queued_again_goes_on(smoke_run: Path, tmp_path: Path):
    """Three starts with one id, the first two killed; beside it another command of the same job."""
    job = {"SLURM_JOB_ID": "4711", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train.sh"}
    command = (*SMOKE, *ends([3, 13]))
    for code in (-signal.SIGKILL, -signal.SIGKILL, 0):
        process = start(*command, cwd=tmp_path, **job)
        said = process.communicate(timeout=300)[0]
        assert process.returncode == code, said
    (directory,) = (tmp_path / "logs" / "train").iterdir()
    assert directory.name.startswith("slurm_4711_")
    assert_same_run(directory, smoke_run)
    assert [(one["step"], one["status"]) for one in record(directory)["starts"]] == [
        (0, "killed"), (0, "killed"), (10, "finished"),
    ]  # fmt: skip
    process = start(*SMOKE, "seed=1", "trainer.max_steps=1", cwd=tmp_path, **job)
    assert process.wait(timeout=300) == 0
    assert {path.name for path in (tmp_path / "logs" / "train").iterdir()} == {
        directory.name, f"{directory.name}-2",
    }  # fmt: skip


@pytest.mark.slow
def test_torchrun_starts_again_until_it_is_done(tmp_path: Path):
    """Rank 1 dies twice."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2"]
    words = [*SMOKE, "trainer.devices=2"]
    disturbed = subprocess.run(
        [*torchrun, str(ROOT / "train.py"), *words, *ends([3, 13], rank=1)],
        cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert disturbed.returncode == 0, disturbed.stderr
    (directory,) = (tmp_path / "logs" / "train").iterdir()
    assert [one["step"] for one in record(directory)["starts"]] == [0, 0, 10]
    process = start(*words, f"hydra.run.dir={tmp_path / 'whole'}", cwd=tmp_path)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert_same_run(directory, tmp_path / "whole")


@pytest.mark.slow
def test_of_two_programs_started_at_once_one_trains_and_one_is_told(smoke_run: Path, tmp_path: Path):
    for attempt in range(3):
        command = (*SMOKE, f"hydra.run.dir={tmp_path / str(attempt)}")
        processes = [start(*command, cwd=tmp_path) for _ in range(2)]
        said = [process.communicate(timeout=300)[0] for process in processes]
        assert sorted(process.returncode for process in processes) == [0, 2], said
        told = next(text for text in said if "error: " in text)
        assert "writes there" in told
        assert "Traceback" not in told
        assert_same_run(tmp_path / str(attempt), smoke_run)


@pytest.mark.slow
def test_a_run_that_stood_still_while_another_machine_took_it_over_writes_nothing_more(tmp_path: Path):
    """SIGSTOP, a lock that another machine has written meanwhile, SIGCONT."""
    directory = tmp_path / "run"
    words = (*SMOKE, f"hydra.run.dir={directory}", "trainer.max_steps=100000", "callbacks.samples=null")
    process = start(*words, cwd=tmp_path)
    deadline = time.monotonic() + 200
    while not (directory / "metrics.csv").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    theirs = json.dumps(
        {**json.loads((directory / ".lock").read_text()), "host": "node7", "machine": "other"}
    )
    (directory / ".lock").write_text(theirs)
    before = contents(directory)
    process.send_signal(signal.SIGCONT)
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 1
    assert "another process has taken the run directory over" in said
    after = contents(directory)
    assert {name for name in after if after[name] != before.get(name)} == {"train.log"}
    assert (directory / ".lock").read_text() == theirs
