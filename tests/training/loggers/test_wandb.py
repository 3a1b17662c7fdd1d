"""Weights & Biases gets what it was given, with an account or without, and disturbs nothing."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wandb
from conftest import wandb_records
from lightning.pytorch.loggers import WandbLogger as LightningsWandbLogger
from PIL import Image

from ddpm.training.loggers import WandbLogger


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_ERROR_REPORTING"
    ]:
        monkeypatch.delenv(name)


def history(directory: Path) -> list[dict[str, Any]]:
    return [record["item"] for record in wandb_records(directory, "history")]


def run_of(directory: Path) -> dict[str, Any]:
    """What the run says of itself."""
    (record,) = wandb_records(directory, "run")
    return record


def test_pixels_and_steps_are_kept_as_they_are(tmp_path: Path):
    """Greys 0, 127 and 255 come back from the PNG in the run directory; each row has its step."""
    logger = WandbLogger(save_dir=tmp_path, project="test")
    picture = np.full((8, 8, 3), 127, np.uint8)
    picture[0], picture[1] = 0, 255
    logger.log_metrics({"train/loss": 0.5}, step=10)
    logger.log_image("samples/grid", [picture], step=10, caption=["digits"])  # as with Lightning's
    logger.log_metrics({"train/loss": 0.25}, step=20)
    logger.finish(0)
    (kept,) = tmp_path.glob("wandb/offline-run-*/files/media/images/samples/*.png")
    assert np.array_equal(np.asarray(Image.open(kept).convert("RGB")), picture)
    rows = history(tmp_path)
    assert [(row["_step"], row["trainer/global_step"], row["train/loss"]) for row in rows] == [
        (10, 10, 0.5),
        (20, 20, 0.25),
    ]
    assert rows[0]["samples/grid.captions"] == ["digits"]


def test_values_that_w_and_b_would_drop_get_rows_of_their_own(tmp_path: Path):
    """What comes without a step moves W&B's counter past ours; what comes late is behind it."""
    logger = WandbLogger(save_dir=tmp_path)
    logger.log_metrics({"a": 1.0}, step=1)
    logger.experiment.log({"foreign": 1.0})  # ends W&B's row 1
    logger.experiment.log({"foreign": 2.0})
    logger.log_metrics({"b": 1.0}, step=1)
    logger.log_metrics({"a": 2.0}, step=2)
    logger.log_metrics({"a": 50.0}, step=50)
    logger.log_metrics({"a": 40.0}, step=40)
    logger.log_metrics({"b": 50.0}, step=50)
    logger.log_metrics({"a": 60.0}, step=60)
    logger.finish(0)
    rows = history(tmp_path)
    for name in ("a", "b"):
        found = [(row["trainer/global_step"], row[name]) for row in rows if name in row]
        assert sorted(found) == [(s, float(s)) for s in ((1, 2, 40, 50, 60) if name == "a" else (1, 50))]
    assert [row["foreign"] for row in rows if "foreign" in row] == [1, 2]


def test_two_runs_in_one_process_do_not_mix_and_the_environment_stays(tmp_path: Path):
    ids, before = [], dict(os.environ)
    for name in ("a", "b"):
        logger = WandbLogger(save_dir=tmp_path / name, group="sweep")
        logger.log_metrics({"train/loss": 1.0}, step=1)
        ids.append(logger.run_id)
        logger.finish(0)
        assert logger.run_id == logger.version == ids[-1]
    assert len(set(ids)) == 2
    assert {k: v for k, v in os.environ.items() if k.startswith("WANDB_MODE")} == {
        k: v for k, v in before.items() if k.startswith("WANDB_MODE")
    }


def test_what_a_key_says_arrives(tmp_path: Path):
    logger = WandbLogger(
        save_dir=tmp_path, project="p", entity="team", name="n", group="g", tags=["one", "two"], notes="why",
        id="abc", config={"data": {"batch_size": 64}}, job_type="train",
    )  # fmt: skip
    logger.log_metrics({"a": 1.0}, step=1)
    assert logger.sync_dirs == list(tmp_path.glob("wandb/offline-run-*-abc"))
    logger.finish(0)
    run = run_of(tmp_path)
    assert (run["project"], run["entity"], run["display_name"]) == ("p", "team", "n")
    assert (run["run_group"], run["tags"], run["notes"], run["run_id"]) == ("g", ["one", "two"], "why", "abc")
    assert "batch_size" in str(run["config"])


@pytest.mark.e2e
@pytest.mark.slow
def test_variables_hold_where_no_key_says_otherwise(tmp_path: Path):
    """In a process of its own, as W&B reads them once."""
    variables = {
        "PROJECT": "vp", "ENTITY": "vteam", "NAME": "vn", "RUN_GROUP": "vg", "TAGS": "t1,t2", "RUN_ID": "vid",
        "DIR": str(tmp_path),
    }  # fmt: skip
    code = (
        "from ddpm.training.loggers import WandbLogger; logger = WandbLogger(entity='team');"
        "logger.log_metrics({'a': 1.0}, step=1); logger.finish(0)"
    )
    environment = {**os.environ, **{f"WANDB_{name}": value for name, value in variables.items()}}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=300).returncode == 0
    run = run_of(tmp_path)
    assert (run["project"], run["entity"], run["display_name"]) == ("vp", "team", "vn")
    assert (run["run_group"], run["tags"], run["run_id"]) == ("vg", ["t1", "t2"], "vid")


@pytest.mark.parametrize(
    ("key", "variables", "mode"),
    [
        (None, {}, "offline"),
        (None, {"WANDB_MODE": "disabled"}, "disabled"),
        (None, {"WANDB_MODE": "dryrun"}, "offline"),
        (None, {"WANDB_SWEEP_ID": "x"}, "online"),
        ("offline", {"WANDB_MODE": "online", "WANDB_SWEEP_ID": "x"}, "offline"),
    ],
)
def test_the_mode(key: str | None, variables: dict[str, str], mode: str, monkeypatch: pytest.MonkeyPatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert WandbLogger(mode=key).mode == mode


def test_an_unknown_mode_is_refused_by_what_said_it(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"logger.wandb.mode=on .*offline, online or disabled"):
        WandbLogger(mode="on")
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(ValueError, match="WANDB_MODE=of must be"):
        WandbLogger()


@pytest.mark.e2e
def test_an_unreachable_server_means_offline_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    logger = WandbLogger(save_dir=tmp_path, mode="online", init_timeout=2)
    with caplog.at_level(logging.WARNING):
        logger.log_metrics({"a": 1.0}, step=1)
    assert len([line for line in caplog.messages if "logged offline instead" in line]) == 1
    logger.finish(0)
    assert [row["a"] for row in history(tmp_path)] == [1]


def test_nothing_is_kept_where_it_is_disabled(tmp_path: Path):
    logger = WandbLogger(save_dir=tmp_path, mode="disabled")
    logger.log_metrics({"a": 1.0}, step=1)
    logger.log_image("b", [np.zeros((4, 4, 3), np.uint8)], step=1)
    logger.finish(0)
    assert not list(tmp_path.glob("wandb/*run-*"))


def test_it_is_found_where_one_looks_for_lightnings():
    assert isinstance(WandbLogger(), LightningsWandbLogger)


@pytest.mark.e2e
def test_wandb_is_imported_only_when_a_run_begins():
    code = (
        "import sys; from ddpm.training.loggers import WandbLogger; WandbLogger();"
        "sys.exit('wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def rows_of_all(directory: Path) -> list[dict[str, Any]]:
    """The rows of all directories that a run has begun, in the order in which it did."""
    found = []
    files = directory.glob("wandb/offline-run-*/run-*.wandb")
    for file in sorted(files, key=lambda file: file.stat().st_ctime):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        printed = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        ).stdout
        records = map(json.loads, printed.splitlines())
        found += [record["history"]["item"] for record in records if record["type"] == "history"]
    return found


@pytest.mark.e2e
def test_a_full_disk_is_told_with_every_row_and_nothing_is_lost_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    logger = WandbLogger(save_dir=tmp_path)
    logger.log_metrics({"a": 0.0}, step=0)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
        for step in (1, 2):
            caplog.clear()
            logger.log_metrics({"a": float(step)}, step=step)
            assert [line for line in caplog.messages if f"is full; {step} rows wait in memory" in line]
    logger.finalize("success")
    logger.log_metrics({"a": 3.0}, step=3)
    assert len(logger.sync_dirs) == 2  # the file of the first may have taken a write that failed
    logger.finish(0)
    assert [(row["trainer/global_step"], row["a"]) for row in rows_of_all(tmp_path)] == [
        (step, float(step)) for step in range(4)
    ]


@pytest.mark.e2e
def test_its_process_may_die(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    logger = WandbLogger(save_dir=tmp_path)
    logger.log_metrics({"a": 0.0}, step=0)
    children = " ".join(tasks.read_text() for tasks in Path("/proc/self/task").glob("*/children"))
    for process in children.split():
        os.kill(int(process), signal.SIGKILL)
    until = time.monotonic() + 20
    while not logger._waiting and time.monotonic() < until:  # it is noticed when the connection breaks
        logger.log_metrics({"a": 1.0}, step=1)
    assert "its process has died; 1 rows wait in memory" in caplog.text
    logger.log_metrics({"a": 2.0}, step=2)
    logger.finish(0)
    rows = [(row["trainer/global_step"], row["a"]) for row in rows_of_all(tmp_path)]
    assert rows[-2:] == [(1, 1.0), (2, 2.0)]


@pytest.mark.e2e
def test_what_it_cannot_show_is_refused_and_holds_nothing_up(tmp_path: Path):
    logger = WandbLogger(save_dir=tmp_path)
    with pytest.raises(TypeError):
        logger.log_metrics({"a": object()}, step=1)
    logger.log_metrics({"a": 2.0}, step=2)
    logger.finish(0)
    assert [row["a"] for row in history(tmp_path)] == [2.0]


class Server(BaseHTTPRequestHandler):
    """As much of a W&B server as a run needs to begin; no connection outlives an answer."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        answer: dict[str, Any] = {}
        if self.path.endswith("/graphql"):
            asked = json.loads(body)
            name = (asked.get("variables") or {}).get("name") or "run"
            project = {"id": "UHJvOjE=", "name": "ddpm", "entity": {"id": "RW50OjE=", "name": "me"}}
            if "upsertBucket" in asked["query"]:
                bucket = {"id": "UnVuOjE=", "name": name, "displayName": name, "description": None}
                bucket |= {"config": "{}", "sweepName": None, "project": project, "historyLineCount": 0}
                answer = {"upsertBucket": {"bucket": bucket, "inserted": True}}
            elif "RunResumeStatus" in asked["query"]:
                answer = {"model": {**project, "bucket": None}}
            elif "createRunFiles" in asked["query"]:
                answer = {"createRunFiles": {"runID": "UnVuOjE=", "uploadHeaders": [], "files": []}}
            answer = {"data": answer}
        contents = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(contents)))
        self.end_headers()
        self.wfile.write(contents)

    do_PUT = do_POST  # noqa: N815

    def log_message(self, *args: Any) -> None:
        """Keeps it quiet."""


@pytest.mark.e2e
def test_a_server_that_goes_away_ends_no_run_and_holds_none_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    wandb.teardown()  # it reads them once
    logger = WandbLogger(save_dir=tmp_path, mode="online", init_timeout=20, finish_timeout=2)
    logger.log_metrics({"a": 1.0}, step=1)
    assert logger.mode == "online"
    server.shutdown()
    server.server_close()
    logger.log_metrics({"a": 2.0}, step=2)
    logger.finish(0)  # without a timeout it would try for hours
    (directory,) = tmp_path.glob("wandb/run-*")
    told = "Timed out finishing run; what it has not sent stays on disk, and is sent by: wandb sync"
    assert f"{told} {directory}" in caplog.text
    assert list(directory.glob("run-*.wandb"))
    wandb.teardown()
