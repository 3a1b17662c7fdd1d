"""Signals are heard whatever the main thread does."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ddpm.runtime.signals import ENDING, Signals

WAITS = 20.0
"""Seconds, at most, for what another thread does at once."""


class Heard:
    """What came of signals, to be waited for."""

    def __init__(self) -> None:
        self.first: list[int] = []
        self.second: list[int] = []
        self.signals = Signals(self.first.append, self.second.append)

    def until(self, first: list[int], second: list[int]) -> None:
        deadline = time.monotonic() + WAITS
        while (self.first, self.second) != (first, second):
            assert time.monotonic() < deadline, (self.first, self.second)
            time.sleep(0.01)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    found = Heard()
    found.signals.listen()
    yield found
    found.signals.close()


@pytest.mark.parametrize("signum", ENDING, ids=lambda signum: signum.name)
def test_the_first_is_told_from_further_ones(heard: Heard, signum: int):
    os.kill(os.getpid(), signum)
    heard.until([signum], [])
    assert heard.signals.received == signum
    os.kill(os.getpid(), signal.SIGTERM)
    heard.until([signum], [signal.SIGTERM])
    assert heard.signals.received == signum


def test_the_main_thread_sees_it_at_its_next_instruction(heard: Heard):
    for _ in range(100):
        heard.signals.received = 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard.signals.received == signal.SIGUSR1


def test_what_was_there_before_is_there_again(heard: Heard):
    heard.signals.close()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


def test_signals_that_are_ignored_stay_so(heard: Heard):
    heard.signals.close()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        under_nohup = Heard()
        under_nohup.signals.listen()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        under_nohup.until([signal.SIGUSR1], [])
        under_nohup.signals.close()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_torchrun_hands_on_what_all_have_received(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    heard = Heard()
    heard.signals._act(signal.SIGINT)
    heard.signals._act(signal.SIGTERM)
    assert (heard.first, heard.second) == ([signal.SIGINT], [])
    monkeypatch.setattr("ddpm.runtime.signals.ELASTIC_SECONDS", 0.0)
    heard.signals._act(signal.SIGTERM)
    assert (heard.first, heard.second) == ([signal.SIGINT], [signal.SIGTERM])


def test_outside_the_main_thread_nothing_is_heard():
    before = signal.getsignal(signal.SIGTERM)
    signals = Signals()
    thread = threading.Thread(target=signals.listen)
    thread.start()
    thread.join(60)
    assert signal.getsignal(signal.SIGTERM) is before
    signals.close()


WAITING = """
import os, signal, sys, threading, time

from ddpm.runtime.signals import Signals

def ends(signum):
    os.write(1, f"heard {signum}".encode())
    os._exit(128 + signum)

signals = Signals(ends)
signals.listen()
"""


def test_it_is_heard_while_the_main_thread_waits_in_a_library(tmp_path: Path):
    """Where Python's own handlers would have to wait with it."""
    code = WAITING + (
        "from datetime import timedelta\n"
        "from torch.distributed import TCPStore\n"
        "store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "store.wait(['never'], timedelta(seconds=60))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (143, "heard 15"), done.stderr


def test_what_a_forked_process_receives_is_its_own():
    """A worker that is ended with its loader must not end the run; a signal for all must not end a worker."""
    code = WAITING + (
        "child = os.fork()\n"
        "if not child:\n"
        "    for signum in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1:\n"
        "        os.kill(os.getpid(), signum)\n"
        "    os._exit(7)\n"
        "_, status = os.waitpid(child, 0)\n"
        "time.sleep(0.3)\n"
        "print(os.waitstatus_to_exitcode(status), signals.received)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout == "7 0\n", done.stdout + done.stderr


WORKS_ON = """
import multiprocessing, sys, threading
from ddpm.runtime.signals import Signals

signals = Signals()
signals.listen()
process = multiprocessing.get_context("fork").Process(target=threading.Event().wait, daemon=True)
process.start()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forked workers")
def test_a_worker_that_is_left_does_not_keep_the_program_from_its_end():
    """It is deaf to SIGTERM, by which Python ends it and then waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKS_ON],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.wait(timeout=WAITS) == 0
    finally:
        with suppress(ProcessLookupError):  # the worker is left where this fails
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=WAITS)


def test_what_was_held_back_before_anybody_could_hear_is_heard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    found = Heard()
    try:
        signal.pthread_kill(
            threading.get_ident(), signal.SIGUSR2
        )  # other threads of these tests would take it
        assert signal.SIGUSR2 in signal.sigpending()
        found.signals.listen()
        found.until([signal.SIGUSR2], [])
    finally:
        if signal.SIGUSR2 in signal.sigpending():  # it would end the tests
            signal.sigwait({signal.SIGUSR2})
        found.signals.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
