"""Sharded training: the same arithmetic and the same files as any other, in a group of one process."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sharded
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from models import make_module, small_unet
from torch import Tensor, nn
from torch.optim import SGD, Adafactor, Adam, Rprop
from torch.utils.data import DataLoader

from ddpm.diffusion.schedules import linear
from ddpm.networks.dit import DiT
from ddpm.training.callbacks.scalars import TrainingRows
from ddpm.training.checkpoints import AtomicCheckpointIO, CheckpointError, load, parts
from ddpm.training.ema import EMA
from ddpm.training.ending import TrainingError
from ddpm.training.module import DDPM
from ddpm.training.sharding import FullySharded, blocks, shard
from ddpm.training.shards import are_shards

IMAGES = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def batches(size: int = 4) -> DataLoader[Tensor]:
    """Of the same images each, as Lightning begins anew with them where a training goes on."""
    return DataLoader([*IMAGES[:size]] * 6, batch_size=size)


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    """A group of this process alone, and nothing of it afterwards."""
    before = dict(os.environ)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


def trainer(directory: Path, *callbacks: Any, strategy: Any = "auto", **settings: Any) -> Trainer:
    settings = {"max_steps": 4, "plugins": [AtomicCheckpointIO()], **settings}
    return Trainer(
        accelerator="cpu", devices=1, strategy=strategy, default_root_dir=directory, logger=False,
        callbacks=[TrainingRows(), *callbacks], gradient_clip_val=1.0, log_every_n_steps=1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, val_check_interval=2, use_distributed_sampler=False, **settings,
    )  # fmt: skip


def alive() -> DDPM:
    """A module without gradients of nothing but rounding, which Adam would make as large as any."""
    module = make_module()
    module.optimizer = partial(Adam, lr=2e-3, eps=1e-3, fused=True)
    for parameter in module.network.parameters():
        nn.init.normal_(parameter, std=0.1)
    module.ema.reset()
    return module


def fit(
    directory: Path, *, sharded: bool, ckpt: Path | None = None, checkpoint: str = "whole", **settings: Any
) -> tuple[DDPM, Path]:
    """A training of four steps, and its checkpoint."""
    directory.mkdir(exist_ok=True)
    module = alive()
    made = trainer(directory, strategy=FullySharded(checkpoint) if sharded else "auto", **settings)
    made.fit(module, batches(), batches(9), ckpt_path=ckpt)
    path = directory / f"{made.global_step}.ckpt"
    made.save_checkpoint(path)
    made.strategy.checkpoint_io.teardown()
    return module, path


def tensors(content: Any) -> dict[str, Tensor]:
    """All of a checkpoint that is computed, by name."""
    if isinstance(content, Tensor):
        return {"": content}
    parts = content.items() if isinstance(content, dict) else enumerate(content)
    return {
        f"{key}.{name}": value
        for key, part in parts
        if isinstance(part, dict | list | Tensor)
        for name, value in tensors(part).items()
    }


def assert_alike(path: Path, other: Path) -> None:
    """Checkpoints with the same names, types, shapes and layouts, and nearly the same values."""
    ours, theirs = (
        tensors({key: load(one)[key] for key in ("state_dict", "ema", "optimizer_states")})
        for one in (path, other)
    )
    assert ours.keys() == theirs.keys()
    assert {name: one.stride() for name, one in ours.items()} == {
        name: one.stride() for name, one in theirs.items()
    }
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("network", sharded.NETWORKS)
def test_parts_of_a_network_learn_what_the_whole_learns(network: str):
    sharded.same_as_whole(network, "adamw")


def test_a_sharded_run_writes_what_a_plain_one_writes(tmp_path: Path):
    module, path = fit(tmp_path / "sharded", sharded=True)
    plain, expected = fit(tmp_path / "plain", sharded=False)
    assert module.is_sharded
    assert not plain.is_sharded
    assert_alike(path, expected)
    assert module.num_parameters == plain.num_parameters
    assert module.trainer.callback_metrics["val/loss"] == pytest.approx(
        float(plain.trainer.callback_metrics["val/loss"]), rel=1e-5
    )
    assert load(path)["optimizer_states"][0]["param_groups"][0]["params"] == list(
        range(len([*plain.network.parameters()]))
    )


def test_one_in_parts_is_the_whole_one(tmp_path: Path):
    _, path = fit(tmp_path / "parts", sharded=True, checkpoint="sharded")
    _, expected = fit(tmp_path / "plain", sharded=False)
    assert parts.KEY in load(path, whole=False)
    assert_alike(path, expected)
    module = DDPM.load_from_checkpoint(
        path, network=small_unet(), schedule=linear(100), image_shape=(1, 8, 8), ema=partial(EMA, decay=0.9)
    )
    assert torch.equal(next(module.network.parameters()), next(iter(load(path)["state_dict"].values())))


def test_one_in_parts_that_holds_nan_is_not_written(tmp_path: Path):
    module, path = fit(tmp_path / "run", sharded=True, checkpoint="sharded")
    next(module.network.parameters()).detach().to_local().view(-1)[0] = torch.nan
    with pytest.raises(TrainingError, match="holds NaN or infinity"):
        module.trainer.save_checkpoint(path.with_name("bad.ckpt"))
    assert not list(tmp_path.rglob("bad*"))


def test_parts_need_a_writer_of_parts(tmp_path: Path):
    _, path = fit(tmp_path / "run", sharded=True, checkpoint="sharded", plugins=[])
    assert parts.KEY in load(path, whole=False)

    class Whole(TorchCheckpointIO):
        pass

    with pytest.raises(
        TrainingError, match=r"checkpoint=sharded: Whole writes whole files; give the trainer"
    ):
        fit(tmp_path / "run", sharded=True, checkpoint="sharded", plugins=[Whole()])


def test_another_kind_of_checkpoint_is_refused():
    with pytest.raises(ValueError, match="checkpoint=half: must be one of whole, sharded"):
        FullySharded("half")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.slow
def test_either_goes_on_from_what_the_other_wrote(first: bool, tmp_path: Path):
    _, whole = fit(tmp_path / "whole", sharded=False, max_steps=5)
    _, half = fit(tmp_path / "half", sharded=first, max_steps=2)
    _, path = fit(tmp_path / "half", sharded=not first, ckpt=half, max_steps=5)
    assert_alike(path, whole)


@pytest.mark.slow
def test_a_sharded_run_goes_on_bit_for_bit(tmp_path: Path):
    _, whole = fit(tmp_path / "whole", sharded=True, max_steps=5)
    _, half = fit(tmp_path / "half", sharded=True, max_steps=2)
    _, path = fit(tmp_path / "half", sharded=True, ckpt=half, max_steps=5)
    ours, theirs = tensors(load(path)["state_dict"]), tensors(load(whole)["state_dict"])
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_checkpoint_in_the_background_is_of_its_step(tmp_path: Path):
    """What is gathered is nobody else's: the next step must not change it."""
    module = make_module()
    writer = AtomicCheckpointIO(background=True)
    made = trainer(tmp_path, strategy=FullySharded(), plugins=[writer], max_steps=1)
    made.fit(module, batches())
    before = {name: value.full_tensor().clone() for name, value in module.network.named_parameters()}
    done = writer._submit
    writer._submit = lambda job: (
        [p.detach().to_local().zero_() for p in module.network.parameters()] and done(job)
    )
    made.save_checkpoint(tmp_path / "one.ckpt")
    writer.teardown()
    saved = load(tmp_path / "one.ckpt")["state_dict"]
    assert all(torch.equal(saved[f"network.{name}"], value) for name, value in before.items())


def test_samples_and_training_take_turns(tmp_path: Path):
    """What is gathered in a sampling must not be in the way of the next step."""

    class Draws(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            with torch.inference_mode(), pl_module.evaluating():  # as Lightning validates on GPUs
                pl_module.network(IMAGES[:2], torch.tensor([0, 1]))
            drawn.append(pl_module.sample([0, 1]))

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            drawn.append(pl_module.sample([0, 1]))

    drawn: list[Tensor] = []
    module, _ = fit(tmp_path / "a", sharded=True)
    made = trainer(tmp_path / "b", Draws(), strategy=FullySharded())
    made.fit(again := alive(), batches())
    assert len(drawn) == 5
    for one, other in zip(module.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one.to_local(), other.to_local())


def test_a_checkpoint_that_holds_nan_is_not_written(tmp_path: Path):
    module, path = fit(tmp_path / "run", sharded=True)
    next(module.network.parameters()).detach().to_local().view(-1)[0] = torch.nan
    with pytest.raises(TrainingError, match="holds NaN or infinity"):
        module.trainer.save_checkpoint(path.with_name("bad.ckpt"))
    with pytest.raises(CheckpointError):
        load(path.with_name("bad.ckpt"))


def test_blocks_are_what_stands_in_lists():
    net = small_unet()
    assert list(blocks(net)) == [*net.encoder, *net.middle, *net.decoder]
    net = DiT(1, 1, width=16, depth=3, heads=2)
    assert list(blocks(net)) == list(net.layers)
    assert list(blocks(nn.Sequential(nn.Linear(1, 1), nn.ModuleList([nn.SiLU()])))) == []


def test_the_strategy_of_lightning_itself_is_refused(tmp_path: Path):
    made = trainer(tmp_path, strategy=ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1))
    with pytest.raises(ValueError, match=r"use ddpm\.training\.sharding\.FullySharded"):
        made.fit(make_module(), batches())


@pytest.mark.slow
def test_a_compiled_network_is_refused_before_and_after(tmp_path: Path):
    module, _ = fit(tmp_path / "run", sharded=True, max_steps=1)
    with pytest.raises(ValueError, match="is not for a sharded network"):
        module.compile_network()
    module = make_module()
    module.compile_network()
    with pytest.raises(ValueError, match="is not for a sharded network"):
        trainer(tmp_path, strategy=FullySharded()).fit(module, batches())


@pytest.mark.parametrize("kind", [Adafactor, Rprop])
def test_optimizers_that_need_whole_parameters_are_refused(kind: Any, tmp_path: Path):
    module = make_module()
    module.optimizer = partial(kind, lr=1e-3)
    with pytest.raises(ValueError, match=f"{kind.__name__} cannot step where each device holds a part"):
        trainer(tmp_path, strategy=FullySharded()).fit(module, batches())


def test_an_optimizer_without_fused_arithmetic_for_parts_steps_without(tmp_path: Path):
    module = make_module()
    module.optimizer = partial(SGD, lr=1e-3, momentum=0.9, fused=True)
    trainer(tmp_path, strategy=FullySharded(), max_steps=1).fit(module, batches())
    assert module.trainer.global_step == 1


def test_a_parameter_without_dimensions_is_refused(tmp_path: Path):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(1.0))

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return x_t * self.gain

    with pytest.raises(ValueError, match="gain is a single number"):
        trainer(tmp_path, strategy=FullySharded()).fit(make_module(Scaled()), batches())


def test_a_precision_with_a_scale_is_refused():
    devices = dist.device_mesh.init_device_mesh("cpu", (1,))
    with pytest.raises(ValueError, match="precision=16-mixed: strategy=fsdp trains in"):
        shard(small_unet(), devices, "16-mixed")


def test_bfloat16_gathers_bfloat16(tmp_path: Path):
    seen = []
    module = make_module()
    module.network.middle[0].block.conv_in.register_forward_hook(
        lambda layer, *_: seen.append(layer.weight.dtype)
    )
    trainer(tmp_path, strategy=FullySharded(), precision="bf16-mixed", max_steps=1).fit(module, batches())
    assert seen[-1] == torch.bfloat16
    parameters = list(module.network.parameters())
    assert are_shards(parameters)
    assert {one.dtype for one in parameters} == {torch.float32}
