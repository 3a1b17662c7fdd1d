"""What several test files share."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock

from ddpm.runtime.cores import available_cores

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# tensors here are tiny, and threads would only wait for each other; programs that are started inherit it
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# W&B's process would send what fails in it to W&B, and may wait for a network that is not there
os.environ["WANDB_ERROR_REPORTING"] = "false"

MOST_WORKERS = 8
"""Of pytest-xdist: each imports torch and lightning, half a gigabyte of memory."""

ROOT = Path(__file__).parents[1]


def pytest_xdist_auto_num_workers() -> int | None:
    """A worker a core; PYTEST_XDIST_AUTO_NUM_WORKERS or -n says otherwise, -n 0 runs them here."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return min(available_cores(), MOST_WORKERS)


PICTURES = ("callbacks=default", "callbacks.denoising.num_steps=5", "callbacks.denoising.frames=3")
"""What shows all that training shows by default, in a short run."""

WHOLE_PROGRAMS = {"smoke_run", "two_devices"}
"""Fixtures that are runs of the whole program."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever needs a run of the whole program is an e2e test."""
    for item in items:
        if WHOLE_PROGRAMS & set(getattr(item, "fixturenames", ())) or item.path.name == "test_program.py":
            item.add_marker(pytest.mark.e2e)


def first_everyday(values: Iterable[Any]) -> list[Any]:
    """Values of a parameter: with the first the test runs every day, with the others among the slow forms."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.slow) for value in others)]


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and where it stood."""

    returncode: int
    stdout: str
    stderr: str
    cwd: Path

    @property
    def said(self) -> str:
        return f"{self.stdout}\n{self.stderr}"


def run_program(
    script: str,
    *arguments: str,
    cwd: Path,
    python: Sequence[str] = (),
    env: dict[str, str] | None = None,
    timeout: float = 300,
) -> Outcome:
    """Run one of the project's scripts as a user would: its own process, no terminal, no account."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment |= {"WANDB_SILENT": "false", "WANDB_ERROR_REPORTING": "false", **(env or {})}
    process = subprocess.run(
        [sys.executable, *python, str(ROOT / script), *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Outcome(process.returncode, process.stdout, process.stderr, cwd)


def run_here(
    monkeypatch: pytest.MonkeyPatch, program: str, *words: str, prepare: Callable[..., Any] | None = None
) -> int:
    """Be a program in this process, which spares the seconds of a start; its exit code.

    Args:
        monkeypatch: of the test.
        program: train, sample, evaluate, inspect or encode.
        words: as a shell hands them over.
        prepare: what builds the job; the program's own by default.
    """
    from ddpm.app import command_line, run_directory

    run_directory._run_dir.cache_clear()  # a process names its directory once
    monkeypatch.setattr(sys, "argv", [f"{program}.py", *words])
    with pytest.raises(SystemExit) as exit_:
        command_line.run(program, prepare)
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def run_command(monkeypatch: pytest.MonkeyPatch, *words: Path | str) -> int:
    """Be `ddpm COMMAND ...` in this process; its exit code."""
    from ddpm import __main__

    monkeypatch.setattr(sys, "argv", ["ddpm", *map(str, words)])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def accepted(config: dict[str, Any], place: Any) -> Any:
    """Stands for a program's job where a configuration must be refused before."""
    pytest.fail("the configuration was accepted")


def patch_time(monkeypatch: pytest.MonkeyPatch, module: ModuleType, **functions: Callable[..., Any]) -> None:
    """Replace functions of `time` in one module: what else waits in this process keeps its clock."""
    monkeypatch.setattr(module, "time", SimpleNamespace(**{**vars(module.time), **functions}))


def next_line(process: "subprocess.Popen[str]", seconds: float = 300.0) -> str:
    """The next line that a process prints, which is killed where none comes in time; it reads in a thread, as
    what the process has forked may keep its output open.
    """
    assert process.stdout is not None
    lines: list[str] = []
    output = process.stdout
    reading = threading.Thread(target=lambda: lines.append(output.readline()), daemon=True)
    reading.start()
    reading.join(seconds)
    if not lines:
        process.kill()
        pytest.fail(f"process {process.pid} has printed nothing for {seconds:g} s")
    return lines[0]


def blocks(page: Path) -> list[str]:
    """The code blocks of a page of documentation."""
    return re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def module_of_site(name: str) -> ModuleType:
    """One of the files in docs/site/, which are no package."""
    place = str(ROOT / "docs" / "site")
    sys.path.insert(0, place)
    try:
        return import_module(name)
    finally:
        sys.path.remove(place)


def files_on(page: Path) -> dict[str, str]:
    """The files that a page shows whole: code blocks that begin with a comment with a path."""
    found = {}
    for block in blocks(page):
        if named := re.match(r"(?:# @package \w+\n)?# ([\w./]+\.(?:py|yaml))\n", block):
            found[named[1]] = block
    return found


def wandb_records(directory: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind in the only offline W&B run below a directory, read by W&B's own tool."""
    (file,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    printed = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    ).stdout
    records = (json.loads(line) for line in printed.splitlines())
    return [record[kind] for record in records if record["type"] == kind]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that is made once for all of pytest-xdist's workers; the others wait for it.

    Args:
        factory: of pytest.
        name: of the directory.
        make: fills it, given its path.
    """
    workers = "PYTEST_XDIST_WORKER" in os.environ
    root = factory.getbasetemp().parent if workers else factory.getbasetemp()
    directory, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of a worker that failed at it
            directory.mkdir()
            make(directory)
            done.touch()
    return directory


def only_run(cwd: Path, app: str = "train") -> Path:
    """The only run directory that a program left where it was started."""
    (directory,) = (cwd / "logs" / app).iterdir()
    return directory


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of `python train.py experiment=smoke` on one device, with everything that is on
    by default.
    """

    def make(cwd: Path) -> None:
        outcome = run_program("train.py", "experiment=smoke", "trainer.devices=1", *PICTURES, cwd=cwd)
        assert outcome.returncode == 0, outcome.said

    return only_run(made_once(tmp_path_factory, "smoke", make))


def composed(program: str, *words: str) -> dict[str, Any]:
    """The checked configuration that a program has for these words of a command line, plain containers."""
    from ddpm.app import arguments, compose

    return compose.composed(arguments.read(words, program), program).values


@pytest.fixture(scope="session")
def conditional_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as training leaves it, of a very small network that is conditioned on the digits'
    classes.

    It was never trained: what begins at zero is random, so that classes, noise and steps all show.
    """
    return made_once(tmp_path_factory, "conditional", _make_conditional_run)


@pytest.fixture(scope="session")
def unconditional_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without classes."""
    return made_once(tmp_path_factory, "unconditional", _make_unconditional_run)


@pytest.fixture(scope="session")
def downsampled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a network that is conditioned on images of half as many pixels a side, and withholds them
    now and then.
    """
    words = ("condition=downsampled", "data.condition.factor=2", "data.condition_drop=0.1")
    return made_once(tmp_path_factory, "downsampled", lambda directory: _make_run(directory, *words))


@pytest.fixture(scope="session")
def masked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a network that is conditioned on images with a part missing."""
    return made_once(tmp_path_factory, "masked", lambda directory: _make_run(directory, "condition=masked"))


def _make_conditional_run(directory: Path) -> None:
    _make_run(directory, "conditional=true", "data.label_drop=0.1", "guidance=classifier_free")


def _make_unconditional_run(directory: Path) -> None:
    _make_run(directory)


def _make_run(directory: Path, *words: str) -> None:
    from ddpm.app.build import build_data, describe
    from ddpm.training.building import build_module
    from ddpm.training.checkpoints import LAST, AtomicCheckpointIO

    config = composed(
        "train",
        "experiment=smoke",
        "sampler=ddim",
        "sampler.num_steps=4",
        "schedule.num_timesteps=50",
        *words,
    )
    module = build_module(config, describe(build_data(config)))
    torch.manual_seed(0)
    for parameter in module.network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    module.ema.update()
    checkpoint = {
        "state_dict": module.state_dict(),
        "ema": module.ema.state_dict(),
        "config": module.config,
        "data": module.data,
        "global_step": 0,
        "wandb_id": None,
    }
    (directory / "checkpoints").mkdir()
    AtomicCheckpointIO().save_checkpoint(checkpoint, directory / "checkpoints" / LAST)


@pytest.fixture
def seeded() -> None:
    """The same random numbers in every test that asks for it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the prepared data of the person who runs it."""
    directory = tmp_path_factory.mktemp("cache") / "ddpm"
    monkeypatch.setenv("DDPM_CACHE", str(directory))
    monkeypatch.setattr("ddpm.data.prepared.cache.ELSEWHERE", ())
    return directory
