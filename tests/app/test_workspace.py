"""`python -m ddpm workspace`: what would be sent to W&B, and what is said where nothing can be."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb_workspaces.workspaces as ws
from conftest import run_command, wandb_records

from ddpm.app import workspace as command
from ddpm.app.sweeps.record import Job, Sweep


def run(monkeypatch: pytest.MonkeyPatch, *words: Path | str) -> int:
    return run_command(monkeypatch, "workspace", *words)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a command would send, plain containers."""

    def write(*words: Path | str) -> dict[str, Any]:
        assert run(monkeypatch, "me/digits", *words, "--dry-run", tmp_path / "sent.json") == 0
        found: dict[str, Any] = json.loads((tmp_path / "sent.json").read_text(encoding="utf-8"))
        return found

    return write


def panels(found: Any, kind: str) -> list[dict[str, Any]]:
    """The configurations of all panels of a kind, wherever they stand."""
    return [one["config"] for one in nodes(found) if one.get("viewType") == kind]


def nodes(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        yield found
    for inner in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from nodes(inner)


LINE, MEDIA, COORDINATES = "Run History Line Plot", "Media Browser", "Parallel Coordinates Plot"


def test_sections_stand_in_order_over_completed_steps(written: Any):
    section = written()["spec"]["section"]
    sections = section["panelBankConfig"]["sections"]
    names = [one["name"] for one in sections]
    assert names == ["train", "val", "samples", "diagnostics", "perf", "data", "schedule", "sweep"]
    assert section["settings"]["xAxis"] == "trainer/global_step"
    assert {line["xAxis"] for line in panels(section, LINE)} == {"trainer/global_step"}
    loss = next(line for line in panels(section, LINE) if line["metrics"] == ["train/loss"])
    assert loss["yLogScale"] is True
    rate = next(line for line in panels(section, LINE) if line["metrics"] == ["train/learning_rate"])
    assert "yLogScale" not in rate
    for one in sections[:-1]:
        keys = [key for line in panels(one, LINE) for key in line["metrics"]]
        keys += [key for media in panels(one, MEDIA) for key in media["mediaKeys"]]
        assert all(key.startswith(f"{one['name']}/") for key in keys)


def test_what_runs_are_compared_by_are_keys_of_their_configuration(written: Any):
    (coordinates,) = panels(written(), COORDINATES)
    accessors = [column["accessor"] for column in coordinates["columns"]]
    assert "config:optimizer.lr.value" in accessors
    assert accessors[-1] == "summary:val/loss"


@pytest.mark.slow
def test_all_that_a_run_logs_has_a_panel(smoke_run: Path, written: Any):
    """And the keys that are named without a pattern, and without a condition of their own, are logged."""
    found = written()
    rows = [record["item"] for record in wandb_records(smoke_run, "history")]
    logged = {key for row in rows for key in row if "/" in key and key != "trainer/global_step"}
    kinds = {key.removesuffix("._type"): row[key] for row in rows for key in row if key.endswith("._type")}
    pictures = {key for key, kind in kinds.items() if kind.startswith("images")}
    scalars = {key for key in logged if key.partition(".")[0] not in kinds}
    assert "train/loss" in scalars
    assert "samples/grid" in pictures
    lines = panels(found, LINE)
    named = {key for line in lines for key in line["metrics"]}
    patterns = [re.compile(line["metricRegex"]) for line in lines if "metricRegex" in line]
    assert {key for key in scalars - named if not any(one.search(key) for one in patterns)} == set()
    rare = {"val/bits_per_dim", "diagnostics/skipped_steps", "diagnostics/loss_spike", "perf/rank_wait"}
    assert named - rare <= scalars
    assert pictures <= {key for media in panels(found, MEDIA) for key in media["mediaKeys"]}
    (coordinates,) = panels(found, COORDINATES)
    (begun,) = wandb_records(smoke_run, "run")
    for column in coordinates["columns"][:-1]:
        value = begun["config"]["update"][column["accessor"].removeprefix("config:").removesuffix(".value")]
        assert isinstance(value, str | int | float), column


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The directory of a sweep of two jobs, by name and by number."""
    directory = tmp_path / "my 'sweep' 猫"
    jobs = []
    for number, (schedule, lr) in enumerate((("linear", 1e-3), ("cosine", 2e-4))):
        job = directory / str(number)
        job.mkdir(parents=True)
        words = (f"schedule={schedule}", f"optimizer.lr={lr}")
        jobs.append(Job(number, job, words, exit_code=0))
    Sweep(
        directory, "train", ("schedule=linear,cosine",), (), str(tmp_path), "2026-01-01", tuple(jobs)
    ).write()
    return directory


def test_a_report_shows_the_runs_of_a_sweep_and_what_sets_them_apart(sweep: Path, written: Any):
    found = written("--report", sweep)
    assert found["displayName"] == "Sweep my 'sweep' 猫"
    runs = [one for one in nodes(found) if "runFeed" in one]
    assert len(runs) == 3
    for one in runs:
        assert "project" not in one, "they are of the report's own project, which nobody has to look up"
        (condition,) = (node for node in nodes(one["filters"]) if "value" in node)
        assert condition["key"] == {"section": "run", "name": "group"}
        assert condition["value"] == sweep.name
    (coordinates,) = panels(found, COORDINATES)
    keys = [column["displayName"] for column in coordinates["columns"]]
    assert keys == ["schedule", "optimizer.lr", "val/loss"]
    (grids,) = panels(found, MEDIA)
    assert grids["mediaKeys"] == ["samples/grid"]
    assert grids["gridSettings"] == {"xAxis": "step", "yAxis": "run"}
    text = json.dumps(found["spec"]["blocks"])
    assert "python train.py -m schedule=linear,cosine" in text
    assert "cosine" in text
    assert str(sweep.parent) not in text, "no path is told"


@pytest.mark.parametrize(
    "group", ["ablation", 'it\'s a "group"', "back\\slash", "a) or (Metric('Name') == 'b'"]
)
def test_a_group_is_found_by_its_very_name(group: str, written: Any):
    for one in nodes(written("--report", group)):
        if "filterFormat" in one:
            (condition,) = (node for node in nodes(one) if "value" in node)
            assert condition["value"] == group


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits"], "digits: must be ENTITY/PROJECT"),
        (["me/digits/runs"], "me/digits/runs: must be ENTITY/PROJECT"),
        (["me/digits"], "there is no key of W&B; wandb login asks for one; --dry-run FILE"),
        (["me/digits", "--report", "no/where"], "--report no/where: there is no such directory"),
        (["me/digits", "--report", "."], "is no sweep, it holds no sweep.json"),
    ],
)
def test_a_mistake_ends_with_2_and_a_message(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "has_wandb_key", lambda: False)
    assert run(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert run(monkeypatch, "me/digits") == 2
    assert "pip install 'ddpm[workspace]'" in capsys.readouterr().err


def test_without_a_network_the_server_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert run(monkeypatch, "me/digits") == 2
    said = capsys.readouterr().err
    assert "http://127.0.0.1:9 cannot be reached" in said
    assert len(said.splitlines()) == 1


def test_what_is_sent_is_the_workspace_and_a_refusal_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """W&B's library sends; what its server says needs an account."""
    sent: list[ws.Workspace] = []
    monkeypatch.setattr(command, "_check_reachable", lambda: None)
    monkeypatch.setattr(ws.Workspace, "save", lambda self: sent.append(self))
    monkeypatch.setattr(ws.Workspace, "url", "https://wandb.ai/me/digits?nw=abc")
    assert run(monkeypatch, "me/digits") == 0
    assert capsys.readouterr().out == "https://wandb.ai/me/digits?nw=abc\n"
    assert (sent[0].entity, sent[0].project) == ("me", "digits")

    def refuse(workspace: ws.Workspace) -> None:
        raise ValueError("Project `me/digits` not found\nmore")

    monkeypatch.setattr(ws.Workspace, "save", refuse)
    assert run(monkeypatch, "me/digits") == 2
    said = capsys.readouterr().err
    assert said == "error: me/digits: W&B has not taken it (Project `me/digits` not found)\n"
