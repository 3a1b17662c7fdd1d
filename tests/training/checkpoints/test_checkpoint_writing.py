"""Checkpoints are whole or not there, and training does not wait until they are."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training.checkpoints.content import differences

from ddpm.training.checkpoints import AtomicCheckpointIO, CheckpointError, load, write
from ddpm.training.checkpoints.snapshot import HostMemory
from ddpm.training.ending import TrainingError


def content(step: int, **more: Any) -> dict[str, Any]:
    return {
        "state_dict": {"w": torch.full((1000,), float(step))},
        "config": None,
        "global_step": step,
        **more,
    }


def everything() -> dict[str, Any]:
    """What checkpoints may hold."""
    tied = torch.randn(3, 4)
    return content(
        1,
        callbacks={
            "tensors": [tied, tied, tied.t(), tied[1:, ::2], tied.expand(2, 3, 4), torch.zeros(0, 3)],
            "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
            "types": [torch.ones(3, dtype=dtype) for dtype in (torch.bfloat16, torch.bool, torch.uint16)],
            "parameter": torch.nn.Parameter(torch.ones(2)),
            "plain": (None, True, 3, -1.5, float("inf"), "ä", b"\x00\xff", {1, 2}, torch.Size([2]), 1j),
            "kinds": [
                torch.float32,
                torch.device("cpu"),
                2**40,
                np.float64(0.5),
                np.int64(3),
                np.float32(0.5),
            ],
        },
    )


@pytest.fixture
def background() -> Iterator[AtomicCheckpointIO]:
    writer = AtomicCheckpointIO(background=True)
    yield writer
    writer.teardown()


class Held:
    """torch.save that begins when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.begun, self.let = threading.Event(), threading.Event()
        save = torch.save

        def held(*arguments: Any) -> None:
            self.begun.set()
            assert self.let.wait(60)
            save(*arguments)

        monkeypatch.setattr(torch, "save", held)


def fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk."""

    def half_a_write(checkpoint: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half_a_write)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "checkpoints" / "a.ckpt"
    write(content(1), path)
    before = path.read_bytes()
    fail(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        write(content(2), path)
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("in_background", [False, True])
def test_what_was_saved_is_read(tmp_path: Path, in_background: bool):
    writer, saved = AtomicCheckpointIO(in_background), everything()
    writer.save_checkpoint(saved, tmp_path / "a.ckpt")
    writer.teardown()
    found = load(tmp_path / "a.ckpt")
    assert found.pop("layout") == 1
    saved["callbacks"]["parameter"] = saved["callbacks"]["parameter"].detach()
    saved["callbacks"]["kinds"][3:] = [0.5, 3, 0.5]
    assert not [*differences(found, saved)]
    by_torch = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert not [*differences(by_torch["callbacks"], saved["callbacks"])]
    tied = found["callbacks"]["tensors"]
    assert tied[0].data_ptr() == tied[1].data_ptr()
    assert found["callbacks"]["channels_last"].is_contiguous(memory_format=torch.channels_last)


def test_what_changes_meanwhile_is_not_written(
    tmp_path: Path, background: AtomicCheckpointIO, monkeypatch: pytest.MonkeyPatch
):
    held = Held(monkeypatch)
    checkpoint = content(1)
    background.save_checkpoint(checkpoint, tmp_path / "a.ckpt")
    assert held.begun.wait(60)
    assert not (tmp_path / "a.ckpt").exists()
    checkpoint["state_dict"]["w"].zero_()
    checkpoint["global_step"] = 2
    held.let.set()
    background.wait()
    assert not [*differences(load(tmp_path / "a.ckpt"), content(1, layout=1))]


def test_one_is_written_after_the_other(
    tmp_path: Path, background: AtomicCheckpointIO, monkeypatch: pytest.MonkeyPatch
):
    """The second has the memory of the first, and what follows a write happens before the next."""
    held = Held(monkeypatch)
    one, two = tmp_path / "one.ckpt", tmp_path / "two.ckpt"
    order: list[Any] = []
    background.save_checkpoint(content(1), one)
    background.then(lambda: order.append((one.exists(), two.exists())))
    second = threading.Thread(target=background.save_checkpoint, args=(content(2), two))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    held.let.set()
    second.join(60)
    background.remove_checkpoint(one)
    background.wait()
    assert order == [(True, False)]
    assert not one.exists()
    assert load(two)["state_dict"]["w"][0] == 2


def test_nothing_computes_beside_training_when_all_is_written(tmp_path: Path, background: AtomicCheckpointIO):
    """A thread that did and lives on has OpenMP's threads sleep between operations, training's as well."""
    before = set(threading.enumerate())
    background.prepare(1 << 20)
    background.wait()
    background.save_checkpoint(content(1), tmp_path / "a.ckpt")
    background.wait()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), f"{thread.name} waits for work"


def test_it_is_written_at_once_where_there_are_no_more_threads(
    tmp_path: Path, background: AtomicCheckpointIO, monkeypatch: pytest.MonkeyPatch
):
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    background.save_checkpoint(content(1), tmp_path / "a.ckpt")
    assert load(tmp_path / "a.ckpt")["global_step"] == 1


def test_a_failure_in_the_background_is_told_and_known(
    tmp_path: Path, background: AtomicCheckpointIO, caplog: pytest.LogCaptureFixture
):
    before = tmp_path / "before.ckpt"
    background.save_checkpoint(content(1), before)
    with pytest.MonkeyPatch.context() as patched, caplog.at_level(logging.WARNING):
        for step in (2, 3):
            background.wait()
            fail(patched)
            background.save_checkpoint(content(step), tmp_path / "a.ckpt")
            background.remove_checkpoint(before)  # which was to be replaced
        background.wait()
    assert [record.message for record in caplog.records] == 2 * [
        f"{tmp_path}/a.ckpt could not be written: [Errno 28] No space left on device; training goes on"
    ]
    assert background.error == f"{tmp_path}/a.ckpt could not be written: [Errno 28] No space left on device"
    assert [*tmp_path.iterdir()] == [before]
    background.save_checkpoint(content(4), tmp_path / "a.ckpt")
    background.wait()
    assert background.error is None


@pytest.mark.parametrize("in_background", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64], ids=str
)
def test_what_is_not_finite_is_never_written(
    tmp_path: Path, in_background: bool, value: float, dtype: torch.dtype
):
    writer = AtomicCheckpointIO(in_background)
    weight = torch.ones(5, 5, dtype=dtype)
    weight[3, 2] = value
    checkpoint = content(1, optimizer_states=[{"state": {0: {"step": torch.ones(1), "exp_avg": weight}}}])
    said = r"^optimizer_states\.0\.state\.0\.exp_avg holds NaN or infinity, so a\.ckpt is not written"
    if in_background:
        writer.save_checkpoint(checkpoint, tmp_path / "a.ckpt")
        writer.wait()
        with pytest.raises(TrainingError, match=said):
            writer.check()  # as the callback does after each step
    with pytest.raises(TrainingError, match=said):
        writer.save_checkpoint(checkpoint, tmp_path / "a.ckpt")
    writer.teardown()
    assert not (tmp_path / "a.ckpt").exists()


@pytest.mark.parametrize(
    ("value", "kind"),
    [(len, "builtin_function_or_method"), (np.ones(3), "ndarray"), (torch.ones(3).to_sparse(), "Tensor")],
    ids=["function", "array", "sparse"],
)
def test_what_no_reader_takes_is_refused_by_its_place(tmp_path: Path, value: Any, kind: str):
    with pytest.raises(CheckpointError, match=rf"^checkpoint\.callbacks\.Mine\.0 is a {kind}, which no"):
        write(content(1, callbacks={"Mine": [value]}), tmp_path / "a.ckpt")


def test_memory_is_used_again():
    memory = HostMemory()
    first: Tensor = memory.snapshot({"a": torch.ones(1000), "b": torch.ones(3)})["a"]
    assert first.data_ptr() % 64 == 0
    again = memory.snapshot({"a": torch.zeros(1000), "b": torch.zeros(7)})["a"]
    assert again.data_ptr() == first.data_ptr()
    larger = memory.snapshot({"a": torch.full((1 << 20,), 2.0)})["a"]
    assert larger.eq(2).all()
    memory.release()
    assert larger.eq(2).all()  # as long as somebody refers to it


def test_memory_that_was_had_before_is_used(background: AtomicCheckpointIO, monkeypatch: pytest.MonkeyPatch):
    background.prepare(1 << 22)
    background.wait()
    monkeypatch.setattr("mmap.mmap", None)
    background._memory.snapshot({"a": torch.ones(1 << 20)})
