"""Sweeps of a small Hydra application, started the way a user starts them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ddpm.app.grammar import quoted
from ddpm.app.sweeps.jobs import collected_signals, environment

pytestmark = pytest.mark.e2e

# Writes down how it was run, then does what `act` says.
APP = """
import json, os, signal, sys, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg):
    settings = HydraConfig.get()
    here = Path(settings.runtime.output_dir)
    seen = {
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "module": __spec__.name if __spec__ else None,
        "argv": sys.argv[1:],
        "environment": dict(os.environ),
        "stdin": sys.stdin.read(),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "directory": str(here),
        "sweep_dir": settings.sweep.dir,
        "number": settings.job.num,
        "id": settings.job.id,
        "mode": settings.mode.name,
        "verbose": OmegaConf.to_object(settings.verbose) if settings.verbose else None,
    }
    (here / "seen.json").write_text(json.dumps(seen))
    if cfg.act == "score":
        (here / "run.json").write_text(json.dumps({"objective": len(cfg.text)}))
    elif cfg.act == "write nonsense":
        (here / "run.json").write_text("{")
    elif cfg.act == "raise":
        raise RuntimeError(f"x is {cfg.x}")
    elif cfg.act == "die":
        if os.fork() == 0:
            os.closerange(1, 3)  # or the test would wait for the end of this output
            (here / "orphan").write_text(str(os.getpid()))
            time.sleep(30)
        while not (here / "orphan").exists() or not (here / "orphan").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    elif cfg.act == "wait":
        received = []
        for signum in signal.SIGINT, signal.SIGTERM:
            signal.signal(signum, lambda signum, frame: received.append(signum))
        (here / "ready").touch()
        deadline = time.monotonic() + 10
        while not received and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)  # a graceful stop takes a while; a second signal would come in now
        (here / "received.json").write_text(json.dumps(received))
        sys.exit(3)


if __name__ == "__main__":
    main()
"""

CONFIG = """
defaults:
  - _self_
  - override hydra/launcher: fresh_process
hydra:
  sweep:
    dir: logs/multirun/${now:%f}
    subdir: ${hydra.job.num}
act: none
x: 1
text: ""
"""

OTHER_CONFIG = """
defaults:
  - config
  - _self_
hydra:
  sweep:
    dir: 'logs/it''s a "sweep", really/${now:%f}'
    subdir: ${hydra:job.name} ${hydra.job.num}, x=${x}
origin: other
"""

# A sweeper that keeps what the launcher returned, one job a batch.
SWEEPER = """
import json
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore


@dataclass
class RecordingSweeperConf:
    _target_: str = "hydra_plugins.recording_sweeper.RecordingSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="recording", node=RecordingSweeperConf)


class RecordingSweeper(BasicSweeper):
    def __init__(self):
        super().__init__(max_batch_size=1)

    def sweep(self, arguments):
        batches = super().sweep(arguments)
        records = [
            {
                "value": job.return_value,
                "status": job.status.name,
                "overrides": job.overrides,
                "text": job.cfg.text,
                "keys": list(job.cfg),
                "directory": job.hydra_cfg.hydra.runtime.output_dir,
                "working_dir": job.working_dir,
                "task_name": job.task_name,
            }
            for batch in batches
            for job in batch
        ]
        with open("returned.json", "w") as file:
            json.dump(records, file)
"""


def write_app(root: Path) -> None:
    (root / "conf").mkdir(parents=True)
    (root / "app.py").write_text(APP)
    (root / "conf" / "config.yaml").write_text(CONFIG)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_app(tmp_path)
    return tmp_path


def sweep(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(arguments if arguments[0] == "-m" else ["app.py", "-m", *arguments])],
        cwd=root,
        env=os.environ | environment,
        input="for nobody",
        capture_output=True,
        text=True,
        timeout=300,
    )


def jobs_of(root: Path) -> list[dict[str, Any]]:
    """What each job that ran wrote down, in the order of the job numbers."""
    seen = [json.loads(path.read_text()) for path in root.glob("logs/**/seen.json")]
    return sorted(seen, key=lambda job: job["number"])


OUTER_LAUNCH = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "ROLE_RANK": "3",
    "ROLE_NAME": "default",
    "ROLE_WORLD_SIZE": "4",
    "NODE_RANK": "1",
    "MASTER_ADDR": "elsewhere",
    "MASTER_PORT": "1234",
    "TORCHELASTIC_RUN_ID": "none",
    "PL_GLOBAL_SEED": "7",
    "WANDB_RUN_ID": "abc",
    "WANDB_SERVICE": "3-1-unix-/nowhere",
}

TEXTS = ("one, two", 'it\'s "quoted" = {fine}')
NESTED = "+nested={a:[1,[2,'three, four'],{b:null}],c:'[x'}"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep into directories with awkward names, with flags for its configuration, in an outer launch."""
    root = tmp_path_factory.mktemp("a b") / "it's, here"
    write_app(root)
    (root / "more").mkdir()
    (root / "more" / "other.yaml").write_text(OTHER_CONFIG)
    (root / "hydra_plugins").mkdir()
    (root / "hydra_plugins" / "recording_sweeper.py").write_text(SWEEPER)
    done = sweep(
        root,
        "--config-dir",
        "more",
        "-cn=other",
        "hydra/sweeper=recording",
        "hydra.verbose=[some.logger]",
        "act=score",
        "x=3",
        f"text={quoted(TEXTS[0])},{quoted(TEXTS[1])}",
        NESTED,
        **OUTER_LAUNCH,
        OUR_OWN="kept",
    )
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def jobs(swept: Path) -> list[dict[str, Any]]:
    return jobs_of(swept)


def test_each_job_is_a_process(jobs: list[dict[str, Any]]) -> None:
    assert len({job["pid"] for job in jobs}) == 2
    assert [job["number"] for job in jobs] == [0, 1]
    assert [job["id"] for job in jobs] == ["0", "1"]
    for job in jobs:
        assert job["mode"] == "RUN"
        assert job["module"] is None


def test_directories(swept: Path, jobs: list[dict[str, Any]]) -> None:
    (sweep_dir,) = {job["sweep_dir"] for job in jobs}
    assert Path(sweep_dir).parent == swept / 'logs/it\'s a "sweep", really'
    assert Path(sweep_dir, "multirun.yaml").exists()
    names = [os.path.relpath(job["directory"], sweep_dir) for job in jobs]
    assert names == ["app 0, x=3", "app 1, x=3"]


def test_overrides_arrive_intact(jobs: list[dict[str, Any]]) -> None:
    assert [job["config"]["text"] for job in jobs] == list(TEXTS)
    expected = {"a": [1, [2, "three, four"], {"b": None}], "c": "[x"}
    assert all(job["config"]["nested"] == expected for job in jobs)


def test_configuration_and_hydra_settings_are_kept(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        assert job["config"]["origin"] == "other"
        assert job["verbose"] == ["some.logger"]
        assert not [argument for argument in job["argv"] if "sweeper" in argument]


def test_nothing_of_the_outer_launch_is_inherited(swept: Path, jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        assert job["cwd"] == str(swept)
        assert job["stdin"] == ""
        assert not OUTER_LAUNCH.keys() & job["environment"].keys()
        assert job["environment"]["OUR_OWN"] == "kept"


def test_objectives_reach_the_sweeper(swept: Path, jobs: list[dict[str, Any]]) -> None:
    returned = json.loads((swept / "returned.json").read_text())
    assert [job["value"] for job in returned] == [len(text) for text in TEXTS]
    assert [job["text"] for job in returned] == list(TEXTS)
    assert [job["directory"] for job in returned] == [job["directory"] for job in jobs]
    for job in returned:
        assert job["status"] == "COMPLETED"
        assert job["overrides"][:2] == ["act=score", "x=3"]
        assert "hydra" not in job["keys"]
        assert job["working_dir"] == str(swept)
        assert job["task_name"] == "app"


def test_failing_job_is_isolated(root: Path) -> None:
    done = sweep(root, "act=score,raise,write nonsense", "x=4")
    assert done.returncode == 1
    assert [job["number"] for job in jobs_of(root)] == [0, 1, 2]
    assert "[2/3] act=raise -> logs/multirun/" in done.stdout
    assert "[2/3] act=raise failed: exit code 1" in done.stdout
    assert "run.json: cannot be read" in done.stdout
    table = done.stdout[done.stdout.index("2 of 3 jobs completed") :].splitlines()[1:]
    rows = [re.split(r"\s{2,}", line) for line in table]
    assert rows[0] == ["job", "what differs", "outcome", "objective", "time", "directory"]
    assert [row[0] for row in rows[1:]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert [row[2] for row in rows[1:]] == ["completed", "exit code 1", "completed"]
    assert [row[1] for row in rows[1:]] == ["act=score", "act=raise", "act=write nonsense"]
    assert [row[3] for row in rows[1:]] == ["0", "-", "-"]  # the length of its text
    assert [Path(row[5]).name for row in rows[1:]] == ["0", "1", "2"]
    # The traceback is the job's own; the sweep adds a line to it.
    assert done.stderr.count("Traceback") == 1
    assert "RuntimeError: x is 4" in done.stderr
    assert "1 of 3 jobs failed: [2/3]" in done.stderr


def test_stop_on_failure(root: Path) -> None:
    done = sweep(root, "act=raise", "x=1,2", "hydra.launcher.stop_on_failure=true")
    assert done.returncode == 1
    assert [job["number"] for job in jobs_of(root)] == [0]
    assert re.search(r"\[2/2\]  x=2 +not started", done.stdout)
    assert done.stderr.count("Traceback") == 1


def test_killed_job_leaves_nothing_running(root: Path) -> None:
    done = sweep(root, "act=die")
    assert done.returncode == 1
    assert "[1/1] act=die failed: signal 9 (Killed)" in done.stdout
    (orphan,) = root.glob("logs/**/orphan")
    deadline = time.monotonic() + 5
    while alive(int(orphan.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs. A dead one may stay behind as a zombie, where no init process collects it."""
    state = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, timeout=300
    ).stdout
    return state.strip() not in ("", "Z")


def test_module(root: Path) -> None:
    (root / "package").mkdir()
    (root / "package" / "__init__.py").touch()
    (root / "app.py").rename(root / "package" / "app.py")
    (root / "conf").rename(root / "package" / "conf")
    (root / "package" / "conf" / "__init__.py").touch()
    done = sweep(root, "-m", "package.app", "-m", "x=8")
    assert done.returncode == 0, done.stderr
    (job,) = jobs_of(root)
    assert job["config"]["x"] == 8
    assert job["module"] == "package.app"


@pytest.mark.parametrize(
    ("signum", "whole_group", "exit_code"),
    [(signal.SIGTERM, False, 143), (signal.SIGINT, True, 130)],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_signals_reach_the_job_once(
    root: Path, signum: signal.Signals, whole_group: bool, exit_code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "app.py", "-m", "act=wait", "x=1,2"],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    deadline = time.monotonic() + 300
    while not list(root.glob("logs/**/ready")) and time.monotonic() < deadline:
        time.sleep(0.02)
    if whole_group:  # what a terminal does on Ctrl-C
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == exit_code, output
    (job,) = jobs_of(root)
    received = json.loads(Path(job["directory"], "received.json").read_text())
    assert received == [signum]
    assert "[1/2] x=1 stopped: exit code 3" in output
    assert re.search(r"\[2/2\]  x=2 +not started", output)
    assert "Traceback" not in output


@pytest.mark.slow
def test_jobs_at_once_run_beside_each_other_and_each_hears_a_signal(root: Path) -> None:
    """Each waits for a signal, so that one after the other would not be two that are ready."""
    process = subprocess.Popen(
        [sys.executable, "app.py", "-m", "act=wait", "x=1,2,3", "hydra.launcher.n_jobs=2"],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while len(list(root.glob("logs/**/ready"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 143, output
    jobs = jobs_of(root)
    assert [job["number"] for job in jobs] == [0, 1]
    for job in jobs:
        assert json.loads(Path(job["directory"], "received.json").read_text()) == [signal.SIGTERM]
        assert Path(job["directory"], "output.log").exists()
        assert job["environment"]["OMP_NUM_THREADS"] == "1", "as it was set"
    assert re.search(r"\[3/3\]  x=3 +not started", output)


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with collected_signals() as received:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
            assert received == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGHUP, before)


def test_users_variables_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ("WANDB_PROJECT", "WANDB_RUN_GROUP", "MY_RANK", "SLURM_JOB_ID", "OMP_NUM_THREADS")
    for name in (*kept, *OUTER_LAUNCH):
        monkeypatch.setenv(name, "1")
    kept_on = environment()
    assert kept_on.keys() >= set(kept)
    assert not kept_on.keys() & OUTER_LAUNCH.keys()


def test_hydra_starts_without_heavy_imports() -> None:
    """Hydra imports the launcher at every start, `--help` and tab completion included."""
    code = (
        "import sys, hydra_plugins.fresh_process_launcher\n"
        "print(*{'torch', 'lightning', 'wandb', 'numpy', 'ddpm'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == []


def test_it_is_imported_where_there_is_no_sighup():
    """As on Windows."""
    code = (
        "import signal; del signal.SIGHUP, signal.SIGUSR1\n"
        "from ddpm.app.sweeps.jobs import FORWARDED_SIGNALS; print(*map(int, FORWARDED_SIGNALS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == [str(signal.SIGINT.value), str(signal.SIGTERM.value)], done.stderr
