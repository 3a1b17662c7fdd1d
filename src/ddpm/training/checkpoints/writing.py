"""Writing checkpoints: whole or not there, while training goes on."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from ddpm.training.checkpoints import parts
from ddpm.training.checkpoints.layout import (
    LAYOUT,
    LAYOUT_OF_WHOLE,
    CheckpointError,
    first_not_finite,
    mapped,
)
from ddpm.training.checkpoints.reading import load
from ddpm.training.checkpoints.snapshot import HostMemory
from ddpm.training.checkpoints.whole_files import put
from ddpm.training.ending import TrainingError

log = logging.getLogger(__name__)


def write(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint, or the head of one whose parts are written, so that its name always means a whole
    one. Its directory is made where there is none.

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
    layout = LAYOUT if parts.KEY in checkpoint else LAYOUT_OF_WHOLE
    put({**mapped(dict(checkpoint), _held), "layout": layout}, path)


def _held(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy where it repeats elements, which a reader refuses."""
    return tensor.clone() if tensor.nbytes > tensor.untyped_storage().nbytes() else tensor


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, made safe: whole files, checked whenever they are read.

    In the background, training stops for a copy to the host's memory only, which takes as much of it as a
    checkpoint is large, and for a write before that is not done yet. Everything is done in the order in which
    it was asked for. A write that fails is a warning, and known as `error`; training goes on.

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

    def save_part(
        self, head: dict[str, Any], part: dict[str, Tensor], path: Path, together: parts.Together
    ) -> None:
        """Save, or begin to, what this process has of a checkpoint in parts. Every process must call it; the
        first writes the head, when it has heard of all parts.

        Args:
            head: what all processes have.
            part: what this one has alone; see `parts.split`.
            path: of the head.
            together: with the others.

        Raises:
            TrainingError: where this checkpoint or one before holds what must not be written.
            OSError: where it cannot be written, and not in the background.
        """
        if self.background:
            self.wait()
            self.check()
            try:
                head, part = self._memory.snapshot((head if together.leads else None, part))
            except Exception as error:  # no memory for it; the others have to know
                failure = error
                self._submit(lambda: self._write_part({}, {}, path, together, failure))
                return
            self._submit(lambda: self._write_part(head, part, path, together))
        else:
            self._write_part(head, part, path, together)
            self.check()

    def _write_part(
        self,
        head: dict[str, Any],
        part: dict[str, Tensor],
        path: Path,
        together: parts.Together,
        failure: Exception | None = None,
    ) -> None:
        said = parts.Report()
        try:
            if failure is not None:
                raise failure
            said = parts.Report(file=parts.write_part(part, together.rank, together.ranks, path))
        except CheckpointError as error:
            said = parts.Report(unfit=str(error))
        except Exception as error:
            said = parts.Report(error=_reason(error))
        if together.leads:
            self._written(lambda: parts.conclude(head, together.heard(said), path, write), path)
        else:
            together.tell(said)

    def then(self, job: Callable[[], None]) -> None:
        """Do something when everything before is written; not where the latest of it was not."""
        if self.background:
            self._submit(lambda: job() if self.error is None else None)
        else:
            job()

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint; the one that takes its place is written first."""
        self.then(lambda: self._remove(Path(path)))

    def _remove(self, path: Path) -> None:
        if path.is_file():
            parts.remove(path)
        else:
            super().remove_checkpoint(path)

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
        self._memory.release()

    def _write(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        def job() -> None:
            before = parts.files_of(path)
            write(checkpoint, path)
            parts.remove_files(path.parent, before)

        self._written(job, path)

    def _written(self, job: Callable[[], None], path: Path) -> None:
        try:
            job()
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
        """Do something in the background, behind what was asked for before.

        Its thread ends with it. One that computed with torch and lives on keeps threads of its own with
        OpenMP, which then counts more of them than there are cores and no longer lets training's wait awake:
        on two cores training took twice as long.
        """
        before = self._latest

        def guarded() -> None:
            try:
                if before is not None:
                    wait([before])
                job()
            except Exception as error:  # such as a full disk; the file itself is written by then
                log.warning("checkpoints: %s", _reason(error))

        worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        try:
            self._latest = worker.submit(guarded)
        except RuntimeError as error:  # the system gives this process no more threads
            log.warning("checkpoints: %s; training waits for this one", _reason(error))
            self._latest = None
            guarded()
        worker.shutdown(wait=False)


def _reason(error: Exception) -> str:
    """Of an error that may be torch's, which is many lines long."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and not isinstance(error, OSError):
        error = cause
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
