"""Going on at a step: what it still lacks is made up, also where it is the last."""

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn

from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.every_n_steps import EveryNSteps

if TYPE_CHECKING:
    from ddpm.training.module import DDPM


class Continuation(Callback):
    """Lets a run go on whose steps are all made already: Lightning would leave it without a word, and so
    without the last validation and what belongs to the end of training. The first of the callbacks, so that
    the others see how many steps there are.
    """

    def __init__(self) -> None:
        self._max_steps: int | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loop, step = trainer.fit_loop.epoch_loop, checkpoint["global_step"]
        if trainer.state.fn == TrainerFn.FITTING and 0 <= loop.max_steps <= step:
            self._max_steps, loop.max_steps = loop.max_steps, step + 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._put_back(trainer)

    def _put_back(self, trainer: Trainer) -> None:
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps
            self._max_steps = None


def make_up_step(trainer: Any, module: "DDPM") -> None:
    """Do, in its order, what belongs to the step that a run goes on from and follows its checkpoint.

    A checkpoint is the state right after an optimizer step. What comes then, `on_step` of every callback, the
    validation, and the end of the epoch or the run, is done again, and is the same again; Lightning by itself
    would pass over it. A checkpoint that was written when the validation was done counts it as done.

    Args:
        trainer: that is about to train; training has begun for all its callbacks.
        module: with the state of the checkpoint.
    """
    step, epochs = trainer.global_step, trainer.fit_loop
    for callback in trainer.callbacks:
        if isinstance(callback, EarlyStopping):
            # it is the trainer that would know, and a checkpoint does not hold what it knows
            trainer.should_stop |= callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED
    if not epochs.restarted_mid_epoch:
        return  # the checkpoint is of the end of an epoch or the run, when all this was done
    steps = epochs.epoch_loop
    epoch_is_over = steps.restarted_on_train_batch_end and steps.batch_progress.is_last_batch
    if epoch_is_over:  # Lightning has taken this for done
        for counted in (epochs.epoch_progress.total, epochs.epoch_progress.current):
            counted.processed -= 1
            counted.completed -= 1
    for callback in trainer.callbacks:
        counts = isinstance(callback, EveryNSteps) and not isinstance(callback, Checkpoints)
        if counts and step % callback.every_n_steps == 0:
            callback.on_step(trainer, module, step)
    steps.val_loop.restarting = False  # it is not begun in its middle
    steps.val_loop.reset_restart_stage()
    steps._skip_next_val = module.validated_step == step
    steps.on_advance_end(epochs._data_fetcher)
    if epoch_is_over or epochs.done:
        epochs.on_advance_end()
