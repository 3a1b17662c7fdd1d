"""The package as it is built and installed, away from a checkout."""

import csv
import json
import os
import site
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, Outcome, made_once

from ddpm.app import invocation

INSTALLED = 300
"""Seconds that a program may take."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the source distribution, as pip would have them built."""
    return made_once(tmp_path_factory, "built", lambda directory: build(ROOT, directory))


def build(source: Path, directory: Path, kinds: tuple[str, ...] = ("sdist", "wheel")) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(directory)]
    command += [word for kind in kinds for word in ("-t", kind)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=300)


def wheel_in(directory: Path) -> Path:
    (wheel,) = directory.glob("ddpm-*.whl")
    return wheel


def tracked(*places: str) -> set[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *places]
    return set(
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.split()
    )


def test_the_wheel_holds_sources_configuration_and_types(built: Path):
    with zipfile.ZipFile(wheel_in(built)) as wheel:
        names = set(wheel.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "ddpm = ddpm.__main__:main" in wheel.read(entry_points).decode()
    expected = {path.removeprefix("src/") for path in tracked("src")}
    expected |= {f"ddpm/{path}" for path in tracked("conf")} | {"ddpm/converting.md"}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "ddpm/py.typed" in expected


def test_the_source_distribution_builds_the_wheel(built: Path, tmp_path: Path):
    (sdist,) = built.glob("ddpm-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build(source, tmp_path, ("wheel",))
    with zipfile.ZipFile(wheel_in(tmp_path)) as ours, zipfile.ZipFile(wheel_in(built)) as theirs:
        assert sorted(ours.namelist()) == sorted(theirs.namelist())


@pytest.fixture(scope="session")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and this environment's packages beside it."""
    environment = made_once(tmp_path_factory, "installed", lambda place: install(wheel_in(built), place))
    return environment / PROGRAMS


PROGRAMS = "Scripts" if os.name == "nt" else "bin"


def install(wheel: Path, environment: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=300)
    python = str(environment / PROGRAMS / "python")
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(
        subprocess.run(asked, check=True, capture_output=True, text=True, timeout=300).stdout.strip()
    )
    # a path alone: .pth files that lie there, which may say where a checkout is, are not read
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    command += ["--no-index", "--ignore-installed", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def run(program: Path, *arguments: str, cwd: Path) -> Outcome:
    """A program as a person starts it, who has no checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "PYTHONPATH"}
    environment["WANDB_ERROR_REPORTING"] = "false"
    process = subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALLED,
    )
    return Outcome(process.returncode, process.stdout, process.stderr, cwd)


def finished(directory: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics, once it is seen to have ended well."""
    record = json.loads((directory / "run.json").read_text())
    assert (record["status"], record["step"]) == ("finished", 20)
    assert record["git"] is None
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.e2e
@pytest.mark.slow
def test_an_installed_package_trains_samples_and_measures_anywhere(installed: Path, tmp_path: Path):
    program = installed / "ddpm"
    assert run(program, "--version", cwd=tmp_path).stdout.startswith("ddpm 0.")
    told = run(program, "train", "--help", cwd=tmp_path)
    assert "schedule: " in told.stdout, told.said
    assert list(tmp_path.iterdir()) == []

    outcome = run(
        program, "train", "experiment=smoke", "trainer.devices=1", "hydra.run.dir=run", cwd=tmp_path
    )
    assert outcome.returncode == 0, outcome.said
    assert len(finished(tmp_path / "run")) == 20
    assert "ddpm sample ckpt=run" in outcome.stdout  # what is printed to be pasted works here

    outcome = run(program, "sample", "ckpt=run", "n=4", "sampler=ddim", "sampler.num_steps=2", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    assert len(list(tmp_path.glob("logs/sample/*/grid.png"))) == 1
    outcome = run(program, "evaluate", "ckpt=run", "metrics.nll.n=4", "metrics.nll.num_steps=4", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    assert len(list(tmp_path.glob("logs/evaluate/*/metrics.json"))) == 1


@pytest.mark.e2e
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(["ddpm"], marks=pytest.mark.slow),
        pytest.param(["python", "-m", "ddpm"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_an_installed_package_trains_on_two_devices_and_in_sweeps(
    form: list[str], installed: Path, tmp_path: Path
):
    program, before = installed / form[0], form[1:]
    smoke = ["experiment=smoke", "logger=none", "callbacks.samples=null"]
    one = run(program, *before, "train", *smoke, "trainer.devices=1", "hydra.run.dir=one", cwd=tmp_path)
    two = run(program, *before, "train", *smoke, "trainer.devices=2", "hydra.run.dir=two", cwd=tmp_path)
    assert (one.returncode, two.returncode) == (0, 0), one.said + two.said
    losses = [[float(row["train/loss"]) for row in finished(tmp_path / name)] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

    swept = ["-m", "schedule=linear,cosine", "trainer.devices=1", "hydra.sweep.dir=sweep"]
    outcome = run(program, *before, "train", *swept, *smoke, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    assert len([finished(tmp_path / "sweep" / number) for number in ("0", "1")]) == 2


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["inspect", "data=digits"], ["cache", "list"], ["doctor"], ["export", "--help"]], ids=" ".join
)
def test_an_installed_package_has_the_other_commands(words: list[str], installed: Path, tmp_path: Path):
    outcome = run(installed / "ddpm", *words, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said


def test_jobs_are_started_where_the_program_is_no_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Windows' `ddpm.exe`, which calls itself `ddpm`."""
    main = types.ModuleType("__main__")
    main.__spec__ = None
    monkeypatch.setitem(sys.modules, "__main__", main)
    program = tmp_path / "ddpm"
    monkeypatch.setattr(sys, "argv", [str(program), "train", "-m", "seed=0,1"])
    assert invocation.program() == ["-m", "ddpm", "train"]
    program.touch()
    assert invocation.program() == [str(program), "train"]


WITHOUT_UNIX = """
import importlib, os, pkgutil, signal, sys
import datasets, diffusers, hydra, lightning.pytorch, matplotlib.figure, rich.progress
import sklearn.datasets, torch._dynamo, wandb
from lightning.pytorch.trainer.connectors import signal_connector
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT", "SIGCHLD"):
    delattr(signal, name)
for name in ("sysconf", "fork", "killpg", "getpgid", "setsid", "getuid", "sched_getaffinity", "getloadavg"):
    delattr(os, name)
for name in ("resource", "fcntl", "pwd", "grp", "termios", "pty", "tty"):
    sys.modules[name] = None
sys.platform = "win32"
# it asked for the system when it was imported
signal_connector._SignalConnector.register_signal_handlers = lambda connector: None
"""
"""A process without what Windows lacks; what is not ours has been imported before."""


@pytest.mark.e2e
@pytest.mark.slow
def test_every_module_is_imported_where_there_is_no_unix():
    code = f"""
from contextlib import suppress
with suppress(ImportError):
    import gradio
{WITHOUT_UNIX}
import ddpm
assert not [name for name in sys.modules if name.startswith("ddpm.")]
for module in pkgutil.walk_packages(ddpm.__path__, "ddpm."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name != "gradio":  # of an extra that asks for an environment of its own
                raise
import ddpm.__main__, hydra_plugins.fresh_process_launcher
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=INSTALLED)
    assert process.returncode == 0, process.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_one_device_trains_where_there_is_no_unix(tmp_path: Path):
    words = ["ddpm", "train", "experiment=smoke", "logger=none", "trainer.devices=1", "hydra.run.dir=run"]
    words += ["data.num_workers=0"]  # workers would be forked here, and spawned there
    code = f"{WITHOUT_UNIX}\nsys.argv = {words}\nimport ddpm.__main__\nddpm.__main__.main()"
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=INSTALLED)
    assert process.returncode == 0, process.stderr
    assert len(list(csv.DictReader((tmp_path / "run" / "metrics.csv").open(newline="")))) == 20
