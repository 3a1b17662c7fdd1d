"""A trial of a search, as the run that carries it out sees it: where it reports to, and what it is told.

A search (`hparams_search=optuna`) keeps its study in a file of its directory, and tells each of its jobs by
an environment variable which trial of it the job is. A run that is continued by hand is no trial any more.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

VARIABLE = "DDPM_TRIAL"
"""Environment variable: a `Trial`, as JSON."""

STUDY = "search"
"""The name of the study in its file."""


@dataclass(frozen=True)
class Trial:
    """A trial of a study that is kept in a file.

    Attributes:
        journal: the file, absolute.
        number: of the trial, from 0.
        monitor: the metric that is reported.
        pruner: arguments of Optuna's `PercentilePruner`; None where no run is ended early.
    """

    journal: Path
    number: int
    monitor: str
    pruner: Mapping[str, Any] | None

    @classmethod
    def of_this_process(cls) -> "Trial | None":
        """The trial that this process is a run of, if any."""
        text = os.environ.get(VARIABLE)
        if not text:
            return None
        values = json.loads(text)
        return cls(**{**values, "journal": Path(values["journal"])})

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that tell a job of it."""
        values = {**vars(self), "journal": str(self.journal)}
        kept = {name: values[name] for name in self.__dataclass_fields__}
        return {VARIABLE: json.dumps(kept)}

    def report(self, value: float, step: int) -> bool:
        """Report a value of the metric after so many optimizer steps.

        Returns:
            Whether the run is to end, since the trials before it were better at this step.
        """
        trial = self._asked
        known = trial.storage.get_trial(trial._trial_id).intermediate_values
        if step not in known:  # a run that goes on comes by steps that it has reported before
            trial.report(value, step)
        return bool(trial.should_prune())

    @cached_property
    def _asked(self) -> "optuna.Trial":
        import optuna

        study = optuna.load_study(
            study_name=STUDY,
            storage=storage(self.journal),
            sampler=optuna.samplers.RandomSampler(),  # it draws nothing
            pruner=optuna.pruners.PercentilePruner(**self.pruner)
            if self.pruner is not None
            else optuna.pruners.NopPruner(),
        )
        return optuna.Trial(study, study.get_trials(deepcopy=False)[self.number]._trial_id)


def storage(journal: Path) -> "optuna.storages.JournalStorage":
    """The file of a study, which any number of processes may write at the same time.

    Its lock is a file beside it, and not Optuna's usual link to it: a link that a killed process has left
    leads nowhere once the directory is moved, and Optuna would wait for it for ever. A file that was left
    counts for half a minute.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lock = journal.with_name(f"{journal.name}.lock")
    if lock.is_symlink() and not lock.exists():  # left by an earlier version
        lock.unlink(missing_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(journal), JournalFileOpenLock(str(journal))))
