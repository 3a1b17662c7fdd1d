"""How the whole program ends that somebody or something disturbs, on two devices: the benchmark's cases."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def outcome(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "signals.py"), *words]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("case", ["SIGTERM/1/grid", "SIGUSR2/0/training"])
def test_a_signal_saves_and_ends_all(tmp_path: Path, case: str):
    done = outcome(tmp_path, "--not-continued", "--only", case)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", ["SIGINT/all/validation", "SIGHUP/0/start-up", "SIGUSR1/1/training"])
def test_the_same_command_ends_bit_equal(tmp_path: Path, case: str):
    done = outcome(tmp_path, "--only", case)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "case", ["SIGKILL/0/training", "SIGKILL/1/grid", "SIGSTOP/0/grid", "exception/1/training"]
)
def test_a_rank_that_dies_stops_or_fails_is_named(tmp_path: Path, case: str):
    done = outcome(tmp_path, "--hangs", "--only", case)
    assert done.returncode == 0, done.stdout + done.stderr
