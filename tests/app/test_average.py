"""Averages that are made after training: `python -m ddpm ema`, `sigma_rel=` of sample.py and evaluate.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, run_command, run_here, run_program

import ddpm
from ddpm.app.build import build_data, describe
from ddpm.app.continuing import Resume
from ddpm.training import snapshots
from ddpm.training.building import build_module
from ddpm.training.checkpoints import at_step, load, write
from ddpm.training.loggers import MetricsCSV
from ddpm.training.power_ema import PowerEMA

SHORT = ("experiment=smoke", "sampler=ddim", "sampler.num_steps=2", "schedule.num_timesteps=50", "ema=power")


@pytest.fixture(scope="module")
def power_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with snapshots of every second step, its weights a walk."""
    run = tmp_path_factory.mktemp("power") / "run"
    config = composed("train", *SHORT)
    module = build_module(config, describe(build_data(config)))
    assert isinstance(module.ema, PowerEMA)
    torch.manual_seed(0)
    for step in range(1, 25):
        with torch.no_grad():
            for parameter in module.network.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
        module.ema.update()
        if step % 2 == 0 and step < 24:
            snapshots.write(module.ema, snapshots.path_of(run, step), leads=True)
    checkpoint = {
        "state_dict": module.state_dict(),
        "ema": module.ema.state_dict(),
        "config": module.config,
        "data": module.data,
        "global_step": 24,
        "wandb_id": None,
    }
    write(checkpoint, run / "checkpoints" / at_step(24))
    return run


def test_the_command_writes_what_sigma_rel_draws_with(
    power_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    assert run_command(monkeypatch, "ema", power_run, "sigma_rel=0.07") == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == power_run / "checkpoints" / "ema_0.07_step_00000024.ckpt"
    words = ("n=2", "sampler.num_steps=2")
    draw = (f"ckpt={power_run}", "sigma_rel=0.07", f"out={tmp_path / 'one'}", *words)
    assert run_here(monkeypatch, "sample", *draw) == 0
    assert run_here(monkeypatch, "sample", f"ckpt={path}", f"out={tmp_path / 'other'}", *words) == 0
    one, other = (np.load(tmp_path / name / "samples.npz")["arr_0"] for name in ("one", "other"))
    assert np.array_equal(one, other)
    run = ddpm.load(path, "cpu")
    assert (run.module.sigma_rel, run.step) == (0.07, 24)
    assert not torch.equal(run.sample(2), ddpm.load(power_run, "cpu").sample(2))
    assert load(path)["average"]["sigma_rel"] == 0.07


def test_a_measurement_says_the_length(power_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ("metrics=[kid]", "extractor=pixels", "n=16")
    out = f"hydra.run.dir={tmp_path / 'out'}"
    assert run_here(monkeypatch, "evaluate", f"ckpt={power_run}", "sigma_rel=0.2", *words, out) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["sigma_rel"] == found["kid"]["of"]["sigma_rel"] == 0.2
    assert any("_ema0.2_ddim2" in name for name in found["kid"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["sigma_rel=0.001"], "12 snapshots up to step 24 express its profile with an error of"),
        (["sigma_rel=0.07", "step=3"], "step=3: there are no averages of that step"),
        (["sigma_rel=2"], "sigma_rel=2.0 must be above 0 and at most 0.2887"),
        (["sigma_rel=long"], "sigma_rel=long: must be a number"),
        (["step=3"], "sigma_rel: nothing says how long"),
        (["length=0.1"], "length=0.1: is no setting; there are sigma_rel and step"),
    ],
)
def test_a_mistake_of_the_command_is_told(
    settings: list[str],
    told: str,
    power_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    before = sorted(power_run.rglob("*"))
    assert run_command(monkeypatch, "ema", power_run, *settings) == 2
    assert told in capsys.readouterr().err
    assert sorted(power_run.rglob("*")) == before


def test_a_run_without_snapshots_is_told(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    out = tmp_path / "out"
    words = (f"ckpt={conditional_run}", "sigma_rel=0.05", f"out={out}")
    assert run_here(monkeypatch, "sample", *words) == 2
    assert "has no snapshots of averages to make one of" in capsys.readouterr().err
    assert run_here(monkeypatch, "sample", *words, "weights=raw") == 2
    assert "weights and sigma_rel: raw weights are not averaged" in capsys.readouterr().err
    assert not out.exists()


def test_a_run_that_goes_on_in_a_new_directory_has_the_snapshots_so_far(power_run: Path, tmp_path: Path):
    csv = MetricsCSV(tmp_path / "metrics.csv")
    file = power_run / "checkpoints" / at_step(24)
    Resume(file, 9, wandb_id=None, lr_schedule={}).take_over_history(csv)
    assert list(snapshots.kept(tmp_path)) == [2, 4, 6, 8]


@pytest.mark.slow
@pytest.mark.e2e
def test_two_processes_keep_the_averages_of_their_checkpoints(tmp_path: Path):
    words = ("callbacks=plain", "logger=none", "trainer=ddp_sim", "trainer.devices=2", *SHORT)
    words = (*words, "callbacks.samples=null", "ema.snapshot_every_n_steps=4")
    often = ("callbacks.checkpoints.every_n_steps=8", "trainer.max_steps=8", "hydra.run.dir=run")
    ended = run_program("train.py", *words, *often, cwd=tmp_path)
    assert ended.returncode == 0, ended.said
    kept = snapshots.kept(tmp_path / "run")
    assert list(kept) == [4, 8]
    average = load(tmp_path / "run" / "checkpoints" / "last.ckpt")["ema"]
    found = snapshots.read(kept[8])
    assert found.num_updates == average["num_updates"] == 8
    for length, parameters in ((0.1, average["parameters"]), (0.05, average["others"]["0.05"])):
        assert all(torch.equal(found.averages[length][name], parameters[name]) for name in parameters)
