"""The LightningModule in Lightning's own loop: loss, validation, continuing, sampling, interruption."""

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import first_everyday
from lightning.pytorch import Callback, Trainer
from models import make_module, make_trainer, small_unet
from torch import Tensor, nn

from ddpm.data.batches import Batch
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.samplers import DDIM
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.timesteps import LossSecondMoment, Stratified
from ddpm.diffusion.variances import LearnedRange
from ddpm.diffusion.weighting import Hybrid, Uncertainty
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.interruption import Interruption
from ddpm.training.callbacks.samples import SampleGrids
from ddpm.training.checkpoints import find
from ddpm.training.ending import Interrupted
from ddpm.training.module import DDPM


def trained(
    directory: Path, max_steps: int, *, ckpt: Path | None = None, accumulation: int = 1
) -> dict[str, Any]:
    """The checkpoint that training leaves."""
    torch.manual_seed(0)
    module = make_module(small_unet(dropout=0.2))
    trainer = make_trainer(directory, max_steps, Checkpoints(every_n_steps=5), accumulation=accumulation)
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0), ckpt_path=ckpt)
    return find(directory)[1]


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("accumulation", first_everyday([2, 1]))
def test_a_continued_run_is_bit_equal_with_dropout_and_accumulation(tmp_path: Path, accumulation: int):
    whole = trained(tmp_path / "whole", 12, accumulation=accumulation)
    trained(tmp_path / "first", 7, accumulation=accumulation)
    rest = trained(
        tmp_path / "rest", 12, ckpt=tmp_path / "first/checkpoints/last.ckpt", accumulation=accumulation
    )
    for part in ("global_step", "state_dict", "ema", "optimizer_states", "lr_schedulers"):
        assert_equal(whole[part], rest[part])
    assert whole["global_step"] == whole["ema"]["num_updates"] == 12


def test_accumulated_micro_batches_are_the_global_batch(tmp_path: Path):
    def weights(accumulation: int) -> dict[str, Tensor]:
        module = make_module()
        trainer = make_trainer(tmp_path, 5, accumulation=accumulation)
        trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
        return module.state_dict()

    once, twice = weights(1), weights(4)
    for name in once:
        torch.testing.assert_close(once[name], twice[name], atol=2e-5, rtol=1e-4)


def test_a_checkpoint_holds_plain_containers_only(tmp_path: Path):
    trained(tmp_path, 2)
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert all(name.startswith("network.") for name in checkpoint["state_dict"])
    assert checkpoint["config"] == {"seed": 0}
    assert set(checkpoint["ema"]["parameters"]) == {name for name, _ in small_unet().named_parameters()}


def test_the_loss_is_the_papers():
    """L_simple: mean squared error between eps and the network's answer to sqrt(ab) x_0 + sqrt(1 - ab)
    eps.
    """
    asked = {}

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        asked.update(x_t=x_t, t=t)
        return 0.3 * x_t

    module = make_module(nn.Linear(1, 1))
    module.network = Calls(network)
    x_0, eps, t = torch.rand(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.tensor([0, 10, 50, 99])
    losses = module.losses(x_0, t, eps)
    alpha_bar = (1 - torch.linspace(1e-3, 0.2, 100)).cumprod(0)[t].view(-1, 1, 1, 1)
    x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
    torch.testing.assert_close(asked["x_t"], x_t, atol=1e-5, rtol=0)
    assert torch.equal(asked["t"], t)
    torch.testing.assert_close(losses, ((0.3 * x_t - eps) ** 2).mean((1, 2, 3)))


class Calls(nn.Module):
    """A function in a module's clothes."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.function(x, t)


def test_a_clip_that_is_no_range_of_images_is_refused():
    for clip in (-1.0, 0, math.nan, math.inf, "2", None):
        with pytest.raises(ValueError, match=r"clip_x_0=.*must be true, false or a number above 0"):
            DDPM(small_unet(), linear(100), image_shape=(1, 8, 8), clip_x_0=clip)


def test_a_variance_that_nothing_would_train_is_refused():
    with pytest.raises(ValueError, match="Simple does not train the variance that LearnedRange learns"):
        make_module(variance=LearnedRange())
    assert make_module(variance=LearnedRange(), weighting=Hybrid()).weighting.trains_variance


def importance_trained(
    directory: Path, max_steps: int, *, accumulation: int = 1, ckpt: Path | None = None
) -> tuple[DDPM, dict[str, Any]]:
    """Histories of two losses at each of 25 steps are full within a few steps of 64 pictures."""
    module = make_module(num_timesteps=25, timesteps=LossSecondMoment(history=2))
    trainer = make_trainer(directory, max_steps, Checkpoints(every_n_steps=5), accumulation=accumulation)
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=64, seed=0), ckpt_path=ckpt)
    return module, find(directory)[1]


def test_importance_sampling_goes_on_where_it_stopped(tmp_path: Path):
    module, whole = importance_trained(tmp_path / "whole", 8)
    even = torch.full((25,), 1 / 25, dtype=torch.float64)
    assert not torch.allclose(module.timesteps.probabilities(25), even)
    assert int(module.timesteps.counts.sum()) == 8 * 64
    importance_trained(tmp_path / "first", 5)
    _, rest = importance_trained(tmp_path / "rest", 8, ckpt=tmp_path / "first/checkpoints/last.ckpt")
    for part in ("timesteps", "state_dict"):
        assert_equal(whole[part], rest[part])


def test_importance_sampling_learns_from_the_global_batch_in_the_order_of_its_places(tmp_path: Path):
    once, _ = importance_trained(tmp_path / "once", 3)
    parts, _ = importance_trained(tmp_path / "parts", 3, accumulation=4)
    assert torch.equal(once.timesteps.counts, parts.timesteps.counts)
    torch.testing.assert_close(once.timesteps.seen, parts.timesteps.seen, atol=1e-3, rtol=1e-3)


def test_a_weighting_that_learns_is_trained_kept_and_gone_on_with(tmp_path: Path):
    """Its parameters are the optimizer's and the checkpoint's, but no average follows them."""

    def trained(directory: Path, max_steps: int, ckpt: Path | None = None) -> tuple[DDPM, dict[str, Any]]:
        module = make_module(num_timesteps=25, weighting=Uncertainty(4))
        trainer = make_trainer(directory, max_steps, Checkpoints(every_n_steps=2))
        trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=64, seed=0), ckpt_path=ckpt)
        return module, find(directory)[1]

    module, whole = trained(tmp_path / "whole", 4)
    coefficients = whole["state_dict"]["weighting.coefficients"]
    assert (coefficients != 0).all()
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not [name for name in whole["ema"]["parameters"] if "coefficients" in name]
    assert module.num_parameters == sum(p.numel() for p in module.network.parameters())
    trained(tmp_path / "first", 2)
    _, rest = trained(tmp_path / "rest", 4, tmp_path / "first/checkpoints/last.ckpt")
    for part in ("state_dict", "optimizer_states", "ema"):
        assert_equal(whole[part], rest[part])


def test_losses_of_all_ranks_lie_as_places_do(monkeypatch: pytest.MonkeyPatch):
    """Two ranks with two micro-batches of two places: micro-batch 0 of both comes before micro-batch 1."""
    module = make_module(num_timesteps=25, timesteps=LossSecondMoment())
    shown = []
    monkeypatch.setattr(module.timesteps, "observe", lambda *seen: shown.append(seen))
    ranks = [
        torch.tensor([[[0, 1], [10, 11]], [[4, 5], [14, 15]]]),
        torch.tensor([[[2, 3], [12, 13]], [[6, 7], [16, 17]]]),
    ]
    module._seen = [torch.stack(both).float() for both in zip(*ranks, strict=True)]  # as they are gathered
    module._observe()
    ((t, losses, schedule),) = shown
    assert t.tolist() == list(range(8))
    assert losses.tolist() == list(range(10, 18))
    assert schedule is module.schedule
    assert not module._seen


def test_stratified_steps_fill_the_chain_over_all_micro_batches(tmp_path: Path):
    told: list[int] = []

    class Listening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            told.extend(t.tolist())
            return self.factor * x_t

    module = make_module(Listening(), num_timesteps=64, timesteps=Stratified())
    make_trainer(tmp_path, 1, accumulation=4).fit(
        module, datamodule=ImageDataModule(Digits(), batch_size=64, seed=0)
    )
    assert told[:64] == list(range(64))  # then its arithmetic is counted


def test_validation_depends_on_the_weights_alone(tmp_path: Path):
    """Not on the seed of the run, the batch size or the order; its timesteps fill the chain evenly."""
    told: list[int] = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        told.extend(t.tolist())
        return 0.1 * x_t

    found = []
    for seed, batch_size in ((0, 64), (1, 64), (0, 50)):
        module = make_module(nn.Linear(1, 1), seed=seed)
        module.network = Calls(network)
        trainer = make_trainer(tmp_path, 1)
        told.clear()
        trainer.validate(
            module, datamodule=ImageDataModule(Digits(), batch_size=batch_size, seed=seed), verbose=False
        )
        found.append(float(trainer.callback_metrics["val/loss"]))
        counts = torch.bincount(torch.tensor(told), minlength=100)
        assert len(told) == 360
        assert 3 <= int(counts.min()) <= int(counts.max()) <= 4
    assert found[0] == found[1]
    assert found[2] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.5])
def test_a_validation_that_is_not_finite_is_told(
    tmp_path: Path, value: float, caplog: pytest.LogCaptureFixture
):
    """A loss of training that is not ends the run; this one would only be a gap in a curve."""
    module, data = make_module(small_unet()), ImageDataModule(Digits(), batch_size=32, seed=0)

    def losses(x_0: Tensor, *_: Any) -> Tensor:
        return torch.full((len(x_0),), value)

    module.losses = losses
    make_trainer(tmp_path, 1).validate(module, datamodule=data, verbose=False)
    assert (f"val/loss is {value} after step 0" in caplog.text) == (value != 0.5)


def test_an_image_is_the_same_in_every_batch():
    module = make_module()
    for parameter in module.network.parameters():
        nn.init.normal_(parameter, std=0.1)
    whole = module.sample(range(20), seed=4, weights="raw")
    pieces = torch.cat([module.sample(part, seed=4, weights="raw") for part in (range(7), range(7, 20))])
    torch.testing.assert_close(whole, pieces, atol=1e-5, rtol=0)
    assert not torch.allclose(whole, module.sample(range(20), seed=5, weights="raw"))
    assert float(whole.abs().max()) <= 1


def test_samples_come_from_the_averaged_weights_unless_told_otherwise():
    module = make_module()
    average = module.sample(range(2))
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert torch.equal(module.sample(range(2)), average)
    assert not torch.equal(module.sample(range(2), weights="raw"), average)
    assert module.network.training


class Kill(Callback):
    """Sends this process a signal after some steps."""

    def __init__(self, signum: int, step: int):
        self.signum, self.step = signum, step

    def on_train_batch_start(self, trainer: Trainer, module: DDPM, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize("signum", first_everyday([signal.SIGTERM, signal.SIGINT]))
def test_a_signal_saves_the_step_and_the_run_continues_bit_equal(tmp_path: Path, signum: int):
    torch.manual_seed(0)
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    module = make_module(small_unet(dropout=0.2))
    callbacks = [Checkpoints(every_n_steps=100), Kill(signum, step=4), Interruption()]
    trainer = make_trainer(tmp_path / "killed", 12, *callbacks)
    with pytest.raises(Interrupted) as interrupted:
        trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    assert interrupted.value.signum == signum
    assert {s: signal.getsignal(s) for s in handlers} == handlers
    saved = tmp_path / "killed/checkpoints/last.ckpt"
    assert find(saved)[1]["global_step"] == 5
    rest = trained(tmp_path / "rest", 12, ckpt=saved)
    assert_equal(trained(tmp_path / "whole", 12)["state_dict"], rest["state_dict"])


CLASSES = ["cat", "dog", "owl"]


class Told(nn.Module):
    """Answers with the label of each picture, and keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.labels: list[Tensor | None] = []

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.labels.append(labels)
        told = torch.full_like(t, -1) if labels is None else labels
        return self.weight * told.view(-1, 1, 1, 1) * torch.ones_like(x)


def test_the_network_is_told_the_labels_of_training():
    module = make_module(Told(), classes=CLASSES)
    labels = torch.tensor([2, -1])
    zero = torch.zeros(2, 1, 8, 8)
    losses = module.losses(zero, torch.tensor([3, 4]), zero, labels)
    assert module.network.labels[-1] is labels
    assert losses.tolist() == [4, 1]  # the target is a noise of 0


def test_an_unconditional_network_is_told_nothing():
    module = make_module(Told())
    zero = torch.zeros(2, 1, 8, 8)
    module.losses(zero, torch.tensor([3, 4]), zero, torch.tensor([2, 1]))
    module.sample(range(2))
    assert set(module.network.labels) == {None}


def test_nothing_is_withheld_from_a_network_that_takes_nothing():
    with pytest.raises(ValueError, match=r"condition_drop=0\.1: withholds a condition from a network that"):
        DDPM(Told(), make_module().schedule, image_shape=(1, 8, 8), condition_drop=0.1)


def test_images_take_the_classes_in_turn_whatever_the_batch():
    module = make_module(Told(), classes=CLASSES)
    module.sample(range(2, 6))
    assert module.network.labels[-1].tolist() == [2, 0, 1, 2]
    module.sample(range(1, 4), labels=[1, -1])
    assert module.network.labels[-1].tolist() == [-1, 1, -1]
    with pytest.raises(ValueError, match=r"no class 3; classes are 0 to 2"):
        module.sample(range(2), labels=[3])
    with pytest.raises(ValueError, match="without classes"):
        make_module().sample(range(2), labels=[0])


def test_validation_and_training_tell_the_labels_of_the_data(tmp_path: Path):
    digits = [str(digit) for digit in range(10)]
    module = make_module(Told(), classes=digits)
    trainer = make_trainer(tmp_path, 3)
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, label_drop=0.5, seed=0))
    told = torch.cat([labels for labels in module.network.labels if labels is not None])  # None: counted only
    assert len(told) == 96
    assert 20 < int((told == -1).sum()) < 76
    assert len(told.unique()) == 11
    module.network.labels.clear()
    trainer.validate(
        module, datamodule=ImageDataModule(Digits(), batch_size=32, label_drop=0.5, seed=0), verbose=False
    )
    assert torch.cat(module.network.labels).tolist() == Digits().read().validation.labels.tolist()


class Struck(DDIM):
    """A sampler during which somebody presses Ctrl-C."""

    def __call__(self, *arguments: Any, on_step: Any = None, **settings: Any) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return super().__call__(*arguments, on_step=on_step, **settings)


@pytest.mark.parametrize("final", [False, True])
def test_a_grid_is_given_up_where_the_run_is_asked_to_end(tmp_path: Path, final: bool):
    module = make_module()
    module.sampler = Struck(5)
    grids = SampleGrids(Struck(5), every_n_steps=2 if not final else 1000, n=4, final=final)
    saved = Checkpoints(every_n_steps=100)
    trainer = make_trainer(tmp_path, 3, saved, grids, Interruption())
    with pytest.raises(Interrupted):
        trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    assert not list(tmp_path.rglob("*.png"))
    assert find(tmp_path)[1]["global_step"] == (3 if final else 2)


@pytest.mark.parametrize("limit", [None, 0.5, 1e6])
def test_gradients_are_clipped_by_their_global_norm(limit: float | None, tmp_path: Path):
    module, same = make_module(), make_module()
    module.trainer = make_trainer(tmp_path, 1)
    for each in (module, same):
        torch.manual_seed(1)
        for parameter in each.network.parameters():
            parameter.grad = torch.randn_like(parameter)
        next(each.network.parameters()).grad = None  # one that took no part
    module.configure_gradient_clipping(None, limit)
    norm = nn.utils.clip_grad_norm_(same.network.parameters(), float("inf") if limit is None else limit)
    assert float(module.gradient_norm.total) == pytest.approx(float(norm))
    for a, b in zip(module.network.parameters(), same.network.parameters(), strict=True):
        assert_equal(a.grad, b.grad)
