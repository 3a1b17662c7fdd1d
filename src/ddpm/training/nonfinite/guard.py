"""The guard over a training: a loss or gradient that is not finite is noticed in the step it happens, before
it reaches weights, averages or checkpoints.
"""

import logging
import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from ddpm.training.ending import TrainingError
from ddpm.training.loggers import raise_alert
from ddpm.training.nonfinite.diagnosis import Found, Seen, Step, found_by_all
from ddpm.training.nonfinite.report import REPORTS

log = logging.getLogger(__name__)

Policy = Literal["stop", "skip", "rollback"]

MOST_IN_A_ROW = 10
"""Steps that are left out one after another; the next one stops the run."""

MOST_ROLLBACKS = 3
"""Times that a run goes back to a checkpoint; the next bad step stops it."""

RATE_FACTOR = 0.5
"""That each return to a checkpoint multiplies the learning rate by."""

LEAST_SCALE = 2.0**-10
"""Of float16's losses. Below it gradients would overflow even where they are made a thousand times smaller
than they are: it is not the scale that is wrong. It begins at 2^16.
"""


class NonFiniteError(TrainingError):
    """A loss or gradient is not finite; every rank raises it, in the same step."""


class Rollback(NonFiniteError):  # noqa: N818 - it asks for something
    """The same, asking whoever called `trainer.fit` to go back to a checkpoint; see
    `ddpm.training.nonfinite.rollback.fit`.

    Attributes:
        step: that was not finite, counted from 1.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class Reading:
    """Numbers on their way from the device to the host, which does not wait for them before it asks.

    Args:
        values: [N]; on other devices than CUDA's the asking waits.
    """

    def __init__(self, values: Tensor):
        self._arrived = None
        self._values = values
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(values.device))

    def get(self) -> list[float]:
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers


def reads_late(device: torch.device) -> bool:
    """Whether a step is judged when the next one is about to be applied, so that nothing waits for the
    device; where the host computes, or cannot be told of a copy's arrival, at once.
    """
    return device.type == "cuda"


class Guard:
    """Judges each optimizer step by the norm of its gradients, which is the same number on every rank.

    A loss that is not finite reaches the norm through `guarded`. On the CPU a bad step is known before it is
    applied. On CUDA a fused Adam or AdamW leaves it out by itself (`found_inf`), as the scaler of float16
    does with any optimizer, and it is judged when the next one is about to be applied: the weights are then
    still those that it was computed with, and the device has the next one's work to do. For other optimizers
    the host waits for the norm.

    With float16's scaler gradients that overflow are ordinary. Bad is a loss that is not finite, or a scale
    that has become smaller than `LEAST_SCALE`.

    Args:
        policy: what is done about a bad step. "stop" raises `NonFiniteError`, "skip" leaves the step out,
            up to `MOST_IN_A_ROW` times in a row, and "rollback" raises `Rollback`, up to `MOST_ROLLBACKS`
            times.
        reports: that are written at most.

    Raises:
        ValueError: for another word.

    Attributes:
        skipped: steps that were left out so far.
        returns: to a checkpoint: the step that was not finite, counted from 1, and that of the checkpoint.
    """

    def __init__(self, policy: Policy = "stop", reports: int = REPORTS):
        if policy not in get_args(Policy):
            raise ValueError(f"on_nonfinite={policy}: must be {' or '.join(get_args(Policy))}")
        self.policy = policy
        self.reports = reports
        self.skipped = self._in_a_row = 0
        self.returns: list[tuple[int, int]] = []
        self._seen: list[Seen] = []
        self._unjudged: tuple[Step, Reading] | None = None

    @property
    def rollbacks(self) -> int:
        """How often the run has gone back to a checkpoint."""
        return len(self.returns)

    @property
    def rate_factor(self) -> float:
        """That the learning rate is multiplied by."""
        return RATE_FACTOR**self.rollbacks

    def begin(self) -> None:
        """Forget the steps of a training that was broken off."""
        self._seen, self._unjudged = [], None

    def guarded(self, loss: Tensor, seen: Seen) -> Tensor:
        """The loss of a micro-batch, a scalar. One that is not finite makes every gradient so: an infinite
        loss may well have finite ones, and another rank sees nothing of the loss.

        Args:
            loss: to be minimised.
            seen: the same without gradient, and what it was computed from.
        """
        self._seen.append(seen)
        return loss * (seen.loss * 0 + 1)  # times 1, or NaN

    def check(
        self, module: Any, norm: Tensor, norms: Tensor, present: list[int], optimizer: Optimizer, scaler: Any
    ) -> None:
        """Judge a step whose gradients are complete, or see to it that it is judged.

        Args:
            module: that is trained.
            norm: of all gradients, without float16's scale.
            norms: of each of them [N].
            present: numbers of the network's parameters that they belong to.
            optimizer: that is about to apply them.
            scaler: of float16's losses, where there is one.

        Raises:
            NonFiniteError: as the policy says.
        """
        self.settle(module)
        step = Step(self._seen, norm, norms, present, scaler is not None)
        self._seen = []
        values = norm.view(1)
        if scaler is not None:
            scale = scaler.scale(torch.ones((), device=norm.device))
            values = torch.stack([norm, scale, *(seen.loss for seen in step.seen)])
        self._unjudged = step, Reading(values)
        if reads_late(norm.device) and (scaler is not None or _leaves_out(optimizer)):
            if scaler is None:
                vars(optimizer)["found_inf"] = (~norm.isfinite()).float()
            return
        if not self.settle(module) and scaler is None:
            for group in optimizer.param_groups:  # an optimizer leaves alone what has no gradient
                for parameter in group["params"]:
                    parameter.grad = None

    @staticmethod
    def applied(optimizer: Optimizer) -> None:
        """Take back what `check` told the optimizer about one step."""
        vars(optimizer).pop("found_inf", None)

    def settle(self, module: Any) -> bool:
        """Judge the step that is not judged yet, if there is one: before anything is read or written that it
        would be a part of. Every rank must call it.

        Returns:
            Whether it was good, and counts in the means of the training.

        Raises:
            NonFiniteError: as the policy says.
        """
        if self._unjudged is None:
            return True
        step, reading = self._unjudged
        self._unjudged = None
        norm, *rest = reading.get()
        finite = math.isfinite(norm)
        if not finite and (not step.scaled or _beyond_scaling(module, *rest)):
            self._act(module, step)
            return False
        self._in_a_row = 0
        for seen in step.seen:
            module.train_loss.add(seen.loss)
        if finite:
            module.gradient_norm.add(step.norm)
        return True

    def _act(self, module: Any, step: Step) -> None:
        number = step.number
        found: Found = found_by_all(module, step, report=self.skipped < self.reports)
        what = f"step {number}: {found.words}"
        if self.policy == "skip" and not found.lasts:
            self.skipped += 1
            self._in_a_row += 1
            if self._in_a_row > MOST_IN_A_ROW:
                raise NonFiniteError(
                    f"{what}. {MOST_IN_A_ROW} steps before it were left out one after another; "
                    "on_nonfinite=skip leaves no more out"
                )
            if module.trainer.is_global_zero:
                log.warning("%s. The step is left out, %d so far", what, self.skipped)
                raise_alert(module.trainer, "a step is left out", what)
            return
        if self.policy == "rollback":
            if self.rollbacks < MOST_ROLLBACKS:
                raise Rollback(what, number)
            raise NonFiniteError(
                f"{what}. The run has gone back to a checkpoint {MOST_ROLLBACKS} times already, and "
                "on_nonfinite=rollback goes back no more"
            )
        if self.policy == "skip":
            raise NonFiniteError(f"{what}. To leave the step out (on_nonfinite=skip) would mend nothing")
        leaves = "" if found.lasts else "on_nonfinite=skip leaves such a step out, "
        raise NonFiniteError(f"{what}. {leaves}on_nonfinite=rollback goes back to a checkpoint")

    def state_dict(self) -> dict[str, Any]:
        """Plain containers for a checkpoint."""
        returns = [list(one) for one in self.returns]
        return {"skipped": self.skipped, "in_a_row": self._in_a_row, "returns": returns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave. A return to a checkpoint that is under way counts, of which the
        checkpoint knows nothing.
        """
        self.skipped, self._in_a_row = state.get("skipped", 0), state.get("in_a_row", 0)
        theirs = [(bad, to) for bad, to in state.get("returns", ())]
        self.returns = max(self.returns, theirs, key=len)


def _leaves_out(optimizer: Optimizer) -> bool:
    """Whether an optimizer leaves a step out that `found_inf` says is bad. Those of torch's others that take
    it do so with a flaw (SGD's momentum begins at whatever lay in memory).
    """
    return isinstance(optimizer, Adam) and getattr(optimizer, "_step_supports_amp_scaling", False)


def _beyond_scaling(module: Any, scale: float, *losses: float) -> bool:
    """Whether gradients that overflow with float16's scale are bad. The losses are this rank's own."""
    bad = scale < LEAST_SCALE or not all(map(math.isfinite, losses))
    if module.trainer.world_size > 1:
        agreed = torch.tensor(float(bad), device=module.device)
        torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MAX)
        bad = bool(agreed)
    return bad
