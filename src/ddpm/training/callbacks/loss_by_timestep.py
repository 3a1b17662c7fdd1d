"""The losses over timesteps and training steps, as pictures: of training, and of validation."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ddpm.runtime.progress import Pause
from ddpm.sampling.figures import heat_map
from ddpm.sampling.figures.style import styled
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.interruption import leader_alone
from ddpm.training.callbacks.shown import WIDTH, show_figure, spared
from ddpm.training.metrics import over_ranks

COLUMNS = 96
"""Parts of the training that are told apart, at most; from half as many on whatever its length."""

BINS = 25
"""Parts of the chain, at most."""

AT_ONCE = 64
"""Micro-batches whose losses are added together."""


class LossByTimestep(EveryNSteps):
    """Shows the mean training loss in parts of the chain as training goes on, `diagnostics/loss_by_timestep`,
    and that of each validation, `diagnostics/val_loss_by_timestep`: every n steps, and when training ends; in
    the directory `figures/loss_by_timestep.png` and `figures/val_loss_by_timestep.png`.

    The losses are those that training and validation compute. They are summed on the device, and nothing
    waits for it until the picture is drawn, or a validation ends. A loss that is not finite is left out. A
    run that goes on from a checkpoint goes on with its sums.

    Args:
        every_n_steps: optimizer steps from one picture to the next.

    Raises:
        ValueError: where it is below 1.
    """

    def __init__(self, every_n_steps: int = 10_000):
        super().__init__(every_n_steps)
        self._width = 1  # optimizer steps that a column stands for
        self._sums: Tensor | None = None  # float32 [2, COLUMNS, bins]: losses, and how many they are
        self._waiting: list[tuple[Tensor, Tensor]] = []  # t and losses of one column, not added yet
        self._column = 0
        self._num_timesteps = 1
        self._drawn_at = -1
        self._measured: Tensor | None = None  # float32 [2, bins], of the validation that is going on
        self._validations: list[Tensor] = []  # float32 [2, bins] each, of all ranks
        self._edges: list[int] = []  # the step before the first, and that of each
        self._validation_drawn_at = -1

    @property
    def bins(self) -> int:
        """Parts of the chain."""
        return min(BINS, self._num_timesteps)

    def state_dict(self) -> dict[str, Any]:
        """The sums of all ranks, each of which must call it."""
        self._add()
        if self._sums is None:
            return {}
        none = torch.zeros(2, self._sums.shape[2])  # stands alone where there was no validation
        validations = [*self._validations, none]
        return {
            "sums": over_ranks(self._sums),
            "width": self._width,
            "validations": torch.stack(validations),
            "edges": list(self._edges),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._waiting.clear()
        self._sums, self._width = None, int(state_dict.get("width", 1))
        self._edges = list(state_dict.get("edges", []))
        self._validations = list(state_dict["validations"][:-1]) if "validations" in state_dict else []
        if "sums" in state_dict:  # of all ranks: the first goes on with them
            own = 1.0 if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0 else 0.0
            self._sums = state_dict["sums"].clone() * own

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        self._num_timesteps = module.schedule.num_timesteps
        self._drawn_at = -1
        if self._sums is None or self._sums.shape[2] != self.bins or trainer.global_step == 0:
            self._waiting.clear()
            self._sums, self._width = torch.zeros(2, COLUMNS, self.bins), 1
            self._validations, self._edges = [], []
        self._edges = self._edges or [trainer.global_step]
        self._validation_drawn_at = -1
        self._sums = self._sums.to(module.device)
        if trainer.global_step:  # of steps that were made without this callback there are no sums
            self._with_room(trainer.global_step - 1)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        module: Any = pl_module
        column = trainer.global_step // self._width
        if column != self._column or len(self._waiting) >= AT_ONCE:
            self._add()
            self._column = column = self._with_room(trainer.global_step)
        self._waiting.append(module.losses_seen)

    def _with_room(self, step: int) -> int:
        """The column of a step; where there are too few, two neighbours become one."""
        assert self._sums is not None
        while step // self._width >= COLUMNS:
            pairs = self._sums.view(2, COLUMNS // 2, 2, self.bins).sum(2)
            self._sums = torch.cat([pairs, torch.zeros_like(pairs)], dim=1)
            self._width *= 2
        return step // self._width

    def _add(self) -> None:
        if not self._waiting or self._sums is None:
            return
        t, losses = (torch.cat(values) for values in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self._add_to(self._sums[:, self._column], t, losses)

    def _add_to(self, sums: Tensor, t: Tensor, losses: Tensor) -> None:
        bins, counted = t * self.bins // self._num_timesteps, losses.isfinite()
        values = torch.stack([torch.where(counted, losses, 0), counted.to(losses)])
        sums.index_add_(1, bins, values.to(sums))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        counts = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and self._edges
        self._measured = torch.zeros(2, self.bins, device=module.device) if counts else None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        module: Any = pl_module
        if self._measured is not None:
            self._add_to(self._measured, *module.losses_measured)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Every rank must call it."""
        if self._measured is None:
            return
        total, self._measured = over_ranks(self._measured).cpu(), None
        if self._validations and self._edges[-1] == trainer.global_step:  # it was made anew
            self._validations.pop()
            self._edges.pop()
        if not self._validations and self._edges[-1] == trainer.global_step:  # nobody knows of one before it
            self._edges = [trainer.global_step - 1]
        self._validations.append(total)
        self._edges.append(trainer.global_step)
        if len(self._validations) > COLUMNS:  # two neighbours become one
            ended = (
                self._edges[2::2]
                if len(self._validations) % 2 == 0
                else [*self._edges[2::2], self._edges[-1]]
            )
            pairs = range(0, len(self._validations), 2)
            self._validations = [sum(self._validations[i + 1 : i + 2], self._validations[i]) for i in pairs]
            self._edges = [self._edges[0], *ended]

    def pause(self, trainer: Trainer, module: LightningModule) -> Pause | None:
        return None

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        """Every rank must call it."""
        if self._validations and self._validation_drawn_at != self._edges[-1]:
            self._validation_drawn_at = self._edges[-1]
            with leader_alone(trainer) as alone, spared("diagnostics/val_loss_by_timestep"):
                if alone:
                    self._show_validations(trainer)
        if self._drawn_at == trainer.global_step or self._sums is None:
            return
        self._drawn_at = trainer.global_step
        self._add()
        total = over_ranks(self._sums)
        with leader_alone(trainer) as alone, spared("diagnostics/loss_by_timestep"):
            if alone:
                self._show(trainer, total.cpu().double().numpy())

    def _show(self, trainer: Trainer, sums: np.ndarray) -> None:
        step = trainer.global_step
        columns = -(-step // self._width)
        if not columns:
            return
        steps = np.minimum(np.arange(columns + 1) * self._width, step)
        with np.errstate(invalid="ignore"):
            means = sums[0, :columns] / sums[1, :columns]
        with styled():
            figure = heat_map.draw(means, steps, self._timesteps(), width=WIDTH)
            caption = f"mean training loss, {self.bins} parts of the chain, up to step {step:,}"
            show_figure(trainer, "diagnostics/loss_by_timestep", figure, caption)

    def _show_validations(self, trainer: Trainer) -> None:
        """Each from the step of the one before to its own."""
        losses, counts = torch.stack(self._validations, dim=1).double().numpy()
        with np.errstate(invalid="ignore"):
            means = losses / counts
        with styled():
            figure = heat_map.draw(means, np.array(self._edges), self._timesteps(), width=WIDTH)
            caption = f"mean validation loss, {self.bins} parts of the chain, up to step {self._edges[-1]:,}"
            show_figure(trainer, "diagnostics/val_loss_by_timestep", figure, caption)

    def _timesteps(self) -> np.ndarray:
        """Where the parts of the chain begin, and the last ends."""
        return -(-np.arange(self.bins + 1) * self._num_timesteps // self.bins)
