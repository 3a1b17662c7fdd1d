"""Writing checkpoints: whole or not there, while training goes on."""

import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ddpm.training.checkpoints.layout import LAYOUT, CheckpointError, first_not_finite, mapped
from ddpm.training.checkpoints.names import being_written
from ddpm.training.checkpoints.reading import load
from ddpm.training.checkpoints.snapshot import HostMemory
from ddpm.training.ending import TrainingError

log = logging.getLogger(__name__)


def write(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint beside its place, flush it, and put it there, so that its name always means a whole
    file, also after a power cut. Its directory is made where there is none.

    Raises:
        CheckpointError: where it holds NaN or infinity, or something that no checkpoint can hold.
        OSError: where it cannot be written; then nothing is left of it.
    """
    if (name := first_not_finite(checkpoint)) is not None:
        why = (
            "a buffer that holds infinity on purpose must be one of persistent=False"
            if name.startswith("state_dict")
            else "training goes on from the checkpoint before"
        )
        raise CheckpointError(f"{name} holds NaN or infinity, so {path.name} is not written ({why})")
    content = {**mapped(dict(checkpoint), _held), "layout": LAYOUT}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = being_written(path)
    try:
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def _held(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or a copy where it repeats elements, which a reader refuses."""
    return tensor.clone() if tensor.nbytes > tensor.untyped_storage().nbytes() else tensor


def flush_directory(directory: Path) -> None:
    """Make the names in a directory outlive a power cut, where the file system can."""
    if os.name == "nt":  # where no directory can be opened
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        log.debug("%s: names cannot be flushed here", directory)
    finally:
        os.close(descriptor)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, made safe: whole files, checked whenever they are read.

    In the background, training stops for a copy to the host's memory only, which takes as much of it as a
    checkpoint is large, and for a write before that is not done yet. One thread does everything in the order
    in which it was asked for. A write that fails is a warning, and known as `error`; training goes on.

    Lightning's `AsyncCheckpointIO` takes new memory for each of any number of writes that may wait, copies
    from a GPU tensor by tensor, removes files while others are being written, and raises what was wrong with
    a write in some later save, or never.

    Args:
        background: return from saving when the state is copied; otherwise when it is written.
    """

    def __init__(self, background: bool = False):
        super().__init__()
        self.background = background
        self.error: str | None = None
        """Why the latest checkpoint that was to be written is not there; None where it is."""
        self.unfit: str | None = None
        """Why a state that was to be saved must not be written, as it is not finite."""
        self._memory = HostMemory()
        self._worker: ThreadPoolExecutor | None = None
        self._latest: Future[None] | None = None

    def prepare(self, size: int, gpu: torch.device | None = None) -> None:
        """Take memory for snapshots in the background, so that the first need not wait for it.

        Args:
            size: bytes.
            gpu: that they are copied from, if it is from one.
        """
        if self.background:
            self._submit(lambda: self._memory.reserve(size, gpu))

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save, or begin to.

        Raises:
            TrainingError: where this checkpoint or one before holds what must not be written.
            OSError: where it cannot be written, and not in the background.
        """
        if not self.background:
            self._write(checkpoint, Path(path))
            self.check()
            return
        self.wait()
        self.check()
        try:
            snapshot = self._memory.snapshot(checkpoint)
        except CheckpointError as error:
            raise TrainingError(str(error)) from error
        except (OSError, MemoryError) as error:  # no memory for it
            self._failed(Path(path), error)
            return
        self._submit(lambda: self._write(snapshot, Path(path)))

    def save_own(self, checkpoint: dict[str, Any], path: Path) -> None:
        """As `save_checkpoint`, of tensors that nobody will change: no copy of them is made.

        Raises:
            TrainingError: where this checkpoint or one before holds what must not be written.
            OSError: where it cannot be written, and not in the background.
        """
        if not self.background:
            self._write(checkpoint, path)
            self.check()
            return
        self.wait()
        self.check()
        self._submit(lambda: self._write(checkpoint, path))

    def then(self, job: Callable[[], None]) -> None:
        """Do something when everything before is written; not where the latest of it was not."""
        if self.background:
            self._submit(lambda: job() if self.error is None else None)
        else:
            job()

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint; the one that takes its place is written first."""
        self.then(lambda: super(AtomicCheckpointIO, self).remove_checkpoint(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        self.wait()
        return load(Path(path))

    def wait(self) -> None:
        """Return when everything is done that was begun."""
        if self._latest is not None:
            self._latest.result()
            self._latest = None

    def check(self) -> None:
        """
        Raises:
            TrainingError: where a state was saved that must not be written.
        """
        if self.unfit is not None:
            raise TrainingError(self.unfit)

    def teardown(self) -> None:
        """Write what is left to be written, and give the memory back. The next fit begins anew."""
        self.wait()
        self.error = self.unfit = None
        if self._worker is not None:
            self._worker.shutdown()
            self._worker = None
        self._memory.release()

    def _write(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        try:
            write(checkpoint, path)
        except CheckpointError as error:
            self.error = self.unfit = str(error)
            log.warning("%s", error)
        except Exception as error:
            if not self.background:
                raise
            self._failed(path, error)
        else:
            self.error = None

    def _failed(self, path: Path, error: Exception) -> None:
        self.error = f"{path} could not be written: {_reason(error)}"
        log.warning("%s; training goes on", self.error)

    def _submit(self, job: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                job()
            except Exception as error:  # such as a full disk; the file itself is written by then
                log.warning("checkpoints: %s", _reason(error))

        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._latest = self._worker.submit(guarded)


def _reason(error: Exception) -> str:
    """Of an error that may be torch's, which is many lines long."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and not isinstance(error, OSError):
        error = cause
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
