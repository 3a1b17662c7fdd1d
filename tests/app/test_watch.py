"""What ends a run from outside, and what is said and recorded of it."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_program

from ddpm.app.run_directory import Place
from ddpm.app.watch import Watch, is_running, write_end
from ddpm.runtime.peers import Failure, Peers
from ddpm.runtime.peers.states import Seen, behind
from ddpm.training.ending import Ending, Interrupted, TrainingError

SOON = 30.0
"""Seconds, at most, for what another thread does at once."""

SCENES = r"""
import logging, os, signal, subprocess, sys, threading, time
from pathlib import Path
from ddpm.app.run_directory import Place
from ddpm.app.watch import Watch

def strike(*signals):
    def send():
        for signum in signals:
            time.sleep(0.5)
            os.kill(os.getpid(), signum)
    threading.Thread(target=send, daemon=True).start()

def early(watch, directory):
    strike(signal.SIGHUP)
    time.sleep(100)

def recorded(watch, directory):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    watch.record = lambda ended: (directory / "record").write_text(f"{ended.status} {ended.why}")
    (directory / "child").write_text(str(child.pid))
    strike(signal.SIGUSR2)
    time.sleep(100)

def impatient(watch, directory):
    watch.callback.has_begun = True
    watch.record = lambda ended: (directory / "record").write_text(f"{ended.status} {ended.why}")
    strike(signal.SIGTERM, signal.SIGINT)
    while not watch.signals.received:
        time.sleep(0.01)
    print("saving", flush=True)
    threading.Event().wait()

def orphan(watch, directory):
    time.sleep(100)

for scene in early, recorded, impatient, orphan:
    directory = Path(sys.argv[1], scene.__name__)
    directory.mkdir()
    process = os.fork()  # importing takes seconds, and is done once
    if not process:
        os.dup2(os.open(f"{directory}.txt", os.O_CREAT | os.O_WRONLY), 1)
        logging.basicConfig(stream=sys.stdout, format="%(message)s", level="INFO")
        if scene is orphan:
            os.environ["DDPM_PARENT"] = "1"
        watch = Watch(Place(directory), 100.0)
        watch.begin()
        scene(watch, directory)
        os._exit(99)
    _, status = os.waitpid(process, 0)
    Path(f"{directory}.code").write_text(str(os.waitstatus_to_exitcode(status)))
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory a scene, with its exit code and what it said beside."""
    root = tmp_path_factory.mktemp("scenes")
    done = subprocess.run([sys.executable, "-c", SCENES, str(root)], stderr=subprocess.PIPE, timeout=300)
    assert not done.stderr, done.stderr.decode()
    return root


def code(scenes: Path, name: str) -> int:
    return int((scenes / f"{name}.code").read_text())


def test_before_the_first_step_a_signal_ends_at_once(scenes: Path):
    assert code(scenes, "early") == 128 + signal.SIGHUP
    assert (scenes / "early.txt").read_text() == "ended by SIGHUP\n"
    assert not (scenes / "early").exists(), "where nothing was written, nothing is left"


def test_then_the_record_says_so_and_children_are_gone(scenes: Path):
    assert code(scenes, "recorded") == 128 + signal.SIGUSR2
    assert (scenes / "recorded" / "record").read_text() == "interrupted SIGUSR2"
    until(lambda: not alive(int((scenes / "recorded" / "child").read_text())))


def test_once_there_is_something_to_lose_the_first_waits_and_the_second_does_not(scenes: Path):
    assert code(scenes, "impatient") == 128 + signal.SIGINT
    said = (scenes / "impatient.txt").read_text()
    assert "SIGTERM: saving and ending; once more to end at once" in said
    assert "saving\n" in said
    assert (scenes / "impatient" / "record").read_text() == "interrupted SIGINT"


def test_a_rank_whose_parent_has_gone_ends(scenes: Path):
    assert code(scenes, "orphan") == 1


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """Of rank 1 of 2, which is not joined to anybody."""
    found = Watch(Place(tmp_path), 100.0)
    found.peers = Peers(1, 2, 100.0, on_signal=lambda _: None, on_failure=lambda _: None)
    found._is_leader = False
    return found


GLOO = RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:6016")


def test_what_follows_from_anothers_failure_is_told_by_that(watch: Watch):
    watch.peers.failure = Failure("rank 0 on a: ValueError: no", (0,), raised=True)
    cause = watch.cause(GLOO)
    assert isinstance(cause, TrainingError)
    assert str(cause) == "rank 0 on a: ValueError: no"


def test_what_a_rank_raises_itself_is_told_to_all(watch: Watch):
    error = ValueError("no such thing\nand more")
    assert watch.cause(error) is error
    (told,) = watch.peers._outbox
    name = watch.peers.state.name
    assert told["failure"]["text"] == f"{name}: ValueError: no such thing"
    assert told["failure"]["raised"]


def test_a_broken_connection_waits_for_its_cause(watch: Watch, monkeypatch: pytest.MonkeyPatch):
    for patience in ("FOR_THE_CAUSE", "BEHIND_A_SIGNAL"):
        monkeypatch.setattr(f"ddpm.app.watch.{patience}", 0.3)
    assert watch.cause(GLOO) is GLOO, "and is told itself where there is none"
    watch.peers.signum = signal.SIGTERM
    interrupted = watch.cause(GLOO)
    assert isinstance(interrupted, Interrupted)
    assert interrupted.signum == signal.SIGTERM


def test_a_rank_that_died_is_the_cause_of_the_signal_that_torchrun_sends(watch: Watch):
    watch.peers.signum = signal.SIGTERM
    failure = Failure("rank 0 on a (pid 7) is gone at step 3", (0,))
    threading.Timer(0.3, setattr, (watch.peers, "failure", failure)).start()
    assert str(watch.cause(GLOO)) == failure.text


def test_a_run_of_one_process_fails_of_what_it_raises(tmp_path: Path):
    watch = Watch(Place(tmp_path), 100.0)
    assert watch.cause(GLOO) is GLOO
    ended = Ending("failed", 1, "RuntimeError: x")
    assert watch.named(ended) is ended


def test_the_end_names_the_rank(watch: Watch):
    ended = Ending("failed", 1, "ValueError: no")
    assert watch.named(ended) == ended
    watch.peers.failure = Failure("rank 1 on a (pid 7): ValueError: no", (1,))
    assert watch.named(ended).why == "rank 1 on a (pid 7): ValueError: no"
    finished = Ending("finished", 0, None)
    assert watch.named(finished) is finished


def begun(directory: Path) -> None:
    record: dict[str, Any] = {"status": "running", "starts": [{"pid": 1, "status": "running"}], "x": 1}
    (directory / "run.json").write_text(json.dumps(record))


def test_a_rank_records_the_end_that_its_leader_cannot(
    watch: Watch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    begun(tmp_path)
    watch.peers.failure = Failure("rank 0 on a (pid 7) is gone at step 3", (0,))
    ended = watch.named(Ending("failed", 1, "RuntimeError: closed"))
    for _ in range(2):  # another rank finds it done
        watch.close(ended)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == record["starts"][-1]["status"] == "failed"
    assert record["why"] == record["starts"][-1]["why"] == "rank 0 on a (pid 7) is gone at step 3"
    assert record["exit_code"] == record["x"] == 1
    assert [row.message for row in caplog.records if row.levelno == logging.ERROR] == [
        "training failed: rank 0 on a (pid 7) is gone at step 3"
    ]


def test_it_leaves_that_to_a_leader_that_can(watch: Watch, tmp_path: Path):
    begun(tmp_path)
    for failure in (Failure("rank 0: no", (0,), raised=True), Failure("rank 1 is gone", (1,))):
        watch.peers.failure = failure
        watch.close(Ending("failed", 1, failure.text))
    assert is_running(tmp_path)


def test_a_record_that_is_not_there_is_no_running_one(tmp_path: Path):
    assert not is_running(tmp_path)
    begun(tmp_path)
    assert is_running(tmp_path)
    write_end(tmp_path, Ending("failed", 1, "x"))
    assert not is_running(tmp_path)


def test_nobody_is_behind_who_has_trained(watch: Watch):
    """What a logger sends in the end may take longer than ranks wait for each other."""
    assert watch.peers is not None
    watch.peers.progress(phase="training", step=8)
    watch.peers.state.idle = 1000.0
    trained = Seen(watch.peers.state, 0.0)
    assert behind([trained], 100.0) == [trained]
    watch.is_over()
    assert behind([trained], 100.0) == []


@pytest.mark.slow
@pytest.mark.e2e
def test_a_port_that_is_taken_is_told(tmp_path: Path):
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ("experiment=smoke", "trainer.devices=2", "trainer.accelerator=cpu", "hydra.run.dir=run")
        outcome = run_program("train.py", *words, "logger=none", cwd=tmp_path, env={"MASTER_PORT": port})
    assert outcome.returncode == 2, outcome.said
    assert f"MASTER_PORT={port}: cannot be listened at" in outcome.said
    assert "Traceback" not in outcome.said


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize(
    ("node", "waits", "ends"),
    [
        (0, "waiting for rank 1 of 2 to join", "rank 1 has not joined within 1"),
        (1, "waiting for rank 0 at 127.0.0.1:", "rank 0 has not been there within 1"),
    ],
)
def test_a_node_that_never_comes_is_named_and_ends_the_run(node: int, waits: str, ends: str, tmp_path: Path):
    """One of two nodes is started, as a person does it without torchrun."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    outcome = run_program(
        "train.py", "experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2",
        "logger=none", "timeout=15", "hydra.run.dir=run", cwd=tmp_path,
        env={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(node)},
    )  # fmt: skip
    assert outcome.returncode == 1
    assert waits in outcome.said
    assert ends in outcome.said
    assert "Traceback" not in outcome.said
    assert time.monotonic() - began < 90
    assert (tmp_path / "run").exists() == (node == 0)
