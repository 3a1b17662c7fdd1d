"""Training that goes back to the last good checkpoint from a step that is not finite: `rollback`."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from ddpm.training.checkpoints import LAST, CheckpointError, at_step, find, load, numbered, parts, write
from ddpm.training.checkpoints.whole_files import link
from ddpm.training.loggers import raise_alert
from ddpm.training.nonfinite.guard import MOST_ROLLBACKS, NonFiniteError, Rollback

log = logging.getLogger(__name__)

OnRollback = Callable[[Path, int, Rollback], None]
"""Called with the checkpoint that is gone back to, its step, and what asked for it, on every rank."""


def fit(
    trainer: Trainer,
    module: Any,
    *,
    ckpt_path: Path | None = None,
    on_rollback: OnRollback = lambda path, step, asked: None,
    **data: Any,
) -> None:
    """`trainer.fit`, again and again from the last good checkpoint as long as the module's guard asks for it.

    After each return everything random is drawn with another key and the learning rate is multiplied by
    `RATE_FACTOR`; both are kept in the checkpoints from there on. A run that comes no further than before the
    last return goes back further than that, where it can: weights may be lost before a number says so.

    Args:
        trainer: of the run; checkpoints are looked for where it writes them (`default_root_dir`).
        module: a `ddpm.training.module.DDPM`.
        ckpt_path: that training begins with; gone back to where the run has written none of its own.
        on_rollback: called before training goes on.
        data: for `trainer.fit`.

    Raises:
        NonFiniteError: where there is nothing to go back to, or the run has gone back too often.
    """
    going_on_from = ckpt_path
    while True:
        try:
            trainer.fit(module, ckpt_path=going_on_from, **data)
            return
        except Rollback as asked:
            found = trainer.strategy.broadcast(_last_good(trainer, ckpt_path, _bound(module, asked)))
            if found is None:
                raise NonFiniteError(
                    f"{asked}. There is no checkpoint yet to go back to: lower optimizer.lr, look at the "
                    "images, or save earlier, callbacks.checkpoints.every_n_steps="
                ) from asked
            going_on_from, step = found
            module.guard.returns.append((asked.step, step))
            on_rollback(going_on_from, step, asked)
            going_on_from = trainer.strategy.broadcast(_with_returns(trainer, module, going_on_from, step))
            if trainer.is_global_zero:
                log.warning(
                    "%s. Going back to %s (%d of %d), with other random numbers and %g of the learning rate",
                    asked, going_on_from, module.guard.rollbacks, MOST_ROLLBACKS, module.guard.rate_factor,
                )  # fmt: skip
                raise_alert(
                    trainer, "the run goes back to a checkpoint", f"{asked}. It goes on from step {step}"
                )
            trainer.strategy.barrier()


def _with_returns(trainer: Trainer, module: Any, path: Path, step: int) -> Path:
    """The checkpoint of the run that is gone back to, with this return in it: a run that is killed before its
    next one goes on with the same random numbers. Where it cannot be written, the one that is there.
    """
    if not trainer.is_global_zero:
        return path
    own = Path(trainer.default_root_dir) / "checkpoints" / at_step(step)
    checkpoint = load(path, whole=False)
    state = {**checkpoint.get("nonfinite", {}), "returns": module.guard.state_dict()["returns"]}
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.samefile(own.parent):
            parts.bring(path, own.parent)
        write({**checkpoint, "nonfinite": state}, own)
        link(own, own.with_name(LAST))
    except OSError as error:
        log.warning("%s: cannot be written (%s); the return is in the next checkpoint", own, error)
        return path
    return own


def _bound(module: Any, asked: Rollback) -> int | None:
    """The step that the checkpoint should come before; None for any."""
    if not module.guard.returns:
        return None
    bad, to = module.guard.returns[-1]
    return to if asked.step <= bad else None


def _last_good(trainer: Trainer, ckpt_path: Path | None, bound: int | None) -> tuple[Path, int] | None:
    """The newest whole checkpoint of the run with its step, as the leader sees it; one from before a step
    where there is such a one.
    """
    if not trainer.is_global_zero:
        return None
    directory = Path(trainer.default_root_dir)
    saved = numbered(directory / "checkpoints")
    before = [saved[step] for step in sorted(saved, reverse=True) if bound is not None and step < bound]
    for place in (*before, directory, ckpt_path):
        try:
            if place is not None:
                path, checkpoint = find(place, whole=False)
                return path, checkpoint["global_step"]
        except CheckpointError:
            continue
    return None
