"""The study of a search: Optuna's, kept in a file of the sweep's directory from which any start goes on.

What a run says of itself holds: a trial is what came out of the run in its directory.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from ddpm.app.left_run import RECORD, read_record
from ddpm.app.sweeps import record
from ddpm.app.sweeps.jobs import Chosen, JobFailed
from ddpm.app.sweeps.search import Search
from ddpm.app.sweeps.space import Parameter
from ddpm.errors import UsageError
from ddpm.training.trials import STUDY, Trial, storage

JOURNAL = "study.journal"

FEWEST = 5
"""Complete trials from which it is told what mattered."""

log = logging.getLogger(__name__)


class Study:
    """The study of a search that has begun or goes on. Nobody else chooses its trials meanwhile.

    Args:
        directory: of the sweep.
        search: its settings.
    """

    def __init__(self, directory: Path, search: Search):
        self.directory = directory
        self.search = search
        self.journal = directory.absolute() / JOURNAL
        _mend(self.journal)
        self._study = optuna.create_study(
            study_name=STUDY,
            storage=storage(self.journal),
            direction=search.direction,
            load_if_exists=True,
        )

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def jobs(self, common: Sequence[str]) -> Iterator[Chosen]:
        """The jobs that are left, each chosen when it is asked for: trials that an earlier start has left go
        on in their own directories, then new ones.

        Args:
            common: overrides that all have.
        """
        known = {job.number: job.directory for job in record.read(self.directory).jobs}
        for trial in self.trials:
            if trial.state == TrialState.RUNNING:
                if trial.number in known and _is_settled(known[trial.number]):
                    self.ended(trial.number, known[trial.number], 0)
                else:
                    yield self._job(optuna.Trial(self._study, trial._trial_id), common)
        while len(self.trials) < self.search.n_trials:
            self._study.sampler = self._sampler(len(self.trials))
            yield self._job(self._study.ask(), common)

    def ended(self, number: int, directory: Path, code: int | None, *, stopped: bool = False) -> None:
        """A job has ended: its trial is complete, pruned or failed. One that was asked to end stays open, and
        goes on when the search does.

        Args:
            number: of the job and the trial.
            directory: of the job.
            code: its exit code.
            stopped: whether the search was asked to stop.
        """
        said: dict[str, Any] = {}
        with suppress(UsageError, OSError):
            said = read_record(directory) if (directory / RECORD).exists() else {}
        if code and (stopped or said.get("status") == "interrupted"):
            return
        value = (said.get("metrics") or {}).get(self.search.monitor)
        if code:
            self._tell(number, TrialState.FAIL)
        elif said.get("status") == "pruned":
            self._tell(number, TrialState.PRUNED)
        elif isinstance(value, int | float):
            self._tell(number, TrialState.COMPLETE, float(value))
        else:
            log.error("trial %d has measured no %s, so that it counts as failed", number, self.search.monitor)
            self._tell(number, TrialState.FAIL)

    def raise_failures(self) -> None:
        """Raise where trials have failed, in this start or an earlier one, or were stopped.

        Raises:
            JobFailed: naming them.
        """
        numbers = {
            said: [str(trial.number) for trial in self.trials if trial.state == state]
            for said, state in (("failed", TrialState.FAIL), ("were stopped", TrialState.RUNNING))
        }
        told = [f"{len(found)} {said}: {', '.join(found)}" for said, found in numbers.items() if found]
        if told:
            raise JobFailed(f"of {self.search.n_trials} trials {'; '.join(told)}")

    @property
    def best_value(self) -> float | None:
        """Of the best trial; None where none is complete."""
        best = best_of(self._study)
        return best.value if best is not None else None

    def _job(self, trial: optuna.Trial, common: Sequence[str]) -> Chosen:
        overrides = [*common, *(one.override(_suggested(trial, one)) for one in self.search.space)]
        told = Trial(self.journal, trial.number, self.search.monitor, self.search.pruner)
        return Chosen(trial.number, overrides, told.variables)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """What draws the values of one trial: keyed by its number, so that a search that goes on draws no
        values again that it has drawn before.
        """
        seed = int(np.random.SeedSequence([self.search.seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=seed,
                constant_liar=True,  # jobs at once do not look at the same place
                **(self.search.sampler or {}),
            )

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        self._study.tell(number, value, state=state, skip_if_finished=True)


def _suggested(trial: optuna.Trial, one: Parameter) -> str | float:
    """The value of a parameter; the one that an earlier start has drawn, where it has."""
    if one.choices:
        return str(trial.suggest_categorical(one.name, one.choices))
    if one.whole:
        step = 1 if one.step is None else round(one.step)
        return trial.suggest_int(one.name, round(one.low), round(one.high), step=step, log=one.log)
    return trial.suggest_float(one.name, one.low, one.high, step=one.step, log=one.log)


def _is_settled(directory: Path) -> bool:
    """Whether a run has ended whose search did not live to hear of it."""
    with suppress(UsageError, OSError):
        return (directory / RECORD).exists() and read_record(directory)["status"] in ("finished", "pruned")
    return False


def _mend(journal: Path) -> None:
    """Put a file right that a process was killed at, where nobody else writes it: a line that is not whole
    would keep all others from being read, and a lock that nobody holds would be waited for.
    """
    for left in journal.parent.glob(f"{journal.name}.lock*"):
        left.unlink(missing_ok=True)
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        text = file.read()
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)


def check(directory: Path, search: Search) -> None:
    """Refuse a study that cannot be read, or of other parameters: nobody could go on with it.

    Args:
        directory: of the sweep.
        search: that is to go on there.

    Raises:
        UsageError: naming the file.
    """
    journal = directory / JOURNAL
    elsewhere = "move it away, or choose another directory"
    _mend(journal)
    try:
        if journal.exists() and (lines := journal.read_bytes().splitlines()):
            json.loads(lines[-1])  # which Optuna passes over until there is another behind it
        found = left_in(directory)
        trials = [] if found is None else found.get_trials(deepcopy=False)
    except Exception as error:  # whatever Optuna makes of a file that is none of its own
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise UsageError(f"{journal}: cannot be read as a study ({said}); {elsewhere}") from error
    space = {one.name: _distribution(one) for one in search.space}
    for trial in trials:
        for name, there in trial.distributions.items():
            if space.get(name) != there:
                raise UsageError(f"{journal}: is a study of other values of {name}; {elsewhere}")


def _distribution(one: Parameter) -> optuna.distributions.BaseDistribution:
    if one.choices:
        return optuna.distributions.CategoricalDistribution(one.choices)
    if one.whole:
        step = 1 if one.step is None else round(one.step)
        return optuna.distributions.IntDistribution(round(one.low), round(one.high), one.log, step)
    return optuna.distributions.FloatDistribution(one.low, one.high, one.log, one.step)


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_trial if complete else None


def left_in(directory: Path) -> optuna.Study | None:
    """The study in a sweep's directory, to be looked at; None where no trial has been chosen."""
    journal = directory.absolute() / JOURNAL
    if not journal.exists():
        return None
    found = storage(journal)
    with suppress(KeyError):
        return optuna.load_study(study_name=STUDY, storage=found)
    return None


def importance(study: optuna.Study) -> dict[str, float]:
    """How much of the variance of what complete trials came to is due to each parameter, by a functional
    analysis of variance; the most important first. Nothing, where too few are complete to tell.
    """
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < FEWEST:
        return {}
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):
        return {}
