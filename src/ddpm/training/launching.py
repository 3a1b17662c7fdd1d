"""How the ranks of one machine are started by the first, which then answers for them."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

PARENT = "DDPM_PARENT"
"""Environment variable: the process that started this one as a rank of its own run."""

ACCUMULATION = "DDPM_ACCUMULATION"
"""Environment variable: the micro-batches of a step, as the process that started this one found them."""


class Ranks(_SubprocessScriptLauncher):
    """Lightning's launcher without its observer, which kills this very process within five seconds where a
    rank has ended with an error, before anybody could say or record why. `ddpm.runtime.peers` observes.
    """

    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any
    ) -> Any:
        """As Lightning's, and once only: a run may train more than one time."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally and not self.procs:
            told = {PARENT: str(os.getpid())}
            if trainer is not None:
                told[ACCUMULATION] = str(trainer.accumulate_grad_batches)
            os.environ.update(told)
            try:
                self._call_children_scripts()
            finally:
                for name in told:
                    del os.environ[name]
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def answer_for_ranks(trainer: Trainer) -> None:
    """Have a trainer start its ranks by `Ranks`, where it would by Lightning's launcher."""
    strategy: Any = trainer.strategy
    launcher = strategy.launcher
    if type(launcher) is _SubprocessScriptLauncher:
        strategy._launcher = Ranks(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)


def children(trainer: Trainer) -> Mapping[int, int | None]:
    """Exit codes by rank of the processes that this one started; None while one lives."""
    launcher = trainer.strategy.launcher
    started = launcher.procs if isinstance(launcher, Ranks) else []
    first = trainer.global_rank + 1
    return {first + i: process.poll() for i, process in enumerate(list(started))}


def kill_children(trainer: Trainer) -> None:
    """End the processes that this one started, whatever they do."""
    launcher = trainer.strategy.launcher
    for process in launcher.procs if isinstance(launcher, Ranks) else []:
        if process.poll() is None:
            process.kill()


def parent() -> int | None:
    """The process that started this one as a rank of its own run; None where a person or a scheduler did."""
    text = os.environ.get(PARENT)
    return int(text) if text else None


def leaders_accumulation() -> int | None:
    """The micro-batches of a step, in a rank that the leader has started; None elsewhere."""
    text = os.environ.get(ACCUMULATION)
    return int(text) if text else None
