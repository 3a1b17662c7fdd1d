"""Training does not stand still with the processes that read its data."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset

from ddpm.data import quiet, workers
from ddpm.data.workers import WorkerLoader
from ddpm.runtime.progress import Countdown, console

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forked workers")


class Stands(Dataset[int]):
    """From index 2 on a batch comes when there is a file."""

    def __init__(self, goes_on: Path):
        self.goes_on = goes_on

    def __getitem__(self, index: int) -> int:
        deadline = time.monotonic() + 60
        while index >= 2 and not self.goes_on.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return index


@pytest.fixture
def goes_on(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "goes on"
    (tmp_path / "goes on").touch()


def test_workers_that_hand_over_nothing_end_it_in_words(monkeypatch: pytest.MonkeyPatch, goes_on: Path):
    monkeypatch.setattr(workers, "WAITS", 0.5)
    threading.Timer(1.5, goes_on.touch).start()  # its worker is waited for in the end
    told = r"^data\.num_workers=1: .* no batch for 1 s; .*num_workers=0 reads"
    with pytest.raises(TimeoutError, match=told):
        next(iter(WorkerLoader(Stands(goes_on), num_workers=1, sampler=[2])))


def test_a_process_that_stood_still_itself_waits_once_more(monkeypatch: pytest.MonkeyPatch, goes_on: Path):
    monkeypatch.setattr(workers, "WAITS", 1.0)
    monkeypatch.setattr(workers, "TIMES", 20)
    threading.Timer(1.5, goes_on.touch).start()
    assert list(WorkerLoader(Stands(goes_on), num_workers=1, sampler=[0, 1, 2, 3])) == [0, 1, 2, 3]


def test_without_workers_nothing_is_waited_for(goes_on: Path):
    loader = WorkerLoader(Stands(goes_on), num_workers=0, sampler=[0, 1])
    assert loader.timeout == 0
    assert list(loader) == [0, 1]


def forked(work: Any) -> int:
    """The exit code of a forked process that does some work; it is killed where it does not end."""
    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    process.join(20)
    if process.exitcode is None:
        process.kill()
        process.join(20)
    assert process.exitcode is not None
    return process.exitcode


def held(lock: Any, taken: threading.Event, release: threading.Event) -> None:
    with lock:
        taken.set()
        release.wait(60)


def test_a_worker_can_speak_though_a_bar_was_being_drawn_at_its_fork(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console, "_force_terminal", True)
    taken, release = threading.Event(), threading.Event()
    with Countdown("training", 10):
        drawing = threading.Thread(target=held, args=(console._lock, taken, release))
        drawing.start()
        assert taken.wait(60)
        try:
            assert forked(lambda: console.print("words")) == 0
        finally:
            release.set()
            drawing.join(60)


def test_a_worker_can_open_images_whatever_other_threads_did_at_its_fork():
    """A thread that is just entering or leaving lets the fork wait for it."""
    stop = threading.Event()

    def enter_and_leave() -> None:
        while not stop.is_set():
            with quiet.quietly():
                pass

    threads = [threading.Thread(target=enter_and_leave) for _ in range(2)]
    for thread in threads:
        thread.start()

    def open_one() -> None:
        with quiet.quietly():
            pass

    try:
        assert [forked(open_one) for _ in range(20)] == [0] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
