"""Files of strangers: nothing of theirs runs, nothing is written outside, each is refused in one message."""

import io
import json
import os
import pickle
import re
import signal
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, accepted, composed, first_everyday, run_command, run_here
from safetensors.torch import save_file

from ddpm import __main__
from ddpm.app import pictures_given
from ddpm.data.pixels.shaping import Shaping
from ddpm.errors import UsageError
from ddpm.interop import sums
from ddpm.interop.diffusers import WEIGHTS

if sys.platform == "win32":
    pytest.skip("of pipes, links and limits", allow_module_level=True)

import resource

SECRET = "correct-horse-battery-staple"
BEYOND = 1 << 30
"""Bytes that a refusal may take beyond what the program has."""

Change = Callable[["Victim"], dict[str, Any] | str | bytes | None]
"""Puts something hostile into a run directory: returns what its config.yaml says, or writes it itself."""


class Victim:
    """A home and a run directory in it that a stranger made; `canary` is what their code would write."""

    def __init__(self, root: Path):
        self.home = root / "home"
        self.run = self.home / "run"
        self.canary = root / "canary"
        self.secret = root / "secret"
        self.elsewhere = root / "elsewhere"
        self.own: dict[str, Any] = {}
        for directory in (self.run / "checkpoints", self.elsewhere):
            directory.mkdir(parents=True)
        self.secret.write_text(f"user: {SECRET}\n")

    @property
    def touch(self) -> dict[str, Any]:
        """What makes the canary when it is built."""
        return {
            "_target_": "pathlib.Path.touch",
            "self": {"_target_": "pathlib.Path", "_args_": [str(self.canary)]},
        }

    def with_hydra(self, **part: Any) -> dict[str, Any]:
        return {**self.own, "hydra": part}

    def with_(self, **keys: Any) -> dict[str, Any]:
        return {**self.own, **keys}

    def inside(self, group: str, **keys: Any) -> dict[str, Any]:
        return {**self.own, group: {**self.own[group], **keys}}


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    return composed("train", "experiment=smoke")


@pytest.fixture
def victim(tmp_path: Path, own: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Victim]:
    """Where a person works, with bounds on memory; what hangs is ended."""
    found = Victim(tmp_path)
    found.own = own
    monkeypatch.setenv("HOME", str(found.home))
    monkeypatch.setenv("HOSTILE_SECRET", SECRET)
    monkeypatch.chdir(found.home)
    with within(BEYOND), ended_in_time():
        yield found


@contextmanager
def within(size: int) -> Iterator[None]:
    """So much address space beyond what there is, and no more."""
    if sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def ended_in_time() -> Iterator[None]:
    """An alarm, for what would wait for ever."""

    def ring(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def listed(root: Path) -> dict[str, tuple[int, int]]:
    """Everything below a directory, with what tells a change of a file."""
    found = {}
    for directory, folders, files in os.walk(root):
        found |= {os.path.join(directory, name): (0, 0) for name in folders}
        for path in (os.path.join(directory, name) for name in files):
            status = os.lstat(path)
            found[path] = (status.st_size, status.st_mtime_ns)
    return found


def refused(victim: Victim, capsys: pytest.CaptureFixture, do: Callable[[], int]) -> str:
    """The one message that is said to it; nothing ran and nothing was written."""
    before = listed(victim.canary.parent)
    capsys.readouterr()
    code = do()
    said = capsys.readouterr().err
    assert code == 2, said
    assert not victim.canary.exists()
    assert listed(victim.canary.parent) == before
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "Traceback" not in said
    assert SECRET not in said
    assert len(errors[0]) < 2000
    return errors[0]


def aliases(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


def link(victim: Victim, to: str) -> None:
    (victim.run / "config.yaml").symlink_to(to)


TEXT = "trainer: {_target_: lightning.pytorch.Trainer}\n"
LOG = {
    "version": 1,
    "handlers": {"x": {"()": "os.system", "command": "touch canary"}},
    "root": {"handlers": ["x"]},
}

TOLD: dict[str, Change] = {
    "callbacks": lambda v: v.with_hydra(
        callbacks={"x": {"_target_": "joblib.load", "filename": str(v.secret)}}
    ),
    "callbacks of any kind": lambda v: v.with_hydra(callbacks={"x": v.touch}),
    "launcher": lambda v: v.with_hydra(launcher=v.touch),
    "launcher in launcher": lambda v: v.with_hydra(launcher={"x": {"y": [v.touch]}}),
    "sweeper": lambda v: v.with_hydra(sweeper={"sampler": v.touch}),
    "sweeper.params": lambda v: v.with_hydra(sweeper={"params": {"+hydra.callbacks.x": v.touch}}),
    "sweeper.search_space": lambda v: v.with_hydra(sweeper={"search_space": {"x": v.touch}}),
    "job_logging": lambda v: v.with_hydra(job_logging=LOG),
    "hydra_logging": lambda v: v.with_hydra(hydra_logging=LOG),
    "job.env_set": lambda v: v.with_hydra(job={"name": "train", "env_set": {"LD_PRELOAD": "x.so"}}),
    "job.env_copy": lambda v: v.with_hydra(job={"name": "train", "env_copy": ["HOSTILE_SECRET"]}),
    "job.chdir": lambda v: v.with_hydra(job={"name": "train", "chdir": True}),
    "run.dir": lambda v: v.with_hydra(job={"name": "train"}, run={"dir": str(v.elsewhere)}),
    "run.dir that is resolved": lambda v: v.with_hydra(
        job={"name": "train"}, run={"dir": "${run_dir:${oc.env:HOSTILE_SECRET}}"}
    ),
    "sweep.dir": lambda v: v.with_hydra(sweep={"dir": str(v.elsewhere)}),
    "searchpath": lambda v: v.with_hydra(searchpath=[f"file://{v.elsewhere}"]),
    "mode": lambda v: v.with_hydra(mode="MULTIRUN"),
    "output_subdir": lambda v: v.with_hydra(output_subdir="../../elsewhere"),
    "help": lambda v: v.with_hydra(help={"template": "${oc.env:HOSTILE_SECRET}"}),
    "verbose": lambda v: v.with_hydra(verbose=True),
    "null": lambda v: v.with_(hydra=None),
    "a list": lambda v: v.with_(hydra=[v.touch]),
    "defaults": lambda v: v.with_(defaults=["run", {"/hydra/callbacks": "evil"}, "_self_"]),
    "defaults that override": lambda v: v.with_(defaults=[{"override hydra/launcher": "basic"}]),
    "a group at the top": lambda v: v.with_(**{"hydra/callbacks": "evil"}),
    "a dotted key": lambda v: v.with_(**{"hydra.callbacks.x": v.touch}),
}

SAID: dict[str, Change] = {
    "a variable": lambda v: v.with_(tags=["${oc.env:HOSTILE_SECRET}"]),
    "a variable deep in": lambda v: v.inside("data", split={"x": [["${oc.env:HOSTILE_SECRET}"]]}),
    "a resolver": lambda v: v.with_(tags="${oc.create:'{_target_: os.system}'}"),
    "a variable in yaml's escapes": lambda v: yaml.safe_dump(v.own) + 'x: "\\x24{oc.env:HOSTILE_SECRET}"\n',
    "a tag of Python": lambda v: TEXT + f"x: !!python/object/apply:os.system ['touch {v.canary}']\n",
    "a tag of Python's names": lambda v: TEXT + "x: !!python/name:os.system\n",
    "aliases": lambda v: TEXT + aliases(9),
    "aliases merged": lambda v: (
        TEXT
        + "a0: &a0 {k: 1}\n"
        + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 20)}], k{i}: 1}}\n" for i in range(1, 8))
    ),
    "an alias of itself": lambda v: TEXT + "a: &a [*a]\n",
    "deep lists": lambda v: TEXT + "a: " + "[" * 100_000,
    "deep mappings": lambda v: TEXT + "a: " + "{a: " * 3000 + "1" + "}" * 3000,
    "a key twice": lambda v: yaml.safe_dump(v.own) + "seed: 1\n",
    "an endless number": lambda v: TEXT + f"seed: 0x{'f' * 500_000}\n",
    "an endless number by sixties": lambda v: TEXT + f"seed: 1{':01' * 100_000}\n",
    "a date": lambda v: yaml.safe_dump(v.own) + "tags: 2020-01-01\n",
    "many values": lambda v: TEXT + f"a: [{'1,' * 300_000}]\n",
    "NUL bytes": lambda v: TEXT.encode() + b"\0" * 100,
    "no text": lambda v: b"\xff\xfe\xfa" * 100,
    "a tuple for a key": lambda v: TEXT + "? [a, b]\n: 1\n",
    "a large file": lambda v: os.truncate(_made(v), 300_000_000),
    "a pipe": lambda v: os.mkfifo(v.run / "config.yaml"),
    "a device": lambda v: link(v, "/dev/zero"),
    "a directory": lambda v: (v.run / "config.yaml").mkdir(),
    "a link to nothing": lambda v: link(v, "/nowhere"),
    "a link to a secret": lambda v: link(v, str(v.secret)),
}

NAMED: dict[str, Change] = {
    "a callback": lambda v: v.inside("callbacks", x=v.touch),
    "a walk through imports": lambda v: v.inside("model", x={"_target_": "torch.nn.functional.torch.load"}),
    "a private name": lambda v: v.inside(
        "model", _target_="torch.nn.utils._deprecation_utils.lazy_deprecated_import"
    ),
    "a double underscore": lambda v: v.inside("model", _target_="torch.nn.Module.__init__"),
    "one in a list": lambda v: v.inside(
        "callbacks", x={"_target_": "lightning.pytorch.callbacks.Timer", "_args_": [[v.touch]]}
    ),
    "a partial": lambda v: v.inside("optimizer", x={**v.touch, "_partial_": True}),
    "a logger in another place": lambda v: v.inside(
        "objective", _target_="lightning.pytorch.loggers.CSVLogger", save_dir=str(v.elsewhere)
    ),
    "what it admits by itself": lambda v: {**v.inside("callbacks", x=v.touch), "allow_targets": ["pathlib"]},
    "a folder of checkpoints": lambda v: v.inside(
        "callbacks",
        x={"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": str(v.elsewhere)},
    ),
    "a name that climbs": lambda v: v.inside(
        "callbacks",
        x={"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "filename": "../../elsewhere/x"},
    ),
    "a folder of logs": lambda v: v.inside(
        "logger", x={"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(v.elsewhere)}
    ),
    "a version that climbs": lambda v: v.inside(
        "logger", x={"_target_": "lightning.pytorch.loggers.CSVLogger", "version": "../../../elsewhere"}
    ),
    "a folder in a variable": lambda v: v.inside(
        "logger", x={"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "name": "$HOME/x"}
    ),
    "a server": lambda v: v.inside(
        "logger",
        x={"_target_": "lightning.pytorch.loggers.MLFlowLogger", "tracking_uri": "http://evil.example"},
    ),
    "a profile": lambda v: v.inside(
        "trainer",
        profiler={"_target_": "lightning.pytorch.profilers.SimpleProfiler", "dirpath": str(v.elsewhere)},
    ),
    "prepared data": lambda v: v.inside("data", cache_dir=str(v.elsewhere / "cache")),
}


def _made(victim: Victim) -> Path:
    (victim.run / "config.yaml").write_text(TEXT)
    return victim.run / "config.yaml"


def changed(victim: Victim, change: Change) -> None:
    """Make the run directory hostile."""
    if (content := change(victim)) is None:
        return
    if isinstance(content, dict):
        content = yaml.safe_dump(content)
    written = content.encode() if isinstance(content, str) else content
    (victim.run / "config.yaml").write_bytes(written)


AGAIN = ["--config-dir", "run", "--config-name", "config"]


@pytest.mark.parametrize(
    "words",
    first_everyday([["ckpt=run"], AGAIN, [*AGAIN, "-m", "seed=1,2", "hydra/launcher=basic"]]),
    ids=["continued", "repeated", "a sweep"],
)
@pytest.mark.parametrize("case", [*TOLD, *SAID, *NAMED])
def test_a_hostile_configuration_is_refused(
    case: str,
    words: list[str],
    victim: Victim,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    """As documented, by `ckpt=`, and as it is repeated; as one run and as a sweep."""
    changed(victim, {**TOLD, **SAID, **NAMED}[case])
    said = refused(victim, capsys, lambda: run_here(monkeypatch, "train", *words, prepare=accepted))
    if case in TOLD:
        assert "hydra" in said or "defaults" in said
    elif case in SAID:
        assert "config.yaml" in said


def test_without_it_the_configuration_is_accepted(victim: Victim, monkeypatch: pytest.MonkeyPatch):
    changed(victim, lambda v: v.own)
    for words in (["ckpt=run"], ["--config-dir", "run", "--config-name", "config"]):
        assert run_here(monkeypatch, "train", *words, prepare=lambda config, place: lambda: 0) == 0


IMPORTED: dict[str, Callable[[Victim], dict[str, Any]]] = {
    "hydra": lambda v: {"defaults": ["train", "_self_"], "hydra": {"callbacks": {"x": v.touch}}},
    "another group": lambda v: {"defaults": ["train", {"hydra/callbacks": "evil"}, "_self_"]},
    "another option": lambda v: {"defaults": ["train", {"override data": "evil"}, "_self_"]},
    "another key": lambda v: {"defaults": ["train", "_self_"], "extra": 1},
    "a variable": lambda v: {"defaults": ["train", "_self_"], "tags": ["${oc.env:HOSTILE_SECRET}"]},
    "a file": lambda v: {"defaults": ["evil", "_self_"]},
    "no list": lambda v: {"defaults": 3},
}


@pytest.mark.parametrize("words", first_everyday([[], ["-m", "seed=1,2"]]), ids=["once", "a sweep"])
@pytest.mark.parametrize("case", IMPORTED)
def test_a_hostile_import_is_refused(
    case: str,
    words: list[str],
    victim: Victim,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    """Hydra composes it, as it is part of a configuration only; nothing in its directory is an option."""
    (victim.run / "config.yaml").write_text(yaml.safe_dump(IMPORTED[case](victim)))
    evil = f"# @package _global_\n{yaml.safe_dump({'hydra': {'callbacks': {'x': victim.touch}}})}"
    for name in ("hydra/callbacks", "data", "."):
        (victim.run / name).mkdir(parents=True, exist_ok=True)
        (victim.run / name / "evil.yaml").write_text(evil)
    words = [*AGAIN, "init=run", *words]
    refused(victim, capsys, lambda: run_here(monkeypatch, "train", *words, prepare=accepted))


OWN: dict[str, Callable[[Victim], dict[str, Any]]] = {
    "launcher": lambda v: {"launcher": v.touch},
    "in the launcher": lambda v: {"launcher": {"_target_": "hydra_plugins.x.X", "y": v.touch}},
    "sweeper": lambda v: {"sweeper": {"_target_": "os.system"}},
    "a callback by another name": lambda v: {"callbacks": {"x": "${hydra.help.y}"}, "help": {"y": v.touch}},
    "a factory in logging": lambda v: {"job_logging": LOG},
    "a walk in logging": lambda v: {
        "hydra_logging": {"version": 1, "handlers": {"x": {"class": "logging.os.system", "command": "x"}}}
    },
    "an object in logging": lambda v: {
        "job_logging": {"handlers": {"x": {"class": "logging.StreamHandler", "stream": "ext://os.environ"}}}
    },
    "a listener in logging": lambda v: {
        "job_logging": {
            "handlers": {"x": {"class": "logging.handlers.QueueHandler", "listener": "pathlib.Path"}}
        }
    },
}


@pytest.mark.parametrize("words", first_everyday([[], ["-m", "seed=1,2"]]), ids=["once", "a sweep"])
@pytest.mark.parametrize("case", OWN)
def test_options_of_ones_own_name_only_what_hydra_may_build(
    case: str,
    words: list[str],
    victim: Victim,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    options = victim.home / "mine" / "experiment"
    options.mkdir(parents=True)
    text = f"# @package _global_\n{yaml.safe_dump({'hydra': OWN[case](victim)})}"
    (options / "evil.yaml").write_text(text)
    words = ["--config-dir", "mine", "experiment=evil", *words]
    refused(victim, capsys, lambda: run_here(monkeypatch, "train", *words, prepare=accepted))


def _record(victim: Victim, text: str) -> None:
    (victim.run / "run.json").write_text(text)


DIRECTORIES: dict[str, Callable[[Victim], Any]] = {
    "a link in the place of the record of values": lambda v: (v.run / "metrics.csv").symlink_to(v.secret),
    "a link in the place of the log": lambda v: (v.run / "train.log").symlink_to(v.home / ".bashrc"),
    "a link where a record is written first": lambda v: (v.run / ".run.json.part").symlink_to(v.secret),
    "a link in the place of the lock": lambda v: (v.run / ".lock").symlink_to(v.secret),
    "a link in the place of a picture": lambda v: _folder(v, "samples", "step_00000010.png", v.secret),
    "a folder that lies elsewhere": lambda v: (v.run / "samples").symlink_to(v.elsewhere),
    "a pipe in the place of values": lambda v: os.mkfifo(v.run / "metrics.csv"),
    "a pipe in the place of the record": lambda v: os.mkfifo(v.run / "run.json"),
    "a record without end": lambda v: _record(v, "[" * 1_000_000),
    "a record of a long number": lambda v: _record(v, "9" * 1_000_000),
    "a large record": lambda v: (_record(v, "{}"), os.truncate(v.run / "run.json", 3_000_000_000)),
}


def _folder(victim: Victim, folder: str, name: str, to: Path) -> None:
    (victim.run / folder).mkdir()
    (victim.run / folder / name).symlink_to(to)


@pytest.mark.parametrize("case", DIRECTORIES)
def test_nothing_is_written_through_a_run_directory(
    case: str, victim: Victim, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """The same command would go on in it."""
    changed(victim, lambda v: v.own)
    if "record" not in case or "values" in case or "first" in case:
        _record(victim, '{"status": "running"}')
    DIRECTORIES[case](victim)
    words = ["experiment=smoke", "hydra.run.dir=run"]
    refused(victim, capsys, lambda: run_here(monkeypatch, "train", *words, prepare=accepted))


UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [4, 8],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "attention_head_dim": 4,
}
INDEX = {
    "_class_name": "DDPMPipeline",
    "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
}


def pipeline(victim: Victim, unet: Any = None, scheduler: Any = None, index: Any = None) -> Path:
    """A directory to import, whose weights are of no network."""
    directory = victim.home / "pipeline"
    for folder, name, content in (
        (".", "model_index.json", INDEX if index is None else index),
        ("unet", "config.json", UNET if unet is None else unet),
        ("scheduler", "scheduler_config.json", {} if scheduler is None else scheduler),
    ):
        (directory / folder).mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / folder / name).write_text(text)
    save_file({"x": torch.zeros(3)}, directory / "unet" / WEIGHTS[0])
    return directory


def weights(victim: Victim, content: bytes, name: str = WEIGHTS[0]) -> None:
    directory = pipeline(victim)
    (directory / "unet" / WEIGHTS[0]).unlink()
    (directory / "unet" / name).write_bytes(content)


def safetensors(header: Any, size: int = 16) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def pickled(victim: Victim) -> bytes:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {victim.canary}",)

    return pickle.dumps(Evil(), 2)


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def listed_sums(victim: Victim, text: str) -> None:
    (pipeline(victim) / sums.SUMS).write_text(text)


PIPELINES: dict[str, Callable[[Victim], Any]] = {
    "an index that is a list": lambda v: pipeline(v, index=[1]),
    "an index without end": lambda v: pipeline(v, index="[" * 500_000),
    "an index of numbers": lambda v: pipeline(v, index={**INDEX, "unet": 3}),
    "a large index": lambda v: os.truncate(pipeline(v) / "model_index.json", 3_000_000_000),
    "a pipe for an index": lambda v: (
        (pipeline(v) / "model_index.json").unlink(),
        os.mkfifo(v.home / "pipeline/model_index.json"),
    ),
    "many layers": lambda v: pipeline(v, {**UNET, "layers_per_block": 10**9}),
    "many levels": lambda v: pipeline(v, {**UNET, "block_out_channels": [4] * 100_000}),
    "wide layers": lambda v: pipeline(v, {**UNET, "block_out_channels": [10**12, 10**12]}),
    "no numbers": lambda v: pipeline(v, {**UNET, "block_out_channels": "ab"}),
    "large pictures": lambda v: pipeline(v, {**UNET, "sample_size": 10**9}),
    "many classes": lambda v: pipeline(v, {**UNET, "num_class_embeds": 10**12}),
    "a long chain": lambda v: pipeline(v, scheduler={"num_train_timesteps": 10**12}),
    "a chain of words": lambda v: pipeline(
        v, scheduler={"num_train_timesteps": 2, "trained_betas": ["a", {}]}
    ),
    "a schedule that is a list": lambda v: pipeline(v, scheduler={"beta_schedule": ["linear"]}),
    "a header that is too long": lambda v: weights(v, struct.pack("<Q", 1 << 60) + b"{}"),
    "a header of 100 MB": lambda v: weights(v, struct.pack("<Q", 99_000_000) + b"{}" + b" " * 1000),
    "tensors that overlap": lambda v: weights(
        v,
        safetensors(
            {
                "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            }
        ),
    ),
    "a tensor that is larger than the file": lambda v: weights(
        v,
        safetensors(
            {
                "a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]},
            }
        ),
    ),
    "a file of 100 GB without contents": lambda v: os.truncate(pipeline(v) / "unet" / WEIGHTS[0], 10**11),
    "a pipe for weights": lambda v: (
        (pipeline(v) / "unet" / WEIGHTS[0]).unlink(),
        os.mkfifo(v.home / "pipeline/unet" / WEIGHTS[0]),
    ),
    "code for weights": lambda v: weights(v, pickled(v), WEIGHTS[1]),
    "a tensor that says to be large": lambda v: weights(
        v, saved({"x": torch.zeros(1).expand(10**9)}), WEIGHTS[1]
    ),
    "no tensors for weights": lambda v: weights(v, saved({"x": [1, 2]}), WEIGHTS[1]),
    "weights that are not finite": lambda v: weights(
        v,
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 0)
        + struct.pack("<f", float("nan")),
    ),
    "sums that lead out": lambda v: listed_sums(v, f"{'0' * 64}  ../../secret\n"),
    "sums that are none": lambda v: listed_sums(v, SECRET),
}


@pytest.mark.parametrize("case", PIPELINES)
def test_a_hostile_pipeline_is_not_imported(
    case: str, victim: Victim, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    PIPELINES[case](victim)
    monkeypatch.setattr(sys, "argv", ["ddpm", "import", "pipeline", "imported"])

    def go() -> int:
        with pytest.raises(SystemExit) as exit_:
            __main__.main()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code

    refused(victim, capsys, go)


def table(blocks: int, entries: bytes) -> bytes:
    """An index of TensorFlow all of whose blocks are the same one."""
    first = entries + struct.pack("<II", 0, 1)
    handle = b"\0" + bytes([len(first)])
    index = (b"\0\0" + bytes([len(handle)]) + handle) * blocks + struct.pack("<II", 0, 1)
    varint = bytes([len(index) & 127 | 128, len(index) >> 7 & 127 | 128, len(index) >> 14])
    body = first + bytes(5) + index + bytes(5)
    footer = (b"\0\0" + bytes([len(first) + 5]) + varint).ljust(40, b"\0")
    return body + footer + struct.pack("<Q", 0xDB4775248B80FB57)


def with_blocks(number: int) -> dict[str, torch.Tensor]:
    one = torch.zeros(1, 1)
    names = {f"blocks.{i}.x": one for i in range(number)}
    return {
        **names,
        "x_embedder.proj.weight": torch.zeros(4, 1, 1, 1),
        "t_embedder.mlp.0.weight": one,
        "final_layer.linear.weight": one,
        "pos_embed": torch.zeros(1, 1, 4),
        "y_embedder.embedding_table.weight": one,
        "blocks.0.mlp.fc1.weight": one,
    }


WEIGHTS_OF_OTHERS: dict[str, tuple[str, Callable[[Victim], bytes]]] = {
    "code": ("a.pt", pickled),
    "code in an archive": ("a.pt", lambda v: saved({"model": {}, "args": Path("a")})),
    "a tensor that says to be large": ("a.pt", lambda v: saved({"x": torch.zeros(1).expand(10**9)})),
    "many blocks": ("a.pt", lambda v: saved(with_blocks(20_000))),
    "a header of 100 MB": ("a.safetensors", lambda v: struct.pack("<Q", 99_000_000) + b"{}" + b" " * 1000),
    "an index that repeats": ("a.index", lambda v: table(100_000, b"\0\1\0x" * 20)),
    "an index of long names": ("a.index", lambda v: table(1, b"\0\1\0x" + b"\xff\xff\xff\1\1\0x" * 10)),
}


@pytest.mark.parametrize("case", WEIGHTS_OF_OTHERS)
def test_hostile_weights_of_others_are_not_imported(
    case: str, victim: Victim, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    name, make = WEIGHTS_OF_OTHERS[case]
    (victim.home / name).write_bytes(make(victim))
    refused(victim, capsys, lambda: run_command(monkeypatch, "import", name, "imported"))


def npy(shape: str, content: bytes = b"", dtype: str = "|u1") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (64 - (len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def zeros(file: Path, name: str, head: bytes, mebibytes: int) -> None:
    """An archive of one member that unpacks to so much, made without as much memory."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        member.write(head)
        for _ in range(mebibytes):
            member.write(bytes(1 << 20))


def zipped(file: Path, members: dict[str, bytes], mode: int = 0) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED, 1)


def tarred(file: Path, name: str, kind: bytes, to: str = "") -> None:
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, to
        archive.addfile(info)


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


DATA: dict[str, tuple[str, str, Callable[[Path, Victim], Any]]] = {
    "npz that unpacks to much": (
        "arrays",
        "x.npz",
        lambda f, v: zeros(f, "x.npy", npy("(8, 8192, 8192, 1)", b""), 512),
    ),
    "npz that lies of its sizes": (
        "arrays",
        "x.npz",
        lambda f, v: zipped(f, {"x.npy": npy("(1000000, 1000, 1000, 1)")}),
    ),
    "npy that lies of its size": (
        "arrays",
        "x.npy",
        lambda f, v: f.write_bytes(npy("(99999999999, 32, 32)")),
    ),
    "npy of less than nothing": ("arrays", "x.npy", lambda f, v: f.write_bytes(npy("(-5, 32, 32)"))),
    "npy of code": ("arrays", "x.npy", lambda f, v: f.write_bytes(npy("(1,)", pickled(v), "|O"))),
    "npz of code": ("arrays", "x.npz", lambda f, v: zipped(f, {"x.npy": npy("(1,)", pickled(v), "|O")})),
    "zip whose names climb": (
        "archive",
        "x.zip",
        lambda f, v: zipped(f, {"../../evil.png": png(8, 8, bytes(72))}),
    ),
    "zip of absolute names": (
        "archive",
        "x.zip",
        lambda f, v: zipped(f, {str(v.canary): png(8, 8, bytes(72))}),
    ),
    "zip of links": ("archive", "x.zip", lambda f, v: zipped(f, {"a.png": str(v.secret).encode()}, 0o120777)),
    "tar of links": ("archive", "x.tar", lambda f, v: tarred(f, "a.png", tarfile.SYMTYPE, str(v.secret))),
    "tar of devices": ("archive", "x.tar", lambda f, v: tarred(f, "a.png", tarfile.CHRTYPE)),
    "tar of pipes": ("archive", "x.tar", lambda f, v: tarred(f, "a.png", tarfile.FIFOTYPE)),
    "zip of a picture that unpacks to much": (
        "archive",
        "x.zip",
        lambda f, v: zipped(f, {"a.png": png(60000, 60000, bytes(1 << 24))}),
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_hostile_data_are_refused(
    case: str,
    victim: Victim,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    option, name, make = DATA[case]
    make(victim.home / name, victim)
    words = [f"data={option}", f"data.path={name}", "data.image_size=8"]
    refused(victim, capsys, lambda: run_here(monkeypatch, "inspect", *words))


@pytest.mark.parametrize("key", ["start", "end", "mask"])
@pytest.mark.parametrize("size", [(60_000, 60_000), (8_192, 8_192), (1 << 30, 4)])
def test_a_hostile_picture_to_start_from_is_refused(key: str, size: tuple[int, int], victim: Victim):
    """Of a few bytes each; the second is as large as a picture may be, and has no rows."""
    (victim.home / "x.png").write_bytes(png(*size))
    with pytest.raises(UsageError, match=rf"^{key}=x\.png: cannot be read as a picture: "):
        pictures_given.picture(key, "x.png", Shaping((8, 8), 1))


def test_a_file_of_betas_is_not_told(victim: Victim):
    """A run's configuration names it."""
    from ddpm.diffusion.schedules import from_file

    with pytest.raises(ValueError, match="word 1 is no number") as raised:
        from_file(str(victim.secret))
    assert SECRET not in str(raised.value)
    for name, content in (("a.npy", npy("(99999999999,)", dtype="<f8")), ("b.npy", npy("(1,)", b"x", "|O"))):
        (victim.home / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"schedule\.path="):
            from_file(str(victim.home / name))
    np.savez(victim.home / "c.npz", x=np.zeros(3))
    os.rename(victim.home / "c.npz", victim.home / "c.npy")
    os.mkfifo(victim.home / "pipe")
    (victim.home / "large").touch()
    os.truncate(victim.home / "large", 10**11)
    for name in ("c.npy", "pipe", "large"):
        with pytest.raises(ValueError, match=r"schedule\.path="):
            from_file(str(victim.home / name))


def test_each_promise_names_a_test_that_there_is():
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for file, name in named:
            assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
