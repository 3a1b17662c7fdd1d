"""One directory for all processes of a run, and none shared by two runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import composed

from ddpm.app import run_directory
from ddpm.app.left_run import LAYOUT, read_record, starts
from ddpm.app.run_directory import Entered
from ddpm.app.run_record import RunRecord
from ddpm.errors import UsageError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_directory._run_dir.cache_clear()
    monkeypatch.chdir(tmp_path)
    for name in (
        "WORLD_SIZE",
        "SLURM_NTASKS",
        "TORCHELASTIC_RUN_ID",
        "GROUP_WORLD_SIZE",
        "SLURM_PROCID",
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
        "SLURM_JOB_NAME",
        "RANK",
        "LOCAL_RANK",
        "NODE_RANK",
    ):
        monkeypatch.delenv(name, raising=False)


def test_a_lone_process_gets_date_time_and_slug(tmp_path: Path):
    found = Path(run_directory._run_dir("train", "my pictures/x", "cosine", ""))
    assert found.parent == tmp_path / "logs" / "train"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_my-pictures-x_cosine", found.name)
    assert run_directory._run_dir("train", "my pictures/x", "cosine", "") == str(found)


def test_letters_of_any_script_stay_in_a_name():
    assert Path(run_directory._run_dir("train", "我的 运行", "Größe")).name.endswith("_我的-运行_Größe")


def test_two_runs_of_one_second_get_two_directories(tmp_path: Path):
    wanted = tmp_path / "logs/train/now"
    made = [run_directory.claim(wanted) for _ in range(3)]
    assert [path.name for path in made] == ["now", "now-2", "now-3"]


def test_processes_of_a_job_find_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "my job/7")
    assert Path(run_directory._run_dir("train", "digits")).name == "torchrun_my-job-7_digits"
    run_directory._run_dir.cache_clear()
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert Path(run_directory._run_dir("train", "digits")).name == "slurm_4711_0_digits"


def test_a_batch_job_names_what_its_lone_processes_write_to(monkeypatch: pytest.MonkeyPatch):
    """Its script runs one after the other; in a shell from SLURM each is one of its own, as anywhere."""
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert Path(run_directory._run_dir("train", "digits")).name == "slurm_4711_digits"
    run_directory._run_dir.cache_clear()
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert not Path(run_directory._run_dir("train", "digits")).name.startswith("slurm")


def test_a_lone_process_of_torchrun_is_found_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "alone")
    assert Path(run_directory._run_dir("train", "digits")).name == "torchrun_alone_digits"


def test_torchrun_without_an_id_serves_one_node_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--rdzv-id"):
        run_directory._run_dir("train")


@pytest.mark.e2e
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the start of the parent from /proc")
def test_torchruns_children_agree_without_an_id(tmp_path: Path):
    """Two processes of one parent, started a second and more apart, name one directory."""
    code = "from ddpm.app.run_directory import _run_dir; print(_run_dir('train'))"
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}
    found = []
    for _ in range(2):
        command = ["sh", "-c", f'sleep 1.1; exec "{sys.executable}" -c "{code}"']
        found.append(
            subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300).stdout
        )
    assert found[0] == found[1] != ""


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return composed("train", "experiment=smoke")


def left(directory: Path, config: dict[str, Any], **record: Any) -> Path:
    """A run directory as a start left it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps({"layout": LAYOUT, "status": "running", **record}))
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return directory


def enter(directory: Path, config: dict[str, Any], *, named: bool = True) -> Entered:
    """As a process that ends at once."""
    entered = run_directory.enter(directory, config, named=named)
    if entered.lock is not None:
        entered.lock.release()
    return entered


def test_the_same_command_goes_on_in_a_directory_that_was_named(config: dict[str, Any], tmp_path: Path):
    first = enter(tmp_path / "run", config)
    assert first.found_again
    assert first.left is None
    left(tmp_path / "run", config)
    again = enter(tmp_path / "run", config)
    assert again.directory == tmp_path / "run"
    assert again.left is not None
    assert again.left.config["seed"] == 0


def test_a_directory_by_date_is_new_each_time(config: dict[str, Any], tmp_path: Path):
    first = enter(left(tmp_path / "now", config), config, named=False)
    assert (first.directory.name, first.left, first.found_again) == ("now-2", None, False)


def test_resume_never_leaves_a_run_alone(config: dict[str, Any], tmp_path: Path):
    run = left(tmp_path / "run", config)
    with pytest.raises(UsageError, match=r"hydra\.run\.dir=.*run: holds a run already, and resume=never"):
        enter(run, {**config, "resume": "never"})
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "run.json"]


def changed(config: dict[str, Any], group: str, **values: Any) -> dict[str, Any]:
    return {**config, group: {**config[group], **values}}


def test_another_run_is_refused_with_every_key(config: dict[str, Any], tmp_path: Path):
    run = left(tmp_path / "run", {**config, "init": "/elsewhere"})
    other = changed({**config, "seed": 3}, "model", channels=24)
    with pytest.raises(UsageError, match="holds another run") as error:
        enter(run, other)
    for named in (
        "seed is 3 here and 0 there",
        "model.channels is 24 here and 16 there",
        "init is None here and '/elsewhere' there",
        f"Choose another directory; ckpt={run} KEY=VALUE",
    ):
        assert named in str(error.value)
    assert not (run / ".lock").exists()


@pytest.mark.parametrize(
    ("steps", "way_out"),
    [(100, r"ckpt=\S+ trainer\.max_steps=100 lr_schedule=constant"), (60, r"lr_schedule\.total_steps=80")],
)
def test_another_length_than_that_of_the_learning_rate_is_told_by_what_was_typed(
    config: dict[str, Any], tmp_path: Path, steps: int, way_out: str
):
    run, of = tmp_path / "run", composed("train", "lr_schedule=one_cycle", "trainer.max_steps=80")
    left(run, of)
    longer = composed("train", "lr_schedule=one_cycle", f"trainer.max_steps={steps}")
    with pytest.raises(
        UsageError, match=rf"^trainer\.max_steps={steps}: .*falls to 0 at step 80; .*{way_out}"
    ):
        enter(run, longer)


def test_what_does_not_make_the_run_may_differ(config: dict[str, Any], tmp_path: Path):
    run = left(tmp_path / "run", config)
    other = changed(changed(config, "trainer", max_steps=77), "data", num_workers=3)
    entered = enter(run, {**other, "logger": {}, "callbacks": {}, "tags": ["x"]})
    assert entered.left is not None


def test_a_schedule_typed_beside_ckpt_is_recognised_though_it_had_fewer_steps_left(
    config: dict[str, Any], tmp_path: Path
):
    """It was cut to the steps that were left where the run began; the command still says all of them."""
    typed = {"_target_": "ddpm.training.lr_schedules.cosine", "total_steps": 300}
    typed_config = changed({**config, "ckpt": "/origin", "lr_schedule": typed}, "trainer", max_steps=300)
    own = {**typed_config, "lr_schedule": {**typed, "total_steps": 200}}
    run = left(tmp_path / "run", own, starts=[{"step": 100, "status": "killed"}])
    assert enter(run, typed_config).left is not None
    left(run, own, starts=[{"step": 50, "status": "killed"}])
    with pytest.raises(UsageError, match=r"lr_schedule\.total_steps is 300 here and 200 there"):
        enter(run, typed_config)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"metrics.csv": "a,b\n"}, r"holds metrics\.csv, and no run\.json says of which run"),
        ({"checkpoints/mine.ckpt": "x", "config.yaml": "a: 1"}, r"holds checkpoints and config\.yaml, and"),
        ({"samples/cat.png": "x"}, r"holds samples, and no"),
        ({"run.json": '{"status": "runn'}, r"nothing tells which run it is: .*run\.json.* choose another"),
        ({"run.json": "{", "checkpoints/a.ckpt": "x"}, r"nothing tells which run it is: .* new one, ckpt="),
        ({"run.json": '{"layout": 99}'}, r"has layout 99, written by ddpm of a newer version"),
        ({"run.json": '{"layout": 99, "versions": 5, "status": "running"}'}, r"has layout 99"),
        ({"run.json": "[1, 2]"}, r"its run\.json is of another program"),
        ({"run.json": '{"command": "sleep"}'}, r"its run\.json is of another program"),
        ({"run.json": '{"status": "running", "layout": 99, "versions": {"ddpm": "9.1"}}'},
         r"has layout 99, written by ddpm 9\.1; this version knows"),
        ({"run.json": '{"status": "running"}', "metrics.csv": "step\n1\n"}, r"its config\.yaml is missing"),
        ({"run.json": '{"status": "running"}', "config.yaml": "a: ["}, r"config\.yaml: cannot be read"),
        ({"run.json": '{"status": "running"}', "config.yaml": "a: 1"}, r"is not the configuration of a run"),
    ],
)  # fmt: skip
def test_what_is_no_run_to_go_on_with_is_left_alone(
    files: dict[str, str], message: str, config: dict[str, Any], tmp_path: Path
):
    run = tmp_path / "run"
    for name, text in files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        enter(run, config)
    kept = {str(path.relative_to(run)): path.read_text() for path in run.rglob("*") if path.is_file()}
    assert kept == files


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"starts": "abc"}, "starts must be a list"),
        ({"starts": [1]}, "starts must be a list"),
        ({"starts": [{"step": "x"}]}, r"starts\[0\]\.step must be a number of steps"),
        ({"starts": [{"step": -1}]}, r"starts\[0\]\.step must be a number of steps"),
        ({"starts": [{"started": "yesterday"}]}, r"starts\[0\]\.started must be a time"),
        ({"started": 5}, "started must be a time"),
        ({"wandb_offline": 5}, "wandb_offline must be a list of paths"),
        ({"wandb_offline": [5]}, "wandb_offline must be a list of paths"),
        ({"wandb_id": ["x"]}, "wandb_id must be a text"),
        ({"rollbacks": 5}, "rollbacks must be a list"),
        ({"rollbacks": [5]}, "rollbacks must be a list"),
        ({"status": ["x"]}, "status must be a word"),
        ({"wall_seconds": "long"}, "wall_seconds must be a number"),
        ({"step": "three"}, "step must be a number of steps"),
    ],
)
def test_a_record_of_other_values_is_told_and_goes_on_where_it_may(
    values: dict[str, Any], said: str, config: dict[str, Any], tmp_path: Path
):
    run = left(tmp_path / "run", config, **values)
    with pytest.raises(UsageError, match=rf"run: .*run\.json: cannot be read, {said}"):
        enter(run, config)
    with pytest.raises(UsageError, match=said):
        read_record(run)


@pytest.mark.parametrize("start", [{"step": None}, {"step": 0, "status": "running"}, {"started": None}, {}])
def test_a_start_that_says_little_is_one(start: dict[str, Any], config: dict[str, Any], tmp_path: Path):
    run = left(tmp_path / "run", config, status="running", starts=[start])
    entered = enter(run, config)
    assert entered.left is not None
    found = RunRecord(run, {}, step=3, left=entered.left.record).values["starts"]
    assert [one["status"] for one in found] == ["killed", "running"]
    assert starts(entered.left.record) == [0]


@pytest.mark.parametrize("name", ["checkpoints", "samples", "figures", "nonfinite", "wandb"])
def test_a_file_in_the_place_of_a_folder_is_told_before_anything_is_lost(
    name: str, config: dict[str, Any], tmp_path: Path
):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"{name} is no folder, .* move it away"):
        enter(tmp_path, config)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "metrics.csv", "train.log", ".lock"])
def test_a_folder_in_the_place_of_a_file_likewise(name: str, config: dict[str, Any], tmp_path: Path):
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"{name} is a folder, .* move it away"):
        enter(tmp_path, config)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "names", [(), ("notes.txt", "slurm-7.out"), ("wandb/x/y", "train.log"), ("run.json",), ("checkpoints/",)]
)
def test_what_a_run_does_not_overwrite_is_nobodys_concern(
    names: tuple[str, ...], config: dict[str, Any], tmp_path: Path
):
    """Notes, a cluster's log; a start that was killed before it had saved anything."""
    run = tmp_path / "run"
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (run / name).mkdir()
        else:
            (run / name).write_text('{"status": "running"}')
    assert enter(run, config).left is None


def test_the_commands_of_a_batch_job_find_their_own_directories(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`for seed in 0 1; do python train.py seed=$seed; done`, queued again."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    wanted = Path(run_directory._run_dir("train", "digits"))
    seeds = [{**config, "seed": seed} for seed in (0, 1, 2)]
    for seed, name in zip(seeds[:2], ("slurm_7_digits", "slurm_7_digits-2"), strict=True):
        entered = enter(wanted, seed, named=False)
        assert (entered.directory.name, entered.left) == (name, None)
        left(entered.directory, seed)
    for seed, name in zip(seeds, ("slurm_7_digits", "slurm_7_digits-2", "slurm_7_digits-3"), strict=True):
        entered = enter(wanted, seed, named=False)
        assert entered.directory.name == name
        assert (entered.left is not None) == (seed["seed"] < 2)
    never = enter(wanted, {**config, "resume": "never"}, named=False)
    assert (never.directory.name, never.left) == ("slurm_7_digits-4", None)


def test_a_command_that_runs_already_in_its_batch_job_is_told(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    wanted = Path(run_directory._run_dir("train", "digits"))
    first = run_directory.enter(wanted, config, named=False)
    assert first.lock is not None
    other = enter(wanted, {**config, "seed": 1}, named=False)
    assert other.directory.name == "slurm_7_digits-2", "the first one has written nothing yet"
    left(first.directory, config)
    with pytest.raises(UsageError, match="writes there"):
        run_directory.enter(wanted, config, named=False)
    first.lock.release()


@pytest.mark.parametrize(
    ("variables", "leads"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"SLURM_PROCID": "1"}, False),
        ({"NODE_RANK": "1"}, False),
    ],
)
def test_one_process_of_a_run_leads(
    variables: dict[str, str],
    leads: bool,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    tmp_path: Path,
):
    """The others refuse nothing and lock nothing: the leader may be ahead of them."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_directory.is_leader() == leads
    run = left(tmp_path / "run", config)
    entered = run_directory.enter(run, config, named=True)
    assert entered.left is not None
    assert (entered.lock is not None) == leads
    if entered.lock is not None:
        entered.lock.release()
    if not leads:
        (run / "config.yaml").unlink()
        (run / "metrics.csv").touch()
        assert run_directory.enter(run, config, named=True).left is None
