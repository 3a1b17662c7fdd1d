"""A study takes trials, goes on from its file, and is what came out of the runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from ddpm.app.sweeps import record, search_picture, show, study
from ddpm.app.sweeps.jobs import Chosen, JobFailed
from ddpm.app.sweeps.record import Job, Sweep
from ddpm.app.sweeps.search import Search
from ddpm.app.sweeps.space import Parameter
from ddpm.app.sweeps.study import Study
from ddpm.errors import UsageError
from ddpm.training.trials import Trial

SPACE = (Parameter("++x", (), -4.0, 4.0), Parameter("kind", ("a", "b")))
SEARCH = Search(SPACE, ("seed=0",), n_trials=12, pruner={"percentile": 50.0, "n_startup_trials": 2})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    Sweep(tmp_path, "train", (), (), str(tmp_path), "now", search=SEARCH.kept).write()
    return tmp_path


def values(job: Chosen) -> dict[str, str]:
    return dict(text.lstrip("+").split("=") for text in job.overrides)


def run(found: Study, job: Chosen, status: str = "finished", **known: Any) -> None:
    """Stands for a run: a parabola, which only its own directory tells of."""
    own = values(job)
    loss = float(own["x"]) ** 2 + (own["kind"] == "b")
    directory = found.directory / str(job.number)
    directory.mkdir(exist_ok=True)
    known = {"metrics": {"val/loss": loss}, "why": None, **known}
    (directory / "run.json").write_text(json.dumps({"status": status, **known}))
    found.ended(job.number, directory, 1 if status == "failed" else 130 if status == "interrupted" else 0)


def states(found: Study) -> list[str]:
    return [trial.state.name for trial in found.trials]


def test_each_is_chosen_when_it_is_asked_for_and_the_best_is_told(directory: Path):
    found = Study(directory, SEARCH)
    jobs = []
    for job in found.jobs(["seed=0"]):
        assert len(found.trials) == job.number + 1, "the next is not known yet"
        jobs.append(job)
        run(found, job)
    assert [job.number for job in jobs] == list(range(12))
    assert all(job.overrides[0] == "seed=0" for job in jobs)
    assert len({values(job)["x"] for job in jobs}) == 12
    best = min(float(values(job)["x"]) ** 2 + (values(job)["kind"] == "b") for job in jobs)
    assert found.best_value == best
    found.raise_failures()


def test_what_was_found_guides_what_is_chosen(directory: Path):
    found = Study(directory, replace(SEARCH, n_trials=40, sampler={"n_startup_trials": 10}))
    for job in found.jobs([]):
        run(found, job)
    losses = [float(trial.value or 0.0) for trial in found.trials]
    assert sum(losses[25:]) / 15 < 0.6 * sum(losses[:10]) / 10


def test_how_a_run_ended_is_how_its_trial_did(directory: Path):
    found = Study(directory, SEARCH)
    jobs = found.jobs([])
    ends: list[tuple[str, dict[str, Any]]] = [
        ("finished", {}), ("pruned", {}), ("failed", {}), ("interrupted", {}),
        ("finished", {"metrics": {}}), ("finished", {"metrics": {"val/loss": None}}),
    ]  # fmt: skip
    for status, known in ends:
        run(found, next(jobs), status, **known)
    assert states(found) == ["COMPLETE", "PRUNED", "FAIL", "RUNNING", "FAIL", "FAIL"]
    killed = next(jobs)
    found.ended(killed.number, directory / "nowhere", -9)
    stopped = next(jobs)
    found.ended(stopped.number, directory / "nowhere", 143, stopped=True)
    assert states(found)[6:] == ["FAIL", "RUNNING"]
    with pytest.raises(JobFailed, match="of 12 trials 4 failed: 2, 4, 5, 6; 2 were stopped: 3, 7"):
        found.raise_failures()


def test_the_same_search_goes_on(directory: Path):
    """Trials that are through stay, those that are not go on as they were, and none is drawn twice."""
    first = Study(directory, SEARCH)
    jobs = first.jobs([])
    for _ in range(3):
        run(first, next(jobs))
    left, unheard, never_started = next(jobs), next(jobs), next(jobs)
    done = directory / str(unheard.number)
    done.mkdir()
    (done / "run.json").write_text(json.dumps({"status": "finished", "metrics": {"val/loss": 0.125}}))
    known = (Job(left.number, directory / str(left.number)), Job(unheard.number, done))
    Sweep(directory, "train", (), (), str(directory), "now", known, SEARCH.kept).write()

    second = Study(directory, SEARCH)
    again = []
    for job in second.jobs([]):
        again.append(job)
        run(second, job)
    assert again[:2] == [left, never_started]
    assert [job.number for job in again] == [3, 5, 6, 7, 8, 9, 10, 11]
    assert states(second) == ["COMPLETE"] * 12
    assert second.trials[unheard.number].value == 0.125
    assert len({trial.params["x"] for trial in second.trials}) == 12
    assert list(Study(directory, SEARCH).jobs([])) == []
    more = Study(directory, replace(SEARCH, n_trials=13))
    assert [job.number for job in more.jobs([])] == [12], "the number is the total"


def test_a_trial_that_was_killed_while_it_was_drawn_is_drawn_on(directory: Path):
    first = Study(directory, SEARCH)
    next(first.jobs([]))
    lines = first.journal.read_bytes().splitlines(keepends=True)
    first.journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # in the middle of its last value
    first.journal.with_name("study.journal.lock").symlink_to(first.journal)
    second = Study(directory, SEARCH)
    job = next(second.jobs([]))
    assert job.number == 0
    assert values(job).keys() == {"x", "kind"}
    assert values(job)["x"] == f"{float(second.trials[0].params['x']):.5g}"


def test_a_run_that_falls_behind_is_told_to_end(directory: Path, monkeypatch: pytest.MonkeyPatch):
    found = Study(directory, SEARCH)
    jobs = found.jobs([])
    for loss in (1.0, 2.0, 3.0):
        job = next(jobs)
        (told,) = job.variables.items()
        monkeypatch.setenv(*told)
        trial = Trial.of_this_process()
        assert trial is not None
        assert trial.report(loss, step=20) == (loss == 3.0)
        assert trial.report(loss, step=20) == (loss == 3.0), "a run that goes on reports again"
        run(found, job, metrics={"val/loss": loss})
    assert found.trials[0].intermediate_values == {20: 1.0}


def test_without_a_pruner_none_is(directory: Path):
    found = Study(directory, replace(SEARCH, pruner=None))
    jobs = found.jobs([])
    for loss in (1.0, 2.0, 3.0):
        job = next(jobs)
        assert not Trial(found.journal, job.number, "val/loss", None).report(loss, step=1)
        run(found, job, metrics={"val/loss": loss})


def test_no_other_run_is_a_trial(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DDPM_TRIAL", raising=False)
    assert Trial.of_this_process() is None


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ((Parameter("++x", (), -4.0, 5.0), SPACE[1]), "other values of x"),
        ((Parameter("++x", (), -4.0, 4.0, whole=True), SPACE[1]), "other values of x"),
        ((SPACE[0], Parameter("kind", ("a", "c"))), "other values of kind"),
        ((SPACE[0],), "other values of kind"),
    ],
)
def test_a_study_of_other_parameters_is_refused(space: tuple[Parameter, ...], said: str, directory: Path):
    study.check(directory, SEARCH)
    next(Study(directory, SEARCH).jobs([]))
    study.check(directory, SEARCH)
    with pytest.raises(UsageError, match=said):
        study.check(directory, replace(SEARCH, space=space))


@pytest.mark.parametrize("content", ["nonsense\n", '{"op_code": 77}\n', "[1]\n{}\n"])
def test_a_file_that_is_no_study_is_refused(content: str, directory: Path):
    (directory / study.JOURNAL).write_text(content)
    with pytest.raises(UsageError, match=r"study\.journal: cannot be read as a study"):
        study.check(directory, SEARCH)
    sweep = record.read(directory)
    if "nonsense" in content:
        return  # nothing to tell of
    (said,) = show.of_search(sweep, directory)
    assert "cannot be told" in said


def test_importance_and_a_picture(directory: Path):
    found = Study(directory, replace(SEARCH, n_trials=20))
    assert study.left_in(directory / "elsewhere") is None
    for job in found.jobs([]):
        Trial(found.journal, job.number, "val/loss", None).report(1.0, step=1)
        run(found, job, "pruned" if job.number in (5, 6) else "finished")
        if job.number == 3:
            assert study.importance(found._study) == {}, "too few to tell"
    looked = study.left_in(directory)
    assert looked is not None
    shares = study.importance(looked)
    assert next(iter(shares)) == "x"
    assert sum(shares.values()) == pytest.approx(1.0)
    search_picture.draw(looked, "val/loss", shares, directory / "search.png")
    assert (directory / "search.png").read_bytes().startswith(b"\x89PNG")
    best = study.best_of(looked)
    assert best is not None
    assert best.state == TrialState.COMPLETE
