"""Standard output and standard error whose reader goes away, or whose disk is full, end nothing."""

import io
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from conftest import ROOT, first_everyday

from ddpm.app import streams

SPEAKS = """
    import logging, os, sys
    from pathlib import Path
    from ddpm.app import streams, terminal
    from ddpm.runtime.progress import Countdown
    terminal.set_up(Path(sys.argv[1]), leader=True)
    sys.stdin.readline()  # until the reader is gone
    with Countdown("counting", 3) as countdown:
        for step in range(3):
            print("printed", step)
            logging.getLogger("x").info("logged %d", step)
            countdown.advance(step)
    terminal.say("said")
    Path(sys.argv[1]).with_suffix(".leads").write_text(
        " ".join(os.readlink(f"/proc/self/fd/{number}") for number in (1, 2))
    )
    print("not flushed, and no new line", end="")
    sys.exit(7)
    """


def speaks(log: Path, **streams_: IO[bytes] | int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", textwrap.dedent(SPEAKS), str(log)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, **streams_)


def closed_pipes(log: Path) -> subprocess.Popen[bytes]:
    process = speaks(log, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    return process


def hung_up(log: Path) -> subprocess.Popen[bytes]:
    """A terminal whose window is closed."""
    controlling, terminal = os.openpty()
    process = speaks(log, stdout=terminal, stderr=terminal)
    os.close(terminal)
    os.close(controlling)
    return process


def full_disk(log: Path) -> subprocess.Popen[bytes]:
    with open("/dev/full", "wb") as full:
        return speaks(log, stdout=full, stderr=full)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("where", "reason"),
    [(closed_pipes, "Broken pipe"), (hung_up, "Input/output error"), (full_disk, None)],
)
def test_the_work_goes_on_and_its_log_and_exit_code_are_its_own(
    where: Callable[[Path], subprocess.Popen[bytes]], reason: str | None, tmp_path: Path
):
    log = tmp_path / "x.log"
    process = where(log)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait(timeout=100) == 7  # Python's own is 120 where the last flush fails
    lines = [line.split(" ", 2)[2] for line in log.read_text().splitlines()]
    told = [line for line in lines if "is closed" in line]
    assert [line for line in lines if line not in told] == [
        *(f"INFO logged {i}" for i in range(3)),
        "INFO said",
    ]
    if reason is None:
        assert (log.with_suffix(".leads").read_text(), told) == ("/dev/full /dev/full", [])
    else:
        assert log.with_suffix(".leads").read_text() == "/dev/null /dev/null"
        assert sorted(told) == [
            f"WARNING standard {name} is closed ({reason}): the work goes on" for name in ("error", "output")
        ]


@pytest.mark.e2e
def test_a_program_that_is_started_without_streams_has_ones_that_lead_nowhere(tmp_path: Path):
    code = (
        "import os, sys; from ddpm.app import streams; streams.make_unfailing(); "
        "print('x', flush=True); print('y', file=sys.stderr); file = open(sys.argv[1], 'w'); "
        "file.write(f'{file.fileno()} {os.readlink(chr(47) + \"proc/self/fd/1\")}')"
    )
    script = tmp_path / "x.py"
    script.write_text(code)
    command = f'"{sys.executable}" "{script}" "{tmp_path / "out"}" >&- 2>&-'
    assert subprocess.run(command, shell=True, timeout=300).returncode == 0
    number, leads = (tmp_path / "out").read_text().split()
    assert int(number) > 2
    assert leads == "/dev/null"


def test_streams_that_somebody_has_put_in_their_place_stay(monkeypatch: pytest.MonkeyPatch):
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", mine)
    streams.make_unfailing()
    assert sys.stdout is mine


@pytest.mark.e2e
@pytest.mark.parametrize("words", first_everyday([("--cfg", "job"), ("--help",)]))
def test_what_is_printed_for_a_pipe_ends_quietly(words: tuple[str, ...], tmp_path: Path):
    command = f'"{sys.executable}" "{ROOT / "train.py"}" {" ".join(words)} | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[1:] == ["0"]
    assert done.stderr == ""


@pytest.mark.e2e
@pytest.mark.slow
def test_a_training_whose_terminal_is_closed_comes_to_its_end(tmp_path: Path):
    command = (
        f'"{sys.executable}" "{ROOT / "train.py"}" experiment=smoke trainer.devices=1 logger=none '
        f'hydra.run.dir="{tmp_path / "run"}" 2>&1 | head -1; exit ${{PIPESTATUS[0]}}'
    )
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    log = (tmp_path / "run" / "train.log").read_text()
    assert "standard output is closed (Broken pipe)" in log
    assert "finished at step 20" in log
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
