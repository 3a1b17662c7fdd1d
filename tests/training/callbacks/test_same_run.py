"""Ranks that were started as different runs do not train as one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, composed

from ddpm.app import same_run
from ddpm.training.callbacks.same_run import NAMED, difference


def test_ranks_that_are_alike_are_one_run():
    assert difference([("a", {"torch": "2.11"}), ("b", {"torch": "2.11"})]) is None


def test_the_first_that_is_not_is_named_with_both_values():
    said = difference([("a", {"torch": "2.11", "seed": "0"}), ("b", {"torch": "2.11", "seed": "1"})])
    assert said is not None
    assert said.startswith(
        "rank 1 on b runs something else: seed is 1 there and 0 on rank 0; start all ranks"
    )


def test_a_key_that_one_has_alone_is_a_difference():
    said = difference([("a", {}), ("a", {}), ("c", {"model.channels": "3"})])
    assert said is not None
    assert "rank 2 on c runs something else: model.channels is 3 there and None on rank 0" in said


def test_no_more_is_named_than_is_read():
    said = difference([("a", {}), ("b", {str(i): "x" for i in range(NAMED + 3)})])
    assert said is not None
    assert said.count("on rank 0") == NAMED
    assert "and 3 more" in said


def test_what_makes_a_run_is_its_identity_and_where_things_lie_is_not():
    plain = same_run.identity(composed("train"), "abc")
    assert {"the code of ddpm", "Python", "torch", "lightning", "the set of images", "seed"} <= plain.keys()
    assert plain == same_run.identity(composed("train", "trainer.devices=2", "data.num_workers=3"), "abc")
    for changed in (
        same_run.identity(composed("train", "model.channels=16"), "abc"),
        same_run.identity(composed("train", "trainer.max_steps=7"), "abc"),
        same_run.identity(composed("train"), "abd"),
    ):
        assert changed != plain


def test_other_code_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(same_run, "__file__", str(tmp_path / "app" / "same_run.py"))
    (tmp_path / "a.py").write_text("1")
    first = same_run._hash_of_code()
    assert first == same_run._hash_of_code()
    (tmp_path / "a.py").write_text("2")
    assert first != same_run._hash_of_code()


@pytest.mark.e2e
@pytest.mark.parametrize(
    "other",
    [
        pytest.param("model.dropout=0.5", marks=pytest.mark.slow),
        pytest.param("seed=1", marks=pytest.mark.long),
        pytest.param("trainer.max_steps=21", marks=pytest.mark.long),
    ],
)
def test_they_end_before_the_first_step(other: str, tmp_path: Path):
    """As srun starts them: one of them with another word."""
    with subprocess.Popen(["sleep", "0"]) as sleep:
        port = 20_000 + sleep.pid % 10_000
    job = {
        "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train.sh", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "MASTER_PORT": str(port),
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip
    words = ["experiment=smoke", "trainer.devices=2", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words, *own], cwd=tmp_path,
            env={**os.environ, **job, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank, own in enumerate([[], [other]])
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in ranks]
    key = other.partition("=")[0]
    assert [process.returncode for process in ranks] == [2, 2], said
    assert f"runs something else: {key} is" in said[0]
    assert said[0].count("runs something else") == 1
    assert "Traceback" not in said[0] + said[1]
    assert not list((tmp_path / "run").rglob("*.ckpt"))
