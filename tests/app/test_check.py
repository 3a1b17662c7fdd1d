"""The check before anything is built: each mistake is one message that names the key and the way out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_here

FAST = {
    "trainer.device=4": r"trainer\.device: there is no such key; did you mean trainer\.devices\?",
    "schedule=cosin": r"schedule=cosin: there is no such option; did you mean cosine\?",
    "+trianer.devices=4": r"trianer: there is no such key; did you mean trainer\?",
    "trainer.devices=abc": r"trainer\.devices=abc: must be a number of devices",
    "experiment=misspelt": r"ema\.decai: there is no such key; did you mean ema\.decay\?",
    "data=folder": r"data\.path is missing: give it as data\.path=VALUE",
    "model.chanels=64": r"model\.chanels: there is no such key; did you mean model\.channels\?",
    "schedul=linear": r"schedul: there is no such key; did you mean schedule\?",
    "trainer.max_steps=many": r"trainer\.max_steps=many: must be int",
    "trainer.max_steps=0": r"trainer\.max_steps=0: must be at least 1",
    "trainer.accumulate_grad_batches=0": r"accumulate_grad_batches=0: must be at least 1",
    "trainer.precision=16": r"trainer\.precision=16: must be auto or 32-true or bf16-mixed or 16-mixed",
    "model.compile=maybe": r"model\.compile=maybe: must be bool",
    "model.chanels_last=true": r"model\.chanels_last: .* did you mean model\.channels_last\?",
    "preflight=maybe": r"preflight=maybe: must be bool",
    "trainer.devices=--1": r"trainer\.devices=--1: must be a number of devices",
    "seed=-1": r"seed=-1: must be at least 0",
    "seed=abc": r"seed=abc: must be int",
    "clip_x_0=maybe": r"clip_x_0=maybe: must be bool",
    "model=null": r"model: cannot be left out; choose one of model=OPTION",
    "hydra.run.dir=${nowhere}": r"nowhere",
    "experiment=broken": r"error: ",
    "trainer.devices=0": r"trainer\.devices=0: must be a number of devices",
    "trainer.devices=1,2": r"trainer\.devices=1,2: several values are a sweep, which needs -m",
    "callbacks.sample.n=3": r"callbacks\.sample: there is no such key; did you mean callbacks\.samples\?",
    "callbacks.samples.sampler.num_step=3": r"did you mean callbacks\.samples\.sampler\.num_steps\?",
    "model._target_=os.system": r"model\._target_=os\.system: is not in an allowed package",
    "model._target_=torch.load": r"model\._target_=torch\.load: is not in an allowed package",
    "model._target_=ddpm.networks.unet.VNet": r"there is no such class or function",
    "callbacks.samples.sampler.eta._target_=subprocess.run": r"subprocess\.run: is not in an allowed",
    "model.in_channels=3": r"model\.in_channels: is not yours to set",
    "schedule.num_timesteps=${nowhere}": r"schedule\.num_timesteps: .*nowhere",
    "schedule.num_timesteps=[": r"schedule\.num_timesteps=\[: must be int",
}
HEAVY = {
    "data=folder data.path=nowhere": r"data\.path=.*nowhere: there is no such folder",
    "data=folder data.path=empty": r"data\.path=.*empty: it holds no files",
    "data.batch_size=63 trainer.devices=2": r"data\.batch_size=63 .* use 62 or 64",
    "data.batch_size=0": r"data\.batch_size=0 must be at least 1",
    "model.multipliers=[1,1,1,1,1]": r"data\.image_size: images of 8x8 .* 16 divides",
    "model.norm_groups=7": r"norm_groups=7 does not divide",
    "schedule.num_timesteps=20": r"schedule\.num_timesteps=20: the last beta would be 1",
    "optimizer.lr=-1": r"optimizer\.lr=-1 must be above 0",
    "lr_schedule=warmup lr_schedule.warmup_steps=few": r"lr_schedule.warmup_steps=few: must be int",
    "sampler=ddim sampler.num_steps=5000": r"sampler\.num_steps=5000",
    "callbacks.samples.sampler.num_steps=5000": r"callbacks\.samples\.sampler\.num_steps=5000",
    "callbacks.x._target_=torch.nn.ReLU": r"callbacks\.x: torch\.nn\.ReLU is no Lightning callback",
    "schedule.zero_terminal_snr=true": r"objective: Epsilon .* zero SNR; use objective=v",
    "variance=learned_range": r"weighting: Simple does not train .* weighting=hybrid",
    "init=nowhere": r"init=.*nowhere: there is no such run directory",
    "ema.decay=2": r"ema.decay=2 must be",
    "callbacks.samples.every_n_steps=0": r"callbacks\.samples: every_n_steps",
    "callbacks.x._target_=lightning.pytorch.callbacks.timer.os.getcwd": r"cannot be imported",
    "callbacks.x._target_=lightning.pytorch.callbacks.timer.timedelta": r"is no public class or function",
    "callbacks.x._target_=lightning.pytorch.callbacks.Timer callbacks.x.durration=1": r"mean .*\.duration",
    "trainer.accelerator=toaster": r"trainer: .*toaster",
    "ckpt=nowhere": r"ckpt=.*nowhere: there is no such run directory",
    "ckpt=empty": r"ckpt=.*empty: holds no checkpoint",
    "ckpt=a init=b": r"ckpt and init: give one",
}


def mistakes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str]) -> str:
    """What the program says when it refuses these arguments; run in this process, which spares a start."""
    code = run_here(monkeypatch, "train", *arguments)
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    return said


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with an experiment that has a misspelt key in reach."""
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/misspelt.yaml").write_text("# @package _global_\nema:\n  decai: 0.9\n")
    (tmp_path / "own/experiment/broken.yaml").write_text("# @package _global_\n{[}\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", FAST)
def test_what_composing_can_tell(
    arguments: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, ["--config-dir", "own", *arguments.split()])
    assert re.search(FAST[arguments], said), said
    assert not (place / "logs").exists()


@pytest.mark.parametrize("arguments", HEAVY)
def test_what_building_can_tell(
    arguments: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, ["experiment=smoke", "trainer.accelerator=cpu", *arguments.split()])
    assert re.search(HEAVY[arguments], said), said
    assert not (place / "logs").exists()


def test_a_sweep_is_checked_before_its_first_job(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, ["-m", "schedule=linear,cosin"])
    assert "schedule=cosin: there is no such option" in said
    said = mistakes(monkeypatch, capsys, ["-m", "schedule=linear,cosine", "trainer.device=1,2"])
    assert "did you mean trainer.devices?" in said
    assert not (place / "logs").exists()


@pytest.mark.parametrize("damage", ["truncated", "network", "schedule", "data", "rate", "micro", "finished"])
def test_checkpoints_that_cannot_be_continued(
    damage: str, smoke_run: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    path = smoke_run / "checkpoints" / "last.ckpt"
    arguments, message = {
        "truncated": ([], r"damaged\.ckpt: cannot be read"),
        "network": (["model.channels=24"], r"model\.channels is 24 here and 16 in the checkpoint"),
        "schedule": (["schedule=cosine"], r"schedule\._target_ is .*cosine.* here and .*linear"),
        "data": (["data.batch_size=32"], r"data\.batch_size is 32 here and 64 in the checkpoint"),
        "rate": (["optimizer.lr=1e-4"], r"optimizer\.lr is 0\.0001 here and 0\.002 in the checkpoint"),
        "micro": (["trainer.accumulate_grad_batches=2"], r"accumulate_grad_batches is 2 here and 1 in the"),
        "finished": (["trainer.max_steps=20"], r"trainer\.max_steps=20: .* is at step 20 already"),
    }[damage]
    if damage == "truncated":
        damaged = place / "damaged.ckpt"
        damaged.write_bytes(path.read_bytes()[:-500])
        path = damaged
    said = mistakes(
        monkeypatch, capsys, ["experiment=smoke", "trainer.max_steps=30", f"ckpt={path}", *arguments]
    )
    assert re.search(message, said), said
    assert not (place / "logs").exists()


def test_weights_of_another_network_are_refused(
    smoke_run: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, ["experiment=smoke", f"init={smoke_run}", "model.channels=24"])
    assert re.search(r"init=.*: is of another network: .* is \(24.* in this one and \(16", said)


def test_a_directory_that_holds_a_run_is_not_overwritten(
    smoke_run: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, ["experiment=smoke", f"hydra.run.dir={smoke_run}"])
    assert "holds run.json of another run already" in said
    assert (smoke_run / "run.json").exists()


@pytest.mark.parametrize("arguments", list(FAST)[:6])
def test_what_composing_can_tell_is_told_without_torch(arguments: str, place: Path):
    """As typed: another process, exit code 2, no directory, and nothing heavy was imported on the way."""
    script = ROOT / "train.py"
    command = [sys.executable, "-X", "importtime", str(script), "--config-dir", "own", arguments]
    process = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
    assert process.returncode == 2
    message = [line for line in process.stderr.splitlines() if not line.startswith("import time:")]
    assert len(message) == 1, message
    assert re.search(FAST[arguments], message[0])
    assert process.stdout == ""
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines() if "|" in line}
    assert not {"torch", "lightning", "wandb", "sklearn", "numpy"} & imported
    assert not (place / "logs").exists()


def test_a_traceback_is_shown_on_demand(place: Path):
    script = ROOT / "train.py"
    process = subprocess.run(
        [sys.executable, str(script), "schedule=cosin"],
        cwd=place,
        capture_output=True,
        text=True,
        env={"HYDRA_FULL_ERROR": "1", "PATH": ""},
        timeout=60,
    )
    assert "Traceback" in process.stderr
    assert "did you mean cosine?" in process.stderr


def test_a_mistake_leaves_the_users_own_empty_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    (tmp_path / "mine" / "empty").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "empty")
    mistakes(monkeypatch, capsys, ["experiment=smoke", "ema.decay=2"])
    assert list((tmp_path / "mine" / "empty").iterdir()) == []
    mistakes(monkeypatch, capsys, ["experiment=smoke", "ema.decay=2", "hydra.run.dir=deep/down/here"])
    assert list((tmp_path / "mine" / "empty").iterdir()) == []


def test_a_yaml_admits_no_package(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Else a stranger's configuration could run anything."""
    (place / "own/experiment/evil.yaml").write_text(
        "# @package _global_\nallow_targets: [pty]\ncallbacks: {x: {_target_: pty.spawn}}\n"
    )
    said = mistakes(monkeypatch, capsys, ["--config-dir", "own", "experiment=evil"])
    assert "callbacks.x._target_=pty.spawn: is not in an allowed package" in said


def test_a_job_of_several_processes_does_not_enter_a_used_directory(
    smoke_run: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for name, value in {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    said = mistakes(monkeypatch, capsys, ["experiment=smoke", f"hydra.run.dir={smoke_run}"])
    assert "holds run.json of another run already" in said


def test_a_trainer_that_was_not_told_of_all_processes_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for name, value in {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")  # so that Lightning's own check of SLURM stays out
    said = mistakes(monkeypatch, capsys, ["experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=1"])
    assert "trainer.devices: 4 processes were started" in said
