"""How the whole program ends that somebody or something disturbs, on two devices: the benchmark's cases."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytestmark = pytest.mark.e2e


def outcome(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "signals.py"), *words]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)


def first_slow(first: str, *others: str) -> list[Any]:
    """The cases of a test, of which all but the first are long."""
    return [
        pytest.param(first, marks=pytest.mark.slow),
        *(pytest.param(other, marks=pytest.mark.long) for other in others),
    ]


@pytest.mark.parametrize("case", first_slow("SIGTERM/1/grid", "SIGUSR2/0/training"))
def test_a_signal_saves_and_ends_all(tmp_path: Path, case: str):
    done = outcome(tmp_path, "--not-continued", "--only", case)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "case", first_slow("SIGINT/all/validation", "SIGHUP/0/start-up", "SIGUSR1/1/training")
)
def test_the_same_command_ends_bit_equal(tmp_path: Path, case: str):
    done = outcome(tmp_path, "--only", case)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "case", first_slow("SIGKILL/1/grid", "SIGKILL/0/training", "SIGSTOP/0/grid", "exception/1/training")
)
def test_a_rank_that_dies_stops_or_fails_is_named(tmp_path: Path, case: str):
    done = outcome(tmp_path, "--hangs", "--only", case)
    assert done.returncode == 0, done.stdout + done.stderr
