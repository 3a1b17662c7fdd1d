"""One writer for a directory: who is first has it, the others are told, and the dead do not keep it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import next_line, patch_time

from ddpm.app import lock
from ddpm.app.lock import NAME, HeldError, take

PROCESS = textwrap.dedent("""
    import sys
    from pathlib import Path
    from ddpm.app.lock import HeldError, take
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            held = take(Path(line.rstrip()))
        except HeldError as error:
            print("told", error, flush=True)
            sys.stdin.readline()
            continue
        print("has it", flush=True)
        sys.stdin.readline()
        held.release()
        print("released", flush=True)
""")


class Process:
    """Another process: takes the lock of the directory that it is told, and keeps it until the next line."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.says() == "ready"

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(timeout=300)

    def hears(self, line: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def says(self) -> str:
        return next_line(self.process).strip()


@pytest.fixture
def other() -> Iterator[Process]:
    with Process() as process:
        yield process


def test_of_starts_at_once_one_has_it_and_the_others_are_told(tmp_path: Path):
    """A hundred times three; at every other one over the lock of one that was killed."""
    dead = replace(lock._this_process(), pid=2**22 + 1)
    first = set()
    with Process() as one, Process() as two, Process() as three:
        processes = [one, two, three]
        for attempt in range(100):
            directory = tmp_path / str(attempt)
            directory.mkdir()
            if attempt % 2:
                (directory / NAME).write_bytes(lock._encoded(dead))
            for process in processes:
                process.hears(directory)
            said = [process.says() for process in processes]
            assert sorted(text.split(" ")[0] for text in said) == ["has", "told", "told"], said
            holder = processes[said.index("has it")]
            assert all(str(holder.process.pid) in text for text in said if text.startswith("told")), said
            first.add(said.index("has it"))
            for process in processes:
                process.hears("")
            assert holder.says() == "released"
            assert list(directory.iterdir()) == [], "who has it takes it away"
    assert len(first) > 1, "they were not at once"


def test_who_holds_it_is_named(tmp_path: Path, other: Process):
    other.hears(tmp_path)
    assert other.says() == "has it"
    written = json.loads((tmp_path / NAME).read_text())
    with pytest.raises(HeldError) as error:
        take(tmp_path)
    for named in (str(other.process.pid), written["host"], written["since"], str(tmp_path)):
        assert named in str(error.value)
    assert json.loads((tmp_path / NAME).read_text()) == written
    other.hears("")
    assert other.says() == "released"
    take(tmp_path).release()


def test_a_file_that_was_taken_away_as_it_was_opened_is_no_lock(
    tmp_path: Path, other: Process, monkeypatch: pytest.MonkeyPatch
):
    """Its holder released it, and a third was faster in making the next."""
    (tmp_path / NAME).write_bytes(lock._encoded(replace(lock._this_process(), pid=2**22 + 1)))
    kernel_lock = lock._kernel_lock

    def late(file: int) -> bool | None:
        monkeypatch.setattr(lock, "_kernel_lock", kernel_lock)
        (tmp_path / NAME).unlink()
        other.hears(tmp_path)
        assert other.says() == "has it"
        return kernel_lock(file)

    monkeypatch.setattr(lock, "_kernel_lock", late)
    with pytest.raises(HeldError, match=f"process {other.process.pid} on "):
        take(tmp_path)


def test_a_dead_holder_is_succeeded_at_once_and_named(tmp_path: Path, other: Process):
    other.hears(tmp_path)
    assert other.says() == "has it"
    other.process.kill()
    other.process.wait(timeout=300)
    held = take(tmp_path)
    assert held.succeeded is not None
    assert held.succeeded.pid == other.process.pid
    assert held.last_sign is not None
    assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    held.release()


def test_what_a_process_forked_does_not_hold_it_on(tmp_path: Path):
    """Workers that load data outlive a parent that was killed."""
    code = (
        "import os, sys, time; from pathlib import Path; from ddpm.app.lock import take\n"
        "held = take(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.close(1)\n"
        "    time.sleep(600)\n"
        "print(child, flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child = int(next_line(parent))
    try:
        with pytest.raises(HeldError):
            take(tmp_path)
        parent.kill()
        parent.wait(timeout=300)
        os.kill(child, 0)  # it lives
        take(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_two_runs_of_one_process_do_not_share_a_directory(tmp_path: Path):
    held = take(tmp_path)
    with pytest.raises(HeldError, match="another run of this process"):
        take(tmp_path / ".." / tmp_path.name)
    held.release()
    held.release()
    take(tmp_path).release()


class Elsewhere:
    """A lock of another machine, whose locks this one does not see: only the file's time tells."""

    def __init__(self, directory: Path, silent: float):
        here = lock._this_process()
        self.file = directory / NAME
        self.file.write_bytes(lock._encoded(replace(here, host="node7", machine="another", pid=1)))
        self.age(silent)

    def age(self, seconds: float) -> None:
        then = time.time() - seconds
        os.utime(self.file, (then, then))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly any time between signs."""
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "LIMIT", 1.0)
    monkeypatch.setattr(lock, "SETTLED", 0.05)
    monkeypatch.setattr(lock, "LOOK", 0.0)


@pytest.mark.usefixtures("quick")
def test_a_holder_on_another_machine_that_was_silent_for_long_is_succeeded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    Elsewhere(tmp_path, silent=5)
    held = take(tmp_path)
    assert held.succeeded is not None
    assert held.succeeded.host == "node7"
    assert caplog.text == ""
    held.release()


@pytest.mark.usefixtures("quick")
def test_one_that_was_silent_for_a_moment_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    Elsewhere(tmp_path, silent=0.5)
    held = take(tmp_path)
    assert held.succeeded is not None
    assert "is locked by process 1 on node7" in caplog.text
    assert caplog.text.count("waiting up to") == 1
    held.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_one_whose_clock_was_ahead_is_waited_for_no_longer(tmp_path: Path):
    Elsewhere(tmp_path, silent=-3600)
    held = take(tmp_path)
    assert held.succeeded is not None
    held.release()


def test_one_that_gives_a_sign_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = Elsewhere(tmp_path, silent=30)
    patch_time(monkeypatch, lock, sleep=lambda _: other.age(0))
    with pytest.raises(HeldError, match=r"process 1 on node7.* writes there"):
        take(tmp_path)
    assert json.loads(other.file.read_text())["host"] == "node7"


@pytest.mark.usefixtures("quick")
def test_of_two_machines_that_waited_the_one_that_wrote_last_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = Elsewhere(tmp_path, silent=5)
    patch_time(monkeypatch, lock, sleep=lambda _: Elsewhere(tmp_path, silent=0))
    with pytest.raises(HeldError, match="node7"):
        take(tmp_path)
    assert json.loads(other.file.read_text())["host"] == "node7"


@pytest.mark.usefixtures("quick")
def test_without_locks_of_the_kernel_signs_of_life_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_kernel_lock", lambda _: None)
    held = take(tmp_path)
    monkeypatch.setattr(lock, "_taken", set())
    with pytest.raises(HeldError, match=f"process {os.getpid()} on "):
        take(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    dead = Elsewhere(other, silent=5)
    assert dead.file.exists()
    take(other).release()
    held.release()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.usefixtures("quick")
def test_a_file_that_is_no_lock_is_waited_out_too(tmp_path: Path):
    (tmp_path / NAME).write_text("{torn")
    held = take(tmp_path)
    assert held.succeeded is None
    held.release()


@pytest.mark.usefixtures("quick")
def test_a_holder_gives_signs_of_life_and_notices_its_loss(tmp_path: Path):
    held = take(tmp_path)
    os.utime(tmp_path / NAME, (1, 1))
    deadline = time.monotonic() + 300
    while (tmp_path / NAME).stat().st_mtime == 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not held.is_lost()
    Elsewhere(tmp_path, silent=0)
    time.sleep(0.01)
    assert held.is_lost()
    held.release()
    assert json.loads((tmp_path / NAME).read_text())["host"] == "node7", "it is the other's to take away"


def test_one_that_stood_still_looks_before_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between two looks nothing is read: it is asked after every step."""
    held = take(tmp_path)
    Elsewhere(tmp_path, silent=0)
    assert not held.is_lost()
    now = time.monotonic()
    patch_time(monkeypatch, lock, monotonic=lambda: now + 300)
    assert held.is_lost()
    held.release()


def test_a_file_that_a_person_deleted_is_nobodys_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "LOOK", 0.0)
    held = take(tmp_path)
    (tmp_path / NAME).unlink()
    time.sleep(0.01)
    assert not held.is_lost()
    held.release()


@pytest.mark.usefixtures("quick")
def test_the_clock_is_that_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine whose clock is an hour ahead would take every holder elsewhere for dead."""
    other = Elsewhere(tmp_path, silent=0)
    ahead = time.time() + 3600
    patch_time(monkeypatch, lock, time=lambda: ahead)
    patch_time(monkeypatch, lock, sleep=lambda _: other.age(-1))
    with pytest.raises(HeldError):
        take(tmp_path)
