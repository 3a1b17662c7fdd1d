"""Training does not stand still with the processes that read its data."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities.data import _update_dataloader
from torch.utils.data import Dataset, SequentialSampler

from ddpm.data import quiet, workers
from ddpm.data.workers import WorkerLoader
from ddpm.runtime.progress import Countdown, console

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forked workers")


class Stands(Dataset[int]):
    """From index 2 on a batch comes when there is a file."""

    def __init__(self, goes_on: Path):
        self.goes_on = goes_on

    def __getitem__(self, index: int) -> int:
        deadline = time.monotonic() + 300
        while index >= 2 and not self.goes_on.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return index


@pytest.fixture
def goes_on(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "goes on"
    (tmp_path / "goes on").touch()


def test_workers_that_hand_over_nothing_end_it_in_words(monkeypatch: pytest.MonkeyPatch, goes_on: Path):
    monkeypatch.setattr(workers, "LOOKS_EVERY", 0.2)
    monkeypatch.setattr(workers, "FOR_A_BATCH", 0.4)
    threading.Timer(1.5, goes_on.touch).start()  # its worker is waited for in the end
    told = r"^data\.num_workers=1: .* no batch for 0\.4 s; .*num_workers=0 reads"
    with pytest.raises(TimeoutError, match=told):
        list(WorkerLoader(Stands(goes_on), num_workers=1, sampler=[0, 2]))


def test_the_first_batch_may_take_its_time(monkeypatch: pytest.MonkeyPatch, goes_on: Path):
    monkeypatch.setattr(workers, "LOOKS_EVERY", 0.2)
    monkeypatch.setattr(workers, "FOR_A_BATCH", 0.2)
    threading.Timer(0.8, goes_on.touch).start()
    assert list(WorkerLoader(Stands(goes_on), num_workers=1, sampler=[2])) == [2]
    monkeypatch.setattr(workers, "TO_BEGIN", 0.4)
    goes_on.unlink()
    threading.Timer(1.5, goes_on.touch).start()
    with pytest.raises(TimeoutError, match="no batch for"):
        list(WorkerLoader(Stands(goes_on), num_workers=1, sampler=[2]))


def test_a_batch_that_is_late_comes_in_its_place(monkeypatch: pytest.MonkeyPatch, goes_on: Path):
    monkeypatch.setattr(workers, "LOOKS_EVERY", 0.3)
    threading.Timer(1.5, goes_on.touch).start()
    assert list(WorkerLoader(Stands(goes_on), num_workers=1, sampler=[0, 1, 2, 3])) == [0, 1, 2, 3]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_lightning_makes_it_anew_from_its_arguments(num_workers: int, goes_on: Path):
    """As it does to give each device its share, where a loader is not of ours alone."""
    goes_on.touch()
    loader = WorkerLoader(Stands(goes_on), num_workers=num_workers, sampler=[0, 1, 2])
    again = _update_dataloader(loader, SequentialSampler(range(2)))
    assert isinstance(again, WorkerLoader)
    assert list(again) == [0, 1]


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
