"""The check before anything is built: each mistake is one message that names the key and the way out."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, accepted, run_here

FAST = {
    "trainer.device=4": r"trainer\.device: there is no such key; did you mean trainer\.devices\?",
    "schedule=cosin": r"schedule=cosin: there is no such option; did you mean cosine\?",
    "+trianer.devices=4": r"trianer: there is no such key; did you mean trainer\?",
    "trainer.devices=abc": r"trainer\.devices=abc: must be a number of devices",
    "experiment=misspelt": r"ema\.decai: there is no such key; did you mean ema\.decay\?",
    "data=folder": r"data\.path is missing: give it as data\.path=VALUE",
    "model.chanels=64": r"model\.chanels: there is no such key; did you mean model\.channels\?",
    "schedul=linear": r"schedul: there is no such key; did you mean schedule\?",
    "trainer.max_steps=many": r"trainer\.max_steps=many: must be a whole number",
    "timeout=0": r"timeout=0: must be above 0 seconds",
    "timeout=-1": r"timeout=-1: must be above 0 seconds",
    "trainer.max_steps=0": r"trainer\.max_steps=0: must be at least 1",
    "trainer.accumulate_grad_batches=0": r"accumulate_grad_batches=0: must be at least 1",
    "data.micro_batch=0": r"data\.micro_batch=0: must be at least 1",
    "data.micro_batch=all": r"data\.micro_batch=all: must be a whole number or auto or null",
    "trainer.precision=16": r"trainer\.precision=16: must be auto or 32-true or bf16-mixed or 16-mixed",
    "model.compile=maybe": r"model\.compile=maybe: must be true or false",
    "model.cuda_graphs=auto": r"model\.cuda_graphs=auto: must be true or false",
    "model.chanels_last=true": r"model\.chanels_last: .* did you mean model\.channels_last\?",
    "preflight=maybe": r"preflight=maybe: must be true or false",
    "trainer.devices=--1": r"trainer\.devices=--1: must be a number of devices",
    "seed=-1": r"seed=-1: must be at least 0",
    "on_nonfinite=undo": r"on_nonfinite=undo: must be stop or skip or rollback",
    "on_nonfinite=rollback callbacks.checkpoints=null": r"on_nonfinite=rollback: .* callbacks\.checkpoints",
    "seed=9223372036854775808": r"seed=9223372036854775808: must be .* below 2\*\*63",
    "trainer.gradient_clip_val=99999999999999999999": r"clip_val=9{20}: must be .* below 2\*\*63",
    "~seed": r"seed: cannot be left out; give it as seed=VALUE",
    "~trainer.precision": r"trainer\.precision: cannot be left out",
    "schedule._partial_=true": r"schedule\._partial_: is for what waits for an argument",
    "callbacks.sample=null": r"there is no sample to turn off; did you mean callbacks\.samples\?",
    "logger.wandbb=null": r"did you mean logger\.wandb\?",
    "seed=abc": r"seed=abc: must be a whole number",
    "clip_x_0=maybe": r"clip_x_0=maybe: must be true or false or a number",
    "clip_x_0=0": r"clip_x_0=0: must be true, false or above 0",
    "model=null": r"model: cannot be left out; choose one of model=OPTION",
    "hydra.run.dir=${nowhere}": r"nowhere",
    "experiment=broken": r"broken\.yaml, line 2: is no yaml: ",
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
    "schedule.num_timesteps=[": r"schedule\.num_timesteps=\[: must be a whole number",
    # groups set to null, to numbers, to lists
    "timesteps=200": r"timesteps=200: there is no such option; .*schedule\.num_timesteps",
    "schedule=null": r"schedule: cannot be left out; choose one of schedule=OPTION",
    "optimizer=null": r"optimizer: cannot be left out; choose one of optimizer=OPTION",
    "~schedule": r"schedule: cannot be left out",
    "schedule=1000": r"schedule=1000: there is no such option; there are constant, cosine",
    "ema=0.99": r"ema=0\.99: there is no such option; there are exponential, fast, none",
    "debug=true": r"debug=true: there is no such option; there are default, fdr",
    "sampler=mine": r"sampler=mine: there is no such option; [^;]*$",
    "recipe=cifra10": r"recipe=cifra10: there is no such option; did you mean cifar10\?",
    "logger=[null]": r"logger=\[null\]: there is no such option; there are csv",
    "callbacks=[default,bes]": r"callbacks=bes: there is no such option; did you mean best\?",
    "data=[digits,mnist]": r"data=\[digits,mnist\]: takes one option",
    "recipe=null": r"recipe: cannot be left out; choose one of recipe=OPTION",
    "recipe=[]": r"recipe=\[\]: takes one option",
    "recipe=[a]": r"recipe=\[a\]: takes one option",
    "strategy.nosuch=1": r"strategy\.nosuch: what is chosen for strategy takes no keys; .* strategy=ddp",
    "strategy=ddp strategy=null strategy.nosuch=1": r"strategy\.nosuch: what is chosen for strategy takes no",
    "strategy=fsdp trainer.precision=16-mixed": r"trainer\.precision=16-mixed: strategy=fsdp .*bf16-mixed",
    "strategy=fsdp trainer.accelerator=mps": r"trainer\.accelerator=mps: strategy=fsdp .* strategy=auto",
    "strategy=fsdp trainer.sync_batchnorm=true": r"trainer\.sync_batchnorm=true: strategy=fsdp",
    "strategy=fsdp model.compile=true": r"model\.compile=true: strategy=fsdp does not compile",
    "strategy=fsdp model.cuda_graphs=true": r"model\.cuda_graphs=true: strategy=fsdp does not compile",
    "strategy=fsdp model.channels_last=true": r"model\.channels_last=true: strategy=fsdp",
    "strategy=fsdp optimizer=adafactor": r"torch\.optim\.Adafactor: strategy=fsdp .*=adamw",
    "strategy=fsdp weighting=uncertainty": r"weighting\.Uncertainty: strategy=fsdp .*=ddp",
    "strategy=fsdp strategy.nosuch=1": r"strategy\.nosuch",
    "checkpoint=sharded": "checkpoint=sharded: is for strategy=fsdp",
    "checkpoint=sharded strategy=fsdp logger.wandb.log_model=all": r"logger\.wandb\.log_model=all: .*=whole",
    "checkpoint=sharded strategy=ddp trainer.devices=2": "use checkpoint=whole",
    "checkpoint=logs/run strategy=fsdp": "must be whole or sharded, what is written; ckpt= names one",
    "hydra/launcher=null": r"hydra/launcher=null: cannot be left out",
    "--config-name nosuch": r"--config-name nosuch: there is no nosuch\.yaml in .*--config-name config",
    "~": r"~: must be KEY=VALUE",
    "seed\uff1d3": r"seed\uff1d3: \uff1d \(U\+FF1D\) is no =, type seed=3$",
    "experiment=circle": r"an option leads back to itself",
    "experiment=lost_package": r"experiment: .* begins with the line # @package _global_",
    "tags.x=1": r"tags\.x=1: cannot be composed",
    # keys that are called otherwise here, or stand elsewhere
    "steps=100": r"steps: there is no such key; did you mean trainer\.max_steps or ",
    "T=500": r"T: there is no such key; did you mean schedule\.num_timesteps\?",
    "data.path=pictures": r"data\.path: this data has no such key; .* is data=folder data\.path=PATH",
    "data=/tmp/cats": r"data=/tmp/cats: names a path, .* is data=folder data\.path=/tmp/cats",
    "num_timesteps=200": r"num_timesteps: there is no such key; did you mean schedule\.num_timesteps\?",
    "lr=1e-3": r"lr: there is no such key; did you mean optimizer\.lr\?",
    "learning_rate=1e-3": r"learning_rate: there is no such key; did you mean optimizer\.lr\?",
    "epochs=3": r"epochs: there is no such key; did you mean trainer\.max_steps\?",
    "gpus=4": r"gpus: there is no such key; did you mean trainer\.devices\?",
    "project=mine": r"project: there is no such key; did you mean logger\.wandb\.project\?",
    "every_n_steps=5": r"did you mean callbacks\.checkpoints\.every_n_steps or callbacks\.diagnostics\.every",
    "task_name=x": r"task_name: there is no such key; valid here: allow_targets, callbacks",
    "trainer.max_epochs=3": r"trainer\.max_epochs: training counts steps.*give trainer\.max_steps=N",
    "trainer.check_val_every_n_epoch=1": r"give trainer\.val_check_interval=N",
    "trainer.strategy=ddp": r"trainer\.strategy: is a group of its own: strategy=OPTION",
    "trainer.enable_checkpointing=false": r"callbacks\.checkpoints=null writes no checkpoints",
    # names of before
    "ema_decay=0.9": r"ema_decay: is now ema\.decay",
    "optimizer.warmup_steps=5": r"optimizer\.warmup_steps: is now lr_schedule\.warmup_steps",
    "logger.mode=online": r"logger\.mode: is now logger\.wandb\.mode",
    "logger.entity=team": r"logger\.entity: is now logger\.wandb\.entity",
    # loggers that are off
    "logger=none logger.wandb.entity=team": r"logger\.wandb: is off; logger=wandb turns it on",
    "logger.tensorboard.name=x": r"logger\.tensorboard: is off; logger=tensorboard turns it on",
    "logger=csv logger.wandb.mode=online": r"logger\.wandb: is off",
    "callbacks=none callbacks.samples.n=3": r"callbacks\.samples: is off; callbacks=plain turns it on",
    # words with dashes, as a W&B agent gives them
    "--experiment=smoke": r"--experiment=smoke: keys are typed without dashes: experiment=smoke.*args_no",
    "--optimizer.lr=1e-3": r"keys are typed without dashes: optimizer\.lr=1e-3",
    "-lr=1": r"-lr=1: keys are typed without dashes: lr=1",
    "--config_dir=x": r"--config_dir=x: there is no such flag; did you mean --config-dir\?",
    "-config-dir x": r"-config-dir: there is no such flag; did you mean --config-dir\?",
    "--max-steps 3": r"--max-steps: there is no such flag; keys are typed without dashes, as max_steps=VALUE",
    "--lr 1": r"--lr: there is no such flag; keys are typed without dashes, as lr=VALUE",
    "--config-path conf": r"--config-path conf: .*--config-dir DIR",
    "--cfg everything": r"--cfg.*invalid choice: 'everything'",
    "smoke": r"smoke: must be KEY=VALUE or GROUP=OPTION",
    "=3": r"=3: must be KEY=VALUE",
    # kinds of values
    "conditional=yes": r"conditional=yes: must be true or false",
    "conditional=1": r"conditional=1: must be true or false",
    "trainer.max_steps=2.5": r"trainer\.max_steps=2\.5: must be a whole number",
    "model.multipliers=3": r"model\.multipliers=3: must be a list \[...\] of numbers",
    "model.multipliers=[1,x]": r"model\.multipliers=\[1, 'x'\]: must be a list",
    "sampler=ddim sampler.eta=much": r"sampler\.eta=much: must be a number",
    "sampler=ddim sampler.eta=null": r"sampler\.eta=null: must be a number",
    "callbacks.samples.final=maybe": r"callbacks\.samples\.final=maybe: must be true or false or auto",
    "tags=a": r"tags=a: must be a list",
    "trainer.min_steps=30 trainer.max_steps=10": r"trainer\.min_steps=30: must be at most .*max_steps=10",
    "init=nowhere": r"init=.*nowhere: there is no such run directory",
    "data=folder data.path=/nope": r"data\.path=/nope: there is no such folder",
    "data=npz data.path=/nope/图.npz": r"data\.path=/nope/图\.npz: there is no such file or folder",
    "data=arrays data.path=/nope": r"data\.path=/nope: there is no such file or folder",
    "ckpt=a init=b": r"ckpt and init: give one",
    "ckpt=nowhere": r"ckpt=.*nowhere: there is no such run directory",
    "allow_targets=3": r"allow_targets=3: must be a list of packages",
    "trainer.profiler=fast": r"trainer\.profiler=fast: must be null or simple or advanced or pytorch",
    # numbers out of range, or none
    "optimizer.lr=nan": r"optimizer\.lr=nan: must be a finite number",
    "sampler=ddim sampler.eta=inf": r"sampler\.eta=inf: must be a finite number",
    "ema.decay=nan": r"ema\.decay=nan: must be a finite number",
    "callbacks.x={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:a,min_delta:nan}": (
        r"callbacks\.x\.min_delta=nan: must be a finite number"
    ),
    "trainer.gradient_clip_val=-1": r"trainer\.gradient_clip_val=-1: must be at least 0",
    "trainer.limit_train_batches=0": r"trainer\.limit_train_batches=0: would train on nothing",
    "trainer.limit_train_batches=1.5": r"trainer\.limit_train_batches=1\.5: must be a number of batches",
    "trainer.overfit_batches=-1": r"trainer\.overfit_batches=-1: must be a number of batches",
    "trainer.limit_val_batches=true": r"trainer\.limit_val_batches=True: must be a number of batches",
    "trainer.fast_dev_run=-1": r"trainer\.fast_dev_run=-1: must be true, false, or a number of steps",
    "trainer.max_time=5": r"trainer\.max_time=5: must be DD:HH:MM:SS, such as",
    "trainer.max_time=5m": r"trainer\.max_time=5m: must be DD:HH:MM:SS, such as",
    "trainer.max_time={sec:5}": r"trainer\.max_time=.*: must be .*\{hours: 8\}",
    "trainer.profiler=simpel": r"trainer\.profiler=simpel: must be null or simple",
    "trainer.profiler._target_=os.system": r"os\.system: is not in an allowed package",
    "callbacks.x={_target_:mine.X,name:t-{step}}": r"must be callbacks\.x\._target_=CLASS.*quotes",
    "optimizer={_target_:torch.optim.NAdam}": r"there is no such option; .*optimizer\._target_=CLASS",
    "lr_schedule._target_=torch.optim.lr_scheduler.SequentialLR "
    "lr_schedule.schedulers=[{_target_:torch.optim.lr_scheduler.LinearLR}]": (
        r"lr_schedule\.schedulers: schedules within a schedule .* allow_targets"
    ),
    "schedule.num_timesteps=-1": r"schedule\.num_timesteps=-1: must be at least 1",
    "schedule=cosine schedule.max_beta=2": r"schedule\.max_beta=2: must be between 0 and 1",
    "model.blocks=0": r"model\.blocks=0: must be at least 1",
    "model.norm_groups=-2": r"model\.norm_groups=-2: must be at least 1",
    "recipe=pictures model=dit_s model.depth=-1": r"model\.depth=-1: must be at least 1",
    # paths
    "hydra.run.dir=": r"hydra\.run\.dir=: names no path",
    "ckpt=": r"ckpt=: names no path",
    "hydra.sweeper.params={seed:3}": r"hydra\.sweeper\.params.*cannot be composed",
    "experiment=lost": r"callbacks\.sampels: there is no such key; did you mean callbacks\.samples\?",
    "callbacks=none experiment=lost": r"callbacks\.sampels: there is no such key",
}
HEAVY = {
    "callbacks.x._target_=lightning.pytorch.callbacks.StochasticWeightAveraging callbacks.x.swa_lrs=0.1": (
        r"callbacks\.x: StochasticWeightAveraging replaces the weights .* use ema=exponential"
    ),
    "callbacks.x._target_=lightning.pytorch.callbacks.BatchSizeFinder": r"Finder .* data\.batch_size",
    "callbacks.x._target_=lightning.pytorch.callbacks.BackboneFinetuning": r"callbacks\.x: .* init=RUN_DIR",
    "callbacks.x._target_=lightning.pytorch.callbacks.ModelPruning callbacks.x.pruning_fn=l1_unstructured": (
        r"callbacks\.x: ModelPruning prunes when an epoch ends"
    ),
    "callbacks.x={_target_:lightning.pytorch.callbacks.ModelCheckpoint,train_time_interval:{hours:1}}": (
        r"train_time_interval=.*: must be null or \{_target_: datetime\.timedelta, hours: 1\}"
    ),
    "callbacks=[default,best] trainer.limit_val_batches=0": (
        r"callbacks: ModelCheckpoint watches val/loss, and nothing is validated here; raise trainer\."
    ),
    "trainer.profiler._target_=lightning.pytorch.callbacks.Timer": r"Timer: is not in an allowed package",
    "optimizer._target_=torch.optim.LBFGS": r"optimizer: LBFGS needs",
    "lr_schedule._target_=torch.optim.lr_scheduler.OneCycleLR lr_schedule.max_lr=0.01 "
    "lr_schedule.total_steps=4": (r"lr_schedule: OneCycleLR ends after 4 steps, and trainer\.max_steps="),
    "optimizer._target_=torch.optim.Muon": r"optimizer: Muon needs matrices.*use another",
    "data=folder data.path=nowhere": r"data\.path=.*nowhere: there is no such folder",
    "data=folder data.path=empty": r"data\.path=.*empty: it holds no files",
    "data.batch_size=63 trainer.devices=2": r"data\.batch_size=63 .* use 62 or 64",
    "data.batch_size=0": r"data\.batch_size=0 must be at least 1",
    "model.multipliers=[1,1,1,1,1]": r"data\.image_size: images of 8x8 .* 16 divides",
    "model.norm_groups=7": r"norm_groups=7 does not divide",
    "schedule.num_timesteps=20": r"schedule\.num_timesteps=20: the last beta would be 1",
    "optimizer.lr=-1": r"optimizer\.lr=-1 must be above 0",
    "lr_schedule=warmup lr_schedule.warmup_steps=few": r"lr_schedule.warmup_steps=few: must be a whole",
    "sampler=ddim sampler.num_steps=5000": r"sampler\.num_steps=5000",
    "callbacks.samples.sampler.num_steps=5000": r"callbacks\.samples\.sampler\.num_steps=5000",
    "callbacks.x._target_=torch.nn.ReLU": r"callbacks\.x: torch\.nn\.ReLU is no Lightning callback",
    "schedule.zero_terminal_snr=true": r"objective: Epsilon .* zero SNR; use objective=v",
    "strategy=ddp_static trainer.accumulate_grad_batches=2": r"accumulate_grad_batches: with strategy",
    "strategy=ddp_static data.micro_batch=auto": r"data\.micro_batch: with strategy\.static_graph=true",
    "data.micro_batch=auto trainer.accumulate_grad_batches=2": (
        r"data\.micro_batch=auto and trainer\.accumulate_grad_batches=2: the second follows from the first"
    ),
    "variance=learned_range": r"weighting: Simple does not train .* weighting=hybrid",
    "ema.decay=2": r"ema\.decay=2 must be at least 0 and below 1",
    "ema.decay=1": r"ema\.decay=1 must be at least 0 and below 1",
    "ema.decay=-0.1": r"ema\.decay=-0\.1 must be at least 0 and below 1",
    "data.label_drop=2": r"data\.label_drop=2 must be in \[0, 1\]",
    "data.label_drop=-1": r"data\.label_drop=-1 must be in \[0, 1\]",
    "data.device_share=2": r"data\.device_share=2 must be in \[0, 1\]",
    "data.num_workers=-1": r"data\.num_workers=-1 must be at least 0",
    "sampler=ddim sampler.eta=2": r"sampler\.eta=2 must lie between 0 .* and 1",
    "sampler=ddim sampler.num_steps=0": r"sampler\.num_steps=0: must be null or a whole number",
    "model.dropout=2": r"model: dropout probability has to be between 0 and 1, but got 2",
    "optimizer.lr=0": r"optimizer\.lr=0 must be above 0",
    "optimizer.lr=fast": r"optimizer\.lr=fast: must be a number",
    "optimizer.betas=0.9": r"optimizer\.betas=0\.9: must be a list",
    "optimizer.weight_decay=-1": r"optimizer: .*weight_decay.*-1",
    "lr_schedule=warmup lr_schedule.warmup_steps=-5": r"lr_schedule\.warmup_steps=-5 must be",
    "lr_schedule=one_cycle lr_schedule.warmup_fraction=1": r"lr_schedule\.warmup_fraction=1 must be",
    "lr_schedule=cosine lr_schedule.final_fraction=2": r"lr_schedule\.final_fraction=2 must be in \[0, 1\]",
    "schedule=jsd schedule.num_timesteps=1": r"schedule",
    "weighting=min_snr weighting.gamma=-1": r"weighting\.gamma=-1 must be",
    "callbacks.checkpoints.keep=-1": r"callbacks\.checkpoints.*keep=-1 must be",
    "callbacks.samples.n=0": r"callbacks\.samples\.n=0 must be at least 1",
    "trainer.max_time=soon": r"trainer\.max_time",
    "data=folder data.path=/nope/图片": r"data\.path=/nope/图片: there is no such folder",
    "data=folder data.path=~nobody-has-this-name/x": r"data\.path=.*~nobody-has-this-name/x: there is no",
    "callbacks.samples.every_n_steps=0": r"callbacks\.samples: every_n_steps",
    "callbacks.x._target_=lightning.pytorch.callbacks.timer.os.getcwd": r"cannot be imported",
    "callbacks.x._target_=lightning.pytorch.callbacks.timer.timedelta": r"is no public class or function",
    "callbacks.x._target_=lightning.pytorch.callbacks.Timer callbacks.x.durration=1": r"mean .*\.duration",
    "trainer.precision=16-mixed trainer.accelerator=cpu": r"trainer\.precision=16-mixed: is for GPUs",
    "trainer.accelerator=toaster": r"trainer: .*toaster",
    "ckpt=empty": r"ckpt=.*empty: holds no checkpoint",
}


def mistakes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    prepare: Callable[..., Any] | None = None,
) -> str:
    """What the program says when it refuses these arguments."""
    code = run_here(monkeypatch, "train", *arguments, prepare=prepare)
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
    (tmp_path / "own/experiment/lost.yaml").write_text(
        "# @package _global_\ncallbacks:\n  sampels:\n    n: 3\n"
    )
    (tmp_path / "own/experiment/broken.yaml").write_text("# @package _global_\n{[}\n")
    (tmp_path / "own/experiment/circle.yaml").write_text("# @package _global_\ndefaults: [circle]\n")
    (tmp_path / "own/experiment/lost_package.yaml").write_text("seed: 3\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", FAST)
def test_what_composing_can_tell(
    arguments: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, ["--config-dir", "own", *arguments.split()], accepted)
    assert re.search(FAST[arguments], said), said
    assert not (place / "logs").exists()


@pytest.mark.e2e
@pytest.mark.parametrize("arguments", HEAVY)
def test_what_building_can_tell(
    arguments: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, ["experiment=smoke", "trainer.accelerator=cpu", *arguments.split()])
    assert re.search(HEAVY[arguments], said), said
    assert not (place / "logs").exists()


SWEEPS = {
    "-m schedule=linear,cosin": r"schedule=cosin: there is no such option",
    "-m schedule=linear,cosine trainer.device=1,2": r"did you mean trainer\.devices\?",
    "-m trainer.devices=1,3,2": r"trainer\.devices=3: does not divide data\.batch_size=128.*=126 or 129",
    "-m trainer.devices=[0,1],[0,1,2]": r"trainer\.devices=\[0, 1, 2\]: does not divide data\.batch_size=128",
    "-m data.batch_size=64,65 trainer.devices=2": r"trainer\.devices=2: does not divide data\.batch_size=65",
    "-m data.batch_size=10,7 trainer.accumulate_grad_batches=5": (
        r"trainer\.accumulate_grad_batches=5: does not divide data\.batch_size=7"
    ),
    "-m seed=1,x": r"seed=x: must be a whole number",
    "-m optimizer.lr=1e-3,nan": r"optimizer\.lr=nan: must be a finite number",
    "-m optimizer.lr=interval(1,2)": r"optimizer\.lr=interval\(1,2\): an interval is for a search",
    "-m schedule=null,linear": r"schedule=null,linear: a sweep cannot leave schedule out",
    "-m data=folder data.image_size=8,16": r"data\.path is missing",
    "-m schedule=glob(x*)": r"schedule=glob\(x\*\): no option is called so; there are constant, cosine",
    "-m recipe=digits,cifra10": r"recipe=cifra10: there is no such option; did you mean cifar10\?",
    "-m preflight=true": r"preflight=true: looks at one run; leave -m out",
    "-m hydra/launcher=jolib seed=1,2": r"hydra/launcher=jolib: there is no such option; did you mean joblib",
}
"""Told before the first job, whichever job it is about."""


@pytest.mark.e2e
@pytest.mark.parametrize("arguments", SWEEPS)
def test_a_sweep_is_checked_before_its_first_job(
    arguments: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, arguments.split(), accepted)
    assert re.search(SWEEPS[arguments], said), said
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
    words = ["experiment=smoke", f"hydra.run.dir={smoke_run}"]
    before = (smoke_run / "run.json").read_bytes()
    said = mistakes(monkeypatch, capsys, [*words, "resume=never"])
    assert "holds a run already, and resume=never" in said
    said = mistakes(monkeypatch, capsys, [*words, "seed=1", "optimizer.lr=1e-4"])
    assert (
        "holds another run: seed is 1 here and 0 there, optimizer.lr is 0.0001 here and 0.002 there" in said
    )
    assert (smoke_run / "run.json").read_bytes() == before
    assert not (smoke_run / ".lock").exists()


QUICK = (
    "schedule=cosin",
    "trainer.device=4",
    "trainer.max_steps=many",
    "sampler=ddim sampler.eta=much",
    "--experiment=smoke",
    "schedule=null",
    "-m schedule=linear,cosin",
    "-m trainer.devices=1,3,2",
    "ckpt=nowhere",
    "data=folder data.path=/nope",
)
"""A mistake of each kind: an option, a key, a type of the trainer's and of a constructor's, dashes, a group
set to null, a bad value of a sweep, a batch that a later job cannot share.
"""


@pytest.mark.e2e
@pytest.mark.parametrize("arguments", QUICK)
def test_what_composing_can_tell_is_told_without_torch(arguments: str, place: Path):
    """As typed: another process, exit code 2, no directory, and nothing heavy was imported on the way."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), *arguments.split()]
    process = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
    assert process.returncode == 2
    message = [line for line in process.stderr.splitlines() if not line.startswith("import time:")]
    assert len(message) == 1, message
    assert re.search({**FAST, **SWEEPS}[arguments], message[0])
    assert process.stdout == ""
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines() if "|" in line}
    assert not {"torch", "lightning", "wandb", "sklearn", "numpy"} & imported
    assert not (place / "logs").exists()


@pytest.mark.e2e
def test_what_only_an_optimizer_knows_is_told_before_the_program_is_imported(place: Path):
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "optimizer.lr=abc"]
    process = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
    assert process.returncode == 2
    assert "error: optimizer.lr=abc: must be a number" in process.stderr
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines() if "|" in line}
    assert not {"lightning", "wandb", "sklearn"} & imported


@pytest.mark.e2e
def test_a_traceback_is_shown_on_demand(place: Path):
    script = ROOT / "train.py"
    process = subprocess.run(
        [sys.executable, str(script), "schedule=cosin"],
        cwd=place,
        capture_output=True,
        text=True,
        env={"HYDRA_FULL_ERROR": "1", "PATH": ""},
        timeout=300,
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
    monkeypatch.setattr("ddpm.app.refusal.STAYS", 0.0)
    said = mistakes(monkeypatch, capsys, ["experiment=smoke", f"hydra.run.dir={smoke_run}", "seed=2"])
    assert "holds another run: seed is 2 here and 0 there" in said


def test_a_trainer_that_was_not_told_of_all_processes_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for name, value in {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")  # so that Lightning's own check of SLURM stays out
    said = mistakes(monkeypatch, capsys, ["experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=1"])
    assert "trainer.devices: 4 processes were started" in said


def test_an_option_of_ones_own_without_its_folder_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, ["sampler=mine"], accepted)
    assert said.rstrip().endswith("options of your own need --config-dir DIR")


@pytest.mark.parametrize("program", ["train", "sample", "evaluate"])
def test_a_sweep_without_a_job_names_its_jobs(
    program: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for job in range(11):
        (place / "sweep" / str(job)).mkdir(parents=True)
        (place / "sweep" / str(job) / "run.json").write_text("{}")
    (place / "sweep" / "sweep.json").write_text("{}")
    assert run_here(monkeypatch, program, "ckpt=sweep", prepare=accepted) == 2
    said = capsys.readouterr().err
    named = ", ".join(f"ckpt={place}/sweep/{job}" for job in (0, 1, 2))
    assert f"ckpt={place}/sweep: is a sweep of 11 jobs; name one: {named}, ... ckpt={place}/sweep/10" in said
    assert (f"train.py -m ckpt={place}/sweep goes on with the sweep" in said) == (program == "train")


def test_a_run_without_a_checkpoint_is_none_to_go_on_from(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    (place / "empty" / "checkpoints").mkdir(parents=True)
    said = mistakes(monkeypatch, capsys, ["experiment=smoke", "ckpt=empty"])
    assert "empty: holds no checkpoint" in said


@pytest.mark.parametrize("word", ["always", "true", "null", "[auto]"])
def test_resume_is_one_of_two_words(
    word: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    said = mistakes(monkeypatch, capsys, [f"resume={word}"], accepted)
    assert "resume" in said
    assert "auto or never" in said
