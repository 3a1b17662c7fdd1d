"""The whole program as people start it, on the machine's CPU."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PICTURES, ROOT, run_program, wandb_records
from PIL import Image

from ddpm import __version__
from ddpm.app import dashboard
from ddpm.data.batches import MicroBatches
from ddpm.data.loading import read
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.timesteps import Uniform
from ddpm.random import Purpose, Stream
from ddpm.sampling.contact_sheet import contact_sheet
from ddpm.training.checkpoints import find

pytestmark = pytest.mark.e2e


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(directory: Path) -> np.ndarray:
    return np.array([float(row["train/loss"]) for row in rows(directory)])


def summary_of(directory: Path) -> dict[str, Any]:
    """What stands for a run where W&B lists runs."""
    found: dict[str, Any] = {}
    for record in wandb_records(directory, "summary"):
        found |= record["update"]
    return found


def only_run(cwd: Path) -> Path:
    (directory,) = (cwd / "logs" / "train").iterdir()
    return directory


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("two")
    outcome = run_program("train.py", "experiment=smoke", "trainer.devices=2", *PICTURES, cwd=cwd)
    assert outcome.returncode == 0, outcome.said
    return only_run(cwd)


def test_a_run_leaves_what_the_design_lists(smoke_run: Path):
    assert {path.name for path in smoke_run.iterdir()} == {
        "config.yaml", "run.json", "metrics.csv", "checkpoints", "samples", "figures", "train.log",
        "wandb",
    }  # fmt: skip
    assert sorted(path.name for path in (smoke_run / "checkpoints").iterdir()) == [
        "last.ckpt", "step_00000010.ckpt", "step_00000020.ckpt",
    ]  # fmt: skip
    assert sorted(path.name for path in (smoke_run / "samples").iterdir()) == [
        "raw_step_00000010.png", "raw_step_00000020.png", "step_00000010.png", "step_00000020.png",
    ]  # fmt: skip
    record = json.loads((smoke_run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["exit_code"] == 0
    assert record["step"] == 20
    assert (
        record["objective"]
        == record["metrics"]["val/loss"]
        == pytest.approx(float(rows(smoke_run)[-1]["val/loss"]))
    )
    assert record["data"]["fingerprint"] == Digits().read().fingerprint
    assert [row["step"] for row in rows(smoke_run)] == [str(step) for step in range(1, 21)]
    log = (smoke_run / "train.log").read_text()
    assert "finished at step 20" in log
    assert f"sample.py ckpt=logs/train/{smoke_run.name}" in log


def test_the_loss_falls(smoke_run: Path):
    found = losses(smoke_run)
    assert found[0] == pytest.approx(1, abs=0.05)  # the network starts as zero, and eps has unit variance
    assert found[-3:].mean() < 0.35


def test_weights_and_biases_holds_the_same_run(smoke_run: Path):
    first, *history = [record["item"] for record in wandb_records(smoke_run, "history")]
    assert first["_step"] == 0
    [sheet] = smoke_run.glob("wandb/offline-run-*/files/media/images/data/contact_sheet_0_*.png")
    shown = contact_sheet(Digits().read())
    assert np.array_equal(np.asarray(Image.open(sheet)), shown)
    ours = {int(row["step"]): float(row["train/loss"]) for row in rows(smoke_run)}
    assert {item["_step"]: item["train/loss"] for item in history} == pytest.approx(ours)
    grids = list(smoke_run.glob("wandb/offline-run-*/files/media/images/samples/*.png"))
    kept = {np.asarray(Image.open(path).convert("RGB")).tobytes() for path in grids}
    at_the_end = [smoke_run / "figures" / f"{name}.png" for name in ("denoising", "nearest")]
    files = [*(smoke_run / "samples").iterdir(), *at_the_end]
    assert kept == {np.asarray(Image.open(path)).tobytes() for path in files}
    [run] = wandb_records(smoke_run, "run")
    record = json.loads((smoke_run / "run.json").read_text())
    shown = dashboard.shown(find(smoke_run)[1]["config"], record["data"], record["choices"])
    assert run["config"]["update"] == {**shown, "_wandb": {}}
    assert record["data"]["facts"].keys() >= {"mean", "std", "duplicates"}
    summary = summary_of(smoke_run)
    assert summary["parameters"] == record["parameters"]
    assert (summary["world_size"], summary["version"]) == (1, __version__)
    best = min(float(row["val/loss"]) for row in rows(smoke_run) if row["val/loss"])
    assert summary["best/val/loss"] == pytest.approx(best)
    assert summary["val/loss"] == pytest.approx(float(rows(smoke_run)[-1]["val/loss"]))
    (card,) = smoke_run.glob("wandb/offline-run-*/files/media/table/run/card_0_*.table.json")
    told = dict(json.loads(card.read_text())["data"])
    assert told["network"].startswith(f"{record['parameters']:,} parameters")


def test_one_and_two_devices_draw_the_same_curve(smoke_run: Path, two_devices: Path):
    np.testing.assert_allclose(losses(two_devices), losses(smoke_run), rtol=1e-4)
    assert json.loads((two_devices / "run.json").read_text())["devices"]["number"] == 2
    assert len(list(two_devices.glob("wandb/offline-run-*"))) == 1
    assert {path.name for path in two_devices.iterdir()} == {path.name for path in smoke_run.iterdir()}
    values = [float(rows(directory)[-1]["val/loss"]) for directory in (smoke_run, two_devices)]
    assert values[1] == pytest.approx(values[0], rel=1e-4)


@pytest.mark.long
def test_a_run_of_one_strategy_goes_on_by_another(smoke_run: Path, tmp_path: Path):
    first = ("experiment=smoke", "trainer.devices=2", "trainer.accelerator=cpu", "strategy=ddp")
    outcome = run_program("train.py", *first, "trainer.max_steps=11", "hydra.run.dir=first", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    again = ("ckpt=first", "strategy=ddp_static", "trainer.max_steps=20", "hydra.run.dir=second")
    outcome = run_program("train.py", *again, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    np.testing.assert_allclose(losses(tmp_path / "second"), losses(smoke_run), rtol=1e-4)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(
            ["callbacks.broken._target_=sabotage.NoAveraging"], id="gradients", marks=pytest.mark.slow
        ),
        pytest.param(["callbacks.broken._target_=sabotage.SameShard"], id="shards", marks=pytest.mark.long),
        pytest.param(
            ["callbacks.broken._target_=sabotage.NoiseOfRankZero"], id="noise", marks=pytest.mark.long
        ),
    ],
)
def test_the_comparison_of_devices_sees_what_is_broken(broken: list[str], smoke_run: Path, tmp_path: Path):
    arguments = [
        "experiment=smoke", "trainer.devices=2", "logger=none", "callbacks.samples=null",
        "allow_targets=[sabotage]",
    ]  # fmt: skip
    outcome = run_program(
        "train.py", *arguments, *broken, cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "tests" / "extensions")}
    )
    assert outcome.returncode == 0, outcome.said
    difference = np.abs(losses(only_run(tmp_path)) / losses(smoke_run) - 1).max()
    assert difference > 100 * 1e-4


def test_a_run_that_fails_says_so_once_and_ends_with_1(tmp_path: Path):
    arguments = ("experiment=smoke", "trainer.devices=1", "logger=none", "callbacks.samples=null")
    outcome = run_program(
        "train.py", *arguments, "callbacks.broken._target_=sabotage.Raises", "allow_targets=[sabotage]",
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "tests" / "extensions")},
    )  # fmt: skip
    assert outcome.returncode == 1
    assert outcome.said.count("Traceback") == 1
    assert "training failed at step 3" in outcome.said
    record = json.loads((only_run(tmp_path) / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["exit_code"] == 1
    assert len(rows(only_run(tmp_path))) == 3


def test_ranks_draw_different_things_that_together_are_one_devices():
    images = Digits().read().train

    def drawn(rank: int, world_size: int) -> list[torch.Tensor]:
        batches = MicroBatches(
            len(images), batch_size=64, seed=0, rank=rank, world_size=world_size, accumulation=1
        )
        batch = read(images, batches[7])
        u = Stream(0, Purpose.TIMESTEP).uniform(batch.step, batch.indices)
        eps = Stream(0, Purpose.NOISE).normal(batch.step, batch.indices, (1, 8, 8))
        return [batch.x_0, Uniform().draw(u, linear()), eps]

    whole, first, second = drawn(0, 1), drawn(0, 2), drawn(1, 2)
    for one, a, b in zip(whole, first, second, strict=True):
        assert torch.equal(one, torch.cat([a, b]))
        assert not torch.equal(a, b)


@pytest.mark.slow
def test_importance_weights_are_those_of_the_global_batch_on_every_device(tmp_path: Path):
    """A chain so short that its timesteps are drawn by importance after a few steps of the run."""
    arguments = (
        "experiment=smoke", "timesteps=importance", "schedule=cosine", "schedule.num_timesteps=10",
        "callbacks.samples=null", "logger=none",
    )  # fmt: skip
    runs = []
    for devices in (1, 2):
        directory = tmp_path / str(devices)
        outcome = run_program(
            "train.py", *arguments, f"trainer.devices={devices}", f"hydra.run.dir={directory}", cwd=tmp_path
        )
        assert outcome.returncode == 0, outcome.said
        runs.append(directory)
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), rtol=1e-4)
    one, two = (find(directory)[1]["timesteps"] for directory in runs)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)
    assert bool((one["counts"] >= 10).all()), "no timestep was drawn by importance"


@pytest.mark.long
def test_four_devices_as_typed(tmp_path: Path):
    outcome = run_program(
        "train.py", "schedule=cosine", "trainer.devices=4", "experiment=smoke", cwd=tmp_path
    )
    assert outcome.returncode == 0, outcome.said
    directory = only_run(tmp_path)
    assert json.loads((directory / "run.json").read_text())["devices"]["number"] == 4
    assert len(rows(directory)) == 20
    assert "cosine" in directory.name
    # of more than two devices the order of a sum decides about rounding
    first = run_program(
        *("train.py", "schedule=cosine", "trainer.devices=4", "experiment=smoke", "trainer.max_steps=3"),
        "hydra.run.dir=first",
        cwd=tmp_path,
    )
    second = run_program(
        "train.py", "ckpt=first", "trainer.max_steps=20", "hydra.run.dir=second", cwd=tmp_path
    )
    assert first.returncode == second.returncode == 0, second.said
    whole, rest = (find(path)[1]["state_dict"] for path in (directory, tmp_path / "second"))
    assert all(torch.equal(value, rest[name]) for name, value in whole.items())


@pytest.mark.slow
def test_a_run_of_11_steps_continued_to_20_is_the_run_of_20(smoke_run: Path, tmp_path: Path):
    smoke = ("experiment=smoke", "trainer.devices=1", "hydra.run.dir=first")
    outcome = run_program("train.py", *smoke, "trainer.max_steps=11", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    again = ("--config-dir", "first", "--config-name", "config", "ckpt=first", "trainer.max_steps=20")
    outcome = run_program("train.py", *again, "hydra.run.dir=second", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    whole, rest = find(smoke_run)[1], find(tmp_path / "second")[1]
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, rest["state_dict"][name])
        assert torch.equal(
            whole["ema"]["parameters"][name.removeprefix("network.")],
            rest["ema"]["parameters"][name.removeprefix("network.")],
        )
    for index, state in whole["optimizer_states"][0]["state"].items():
        for key, value in state.items():
            assert torch.equal(value, rest["optimizer_states"][0]["state"][index][key])
    timeless = [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows(smoke_run)]
    assert [
        {k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows(tmp_path / "second")
    ] == timeless
    first, second = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("first", "second"))
    assert first["wandb_id"] == second["wandb_id"]
    assert second["continued_from"].endswith("first/checkpoints/last.ckpt")


@pytest.mark.slow
def test_a_finished_run_goes_on_with_what_is_typed_beside_it(smoke_run: Path, tmp_path: Path):
    """By the long form, which is the more so as `--config-dir` brings a whole configuration of its own."""
    arguments = (
        "--config-dir", str(smoke_run), "--config-name", "config", f"ckpt={smoke_run}", "logger=none",
        "strategy=ddp", "sampler=ddim", "sampler.num_steps=2", "trainer.max_steps=22",
        "lr_schedule=cosine", "hydra.run.dir=on 图",
    )  # fmt: skip
    outcome = run_program("train.py", *arguments, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    directory = tmp_path / "on 图"
    assert [row["step"] for row in rows(directory)] == [str(step) for step in range(1, 23)]
    assert not (directory / "wandb").exists()
    config = find(directory)[1]["config"]
    assert config["strategy"]["_target_"].endswith("DDPStrategy")
    assert config["sampler"]["num_steps"] == 2
    # a schedule that is typed begins here, over the steps that are left
    assert config["lr_schedule"]["total_steps"] == 2
    assert config["model"] == find(smoke_run)[1]["config"]["model"]
    rates = [float(row["train/learning_rate"]) for row in rows(directory)[19:]]
    assert rates == pytest.approx([2e-3, 2e-3, 1e-3])


@pytest.mark.slow
def test_a_sweep_leaves_two_runs_of_one_group(smoke_run: Path, tmp_path: Path):
    outcome = run_program("train.py", "-m", "schedule=linear,cosine", "experiment=smoke", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    table = outcome.said[outcome.said.index("2 of 2 jobs finished") :].splitlines()[1:4]
    columns = [re.split(r"\s{2,}", line) for line in table]
    assert [row[1] for row in columns] == ["schedule", "linear", "cosine"], "the better one first"
    (sweep,) = (tmp_path / "logs/train/multirun").iterdir()
    jobs = [sweep / "0", sweep / "1"]
    np.testing.assert_array_equal(losses(jobs[0]), losses(smoke_run))
    assert not np.allclose(losses(jobs[1]), losses(jobs[0]))
    runs = []
    for job in jobs:
        assert {path.name for path in job.iterdir()} | {"figures"} == {
            path.name for path in smoke_run.iterdir()
        }
        assert json.loads((job / "run.json").read_text())["status"] == "finished"
        runs += wandb_records(job, "run")
        value = json.loads((job / "run.json").read_text())["objective"]
        assert float(columns[1 + jobs.index(job)][4]) == pytest.approx(value, rel=1e-4)
    assert {run["run_group"] for run in runs} == {sweep.name}
    assert [run["display_name"] for run in runs] == ["schedule=linear", "schedule=cosine"]
    assert len({run["run_id"] for run in runs}) == 2


@pytest.mark.slow
def test_a_sweep_over_devices_starts_real_processes(smoke_run: Path, tmp_path: Path):
    arguments = ["-m", "trainer.devices=1,2", "trainer.accelerator=cpu", "experiment=smoke"]
    outcome = run_program("train.py", *arguments, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    (sweep,) = (tmp_path / "logs/train/multirun").iterdir()
    for job, devices in ((sweep / "0", 1), (sweep / "1", 2)):
        assert json.loads((job / "run.json").read_text())["devices"]["number"] == devices
        np.testing.assert_allclose(losses(job), losses(smoke_run), rtol=1e-4)


def test_sampling_writes_pictures_and_says_where(smoke_run: Path, tmp_path: Path):
    arguments = (f"ckpt={smoke_run}", "n=10", "seed=3", "sampler=ddim", "sampler.num_steps=4")
    outcome = run_program("sample.py", *arguments, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    directory = Path(outcome.stdout.strip())
    images = np.load(directory / "samples.npz")["arr_0"]
    assert images.shape == (10, 8, 8, 1)
    assert images.dtype == np.uint8
    assert Image.open(directory / "grid.png").size == (2 + 4 * 66, 2 + 3 * 66)


def test_a_loaded_run_samples_what_the_program_samples(smoke_run: Path, tmp_path: Path):
    import ddpm
    from ddpm.diffusion.samplers import DDIM
    from ddpm.sampling.figures import to_uint8

    run = ddpm.load(smoke_run)
    assert run.step == 20
    few = to_uint8(run.sample(3, seed=3, sampler=DDIM(4)))
    arguments = (
        "n=5",
        "seed=3",
        "sampler=ddim",
        "sampler.num_steps=4",
        "weights=ema",
        f"out={tmp_path}/here",
    )
    outcome = run_program("sample.py", f"ckpt={smoke_run}", *arguments, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    many = np.load(tmp_path / "here" / "samples.npz")["arr_0"]
    assert np.abs(many[:3].astype(int) - few.permute(0, 2, 3, 1).numpy().astype(int)).max() <= 1
    raw = to_uint8(run.sample(3, seed=3, sampler=DDIM(4), weights="raw"))
    assert not torch.equal(raw, few)


@pytest.mark.slow
def test_a_new_run_starts_from_the_averaged_weights_of_another(smoke_run: Path, tmp_path: Path):
    still = (
        "experiment=smoke",
        "optimizer.lr=1e-12",
        "trainer.max_steps=1",
        "logger=none",
        "callbacks.samples=null",
    )
    outcome = run_program("train.py", *still, f"init={smoke_run}", "hydra.run.dir=new", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.said
    theirs, ours = find(smoke_run)[1], find(tmp_path / "new")[1]
    assert ours["global_step"] == ours["ema"]["num_updates"] == 1
    for name, average in theirs["ema"]["parameters"].items():
        torch.testing.assert_close(ours["state_dict"][f"network.{name}"], average, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_torchrun_starts_one_run(smoke_run: Path, tmp_path: Path):
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, str(ROOT / "train.py"), "experiment=smoke", "logger=none"]
    process = subprocess.run(
        [*command, "trainer.devices=2", "trainer.accelerator=cpu"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    np.testing.assert_allclose(losses(only_run(tmp_path)), losses(smoke_run), rtol=1e-4)
    assert process.stdout.count("finished at step 20") == 1


def test_help_names_every_group_and_imports_nothing_heavy(tmp_path: Path):
    outcome = run_program("train.py", "--help", cwd=tmp_path, python=("-X", "importtime"))
    assert outcome.returncode == 0
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert groups <= set(re.findall(r"^(\w+): ", outcome.stdout, re.MULTILINE))
    imported = {line.rpartition("|")[2].strip() for line in outcome.stderr.splitlines()}
    assert not {"torch", "lightning", "wandb", "sklearn", "numpy"} & imported
