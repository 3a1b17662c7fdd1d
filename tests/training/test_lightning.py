"""The module in somebody's own Lightning script: their Trainer, loaders, callbacks and loggers."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from models import small_unet
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ddpm.diffusion.guidance import ClassifierFree
from ddpm.diffusion.samplers import DDIM
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.timesteps import LossSecondMoment, Stratified
from ddpm.training.batches import Counted
from ddpm.training.ema import EMA, NoAverage
from ddpm.training.module import DDPM

IMAGES = torch.rand(48, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
LABELS = torch.arange(48) % 3
CLASSES = ["cat", "dog", "owl"]


class Probe(nn.Module):
    """Answers with a multiple of x_t, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((1, 1, 1, 1), 0.1))
        self.given: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.given.append((x_t.detach(), t, labels))
        return self.factor * x_t


def probing(**settings: Any) -> DDPM:
    return DDPM(Probe(), linear(100), image_shape=(1, 8, 8), sampler=DDIM(4), **settings)


def trainer(directory: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    settings = {"max_steps": 6, "logger": False, "enable_checkpointing": False, **settings}
    return Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=directory,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def loader(*tensors: Tensor, batch_size: int = 8, **settings: Any) -> DataLoader:
    return DataLoader(TensorDataset(*(tensors or (IMAGES,))), batch_size=batch_size, **settings)


def as_they_are(batches: list[Any]) -> DataLoader:
    return DataLoader(batches, batch_size=None)


def as_mappings(*keys: str) -> DataLoader:
    parts = (IMAGES.split(8), LABELS.split(8), range(6))
    return as_they_are([dict(zip(keys, row, strict=False)) for row in zip(*parts, strict=True)])


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        while True:
            yield from IMAGES


def test_ten_lines_train(tmp_path: Path):
    torch.manual_seed(0)
    module = DDPM(small_unet(), linear(100), image_shape=(1, 8, 8))
    before = nn.utils.parameters_to_vector(module.network.parameters()).detach().clone()
    trainer(tmp_path).fit(module, loader())
    assert not torch.equal(before, nn.utils.parameters_to_vector(module.network.parameters()))
    assert module.ema.state_dict()["num_updates"] == 6
    assert module.sample(range(2), sampler=DDIM(3)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    "batches",
    [
        loader(),
        loader(IMAGES, LABELS),
        as_they_are(list(IMAGES.split(8))),
        as_mappings("image", "label", "id"),
        as_mappings("images", "labels"),
        as_mappings("image"),
        loader(IMAGES.double()),
        loader(IMAGES.half()),
        DataLoader(Endless(), batch_size=8),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_shape_of_batch_trains(tmp_path: Path, batches: Any):
    module = probing()
    trainer(tmp_path).fit(module, batches)
    steps = [given for given in module.network.given if len(given[0]) == 8]
    assert len(steps) == 6
    assert {labels for *_, labels in steps} == {None}


def test_bytes_are_brought_to_the_range_of_images(tmp_path: Path):
    pixels = ((IMAGES + 1) * 127.5).round().to(torch.uint8)
    modules = [probing(), probing()]
    for module, images in zip(modules, (pixels, pixels.float() / 127.5 - 1), strict=True):
        trainer(tmp_path).fit(module, loader(images))
    for a, b in zip(modules[0].network.given, modules[1].network.given, strict=True):
        assert torch.equal(a[0], b[0])


@pytest.mark.parametrize("label_drop", [0.0, 0.5])
def test_labels_reach_a_conditional_network(tmp_path: Path, label_drop: float):
    module = probing(classes=CLASSES, label_drop=label_drop)
    trainer(tmp_path).fit(module, loader(IMAGES, LABELS.int()))
    given = torch.cat([labels for x, _, labels in module.network.given if len(x) == 8 and labels is not None])
    dropped = given == -1
    assert torch.equal(given[~dropped], LABELS[~dropped])
    assert dropped.any() == (label_drop > 0)


@pytest.mark.parametrize(
    ("batches", "settings", "message"),
    [
        (loader(IMAGES[:, :, :4]), {}, r"are \[8, 1, 4, 8\], and the module was made for \[B, 1, 8, 8\]"),
        (loader(IMAGES[:, 0]), {}, r"images are \[8, 8, 8\]"),
        (loader((IMAGES + 1) * 127.5), {}, r"floats in \[.*\]; they must be in \[-1, 1\], or uint8"),
        (loader(IMAGES.long()), {}, "images are torch.int64; they must be uint8, or floats"),
        (loader(IMAGES, LABELS, LABELS), {}, "this is a list of Tensor, Tensor, Tensor"),
        (as_they_are([{"x": IMAGES}]), {}, "this is a dict of x"),
        (as_they_are([{"image": IMAGES, "images": IMAGES}]), {}, "this is a dict of image, images"),
        (as_they_are(["cat"]), {}, "this is a str of str"),
        (loader(), {"classes": CLASSES}, "the batch has no labels, and the network is conditional"),
        (loader(IMAGES, LABELS.float()), {"classes": CLASSES}, r"labels are torch.float32 \[8\]"),
        (loader(IMAGES, LABELS[:, None]), {"classes": CLASSES}, r"labels are torch.int64 \[8, 1\]"),
        (loader(IMAGES, LABELS + 1), {"classes": CLASSES}, "classes are 0 to 2, and -1 is none"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_refused(tmp_path: Path, batches: Any, settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(probing(**settings), batches)


def test_images_from_0_to_1_are_remarked_upon(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    trainer(tmp_path).fit(probing(), loader((IMAGES + 1) / 2))
    assert "from [0, 1] take 2 * x - 1" in caplog.text


def noises(module: DDPM) -> list[Tensor]:
    """What the network was given for images of zeros: noise alone, in proportion."""
    return [x for x, *_ in module.network.given if len(x) > 1]


def test_each_image_of_a_step_and_each_step_has_noise_of_its_own(tmp_path: Path):
    module = probing()
    settings = {"accumulate_grad_batches": 2, "max_steps": 5}
    trainer(tmp_path, **settings).fit(module, loader(torch.zeros(20, 1, 8, 8)))  # 8 + 8, then 4 alone
    given = [x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for x in noises(module)]
    assert [len(x) for x in given] == [8, 8, 4] * 2 + [8, 8]
    rows = torch.cat(given).flatten(1)
    alike = (rows @ rows.T).fill_diagonal_(0)
    assert float(alike.max()) < 0.9


def test_another_split_into_micro_batches_is_the_same_training(tmp_path: Path):
    def weights(batch_size: int, accumulation: int) -> Tensor:
        module = probing()
        settings = {"accumulate_grad_batches": accumulation, "max_steps": 3}
        trainer(tmp_path, **settings).fit(module, loader(batch_size=batch_size))
        assert module.images_per_step == 16
        return module.network.factor.detach()

    torch.testing.assert_close(weights(16, 1), weights(4, 4), rtol=1e-6, atol=1e-8)


def test_ranks_have_noise_of_their_own():
    seen = []
    for rank in (0, 1):
        read = Counted((1, 8, 8), None)
        for micro in (0, 1):
            counted = read([IMAGES[:8]], step=3, begins=micro == 0, first=False, rank=rank, world_size=2)
            seen.append(counted.indices)
    assert seen == [range(8), range(16, 24), range(8, 16), range(24, 32)]


def test_stratified_steps_fill_the_chain_in_each_micro_batch(tmp_path: Path):
    module = probing(timesteps=Stratified())
    trainer(tmp_path, accumulate_grad_batches=4, max_steps=2).fit(module, loader(batch_size=20))
    steps = [t for x, t, _ in module.network.given if len(x) == 20]
    assert len(steps) == 4
    assert all((t // 5).tolist() == list(range(20)) for t in steps)


def test_validation_is_the_same_in_every_batch_size_and_spreads_its_steps(tmp_path: Path):
    found = []
    for batch_size in (8, 48, 7):
        module = probing()
        (row,) = trainer(tmp_path).validate(module, loader(batch_size=batch_size), verbose=False)
        found.append(row["val/loss"])
        steps = torch.cat([t for *_, t, _ in module.network.given])
        assert torch.bincount(steps // 10, minlength=10).tolist() == pytest.approx([4.8] * 10, abs=1.3)
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_testing_measures_as_validation_does(tmp_path: Path):
    module = probing()
    (held_out,) = trainer(tmp_path).validate(module, loader(), verbose=False)
    (tested,) = trainer(tmp_path).test(module, loader(), verbose=False)
    assert tested == {"test/loss": held_out["val/loss"]}


@pytest.mark.parametrize("fitting", [False, True])
def test_each_of_several_loaders_is_measured(tmp_path: Path, fitting: bool):
    module, several = probing(), [loader(), loader(IMAGES[:16])]
    first, second = (trainer(tmp_path).validate(module, one, verbose=False)[0] for one in several)
    running = trainer(tmp_path, max_steps=1, val_check_interval=1)
    if fitting:
        module.optimizer = partial(torch.optim.SGD, lr=1e-30)
        running.fit(module, loader(), several)
    else:
        running.validate(module, several, verbose=False)
    found = {name: float(running.callback_metrics[name]) for name in running.callback_metrics}
    whole = (48 * first["val/loss"] + 16 * second["val/loss"]) / 64
    assert found["val/loss"] == pytest.approx(whole, rel=1e-5)
    assert found["val/loss/dataloader_idx_0"] == pytest.approx(first["val/loss"], rel=1e-5)
    assert found["val/loss/dataloader_idx_1"] == pytest.approx(second["val/loss"], rel=1e-5)


def test_predicting_draws_images_by_their_indices(tmp_path: Path):
    module = probing()
    expected = module.sample(range(20))
    batches = trainer(tmp_path).predict(module, DataLoader(range(20), batch_size=6))
    torch.testing.assert_close(torch.cat(batches), expected, atol=1e-5, rtol=0)
    (strided,) = trainer(tmp_path).predict(module, DataLoader(range(1, 20, 3), batch_size=20))
    torch.testing.assert_close(strided, expected[1::3], atol=1e-5, rtol=0)


def test_predicting_draws_the_classes_that_are_given(tmp_path: Path):
    module = probing(classes=CLASSES)
    labels = torch.tensor([2, 2, 0, 1])
    trainer(tmp_path).predict(module, DataLoader(TensorDataset(torch.arange(4), labels), batch_size=4))
    assert torch.equal(module.network.given[-1][2], labels)
    trainer(tmp_path).predict(module, DataLoader(range(4), batch_size=4))
    assert module.network.given[-1][2].tolist() == [0, 1, 2, 0]
    with pytest.raises(ValueError, match="no class 3"):
        trainer(tmp_path).predict(module, DataLoader(TensorDataset(torch.arange(4), labels + 1)))
    with pytest.raises(ValueError, match="predict draws images: give a DataLoader of their indices"):
        trainer(tmp_path).predict(module, loader())


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_losses_are_logged_where_lightnings_callbacks_look(tmp_path: Path):
    module = probing(optimizer=partial(torch.optim.SGD, lr=0.1))
    saved = ModelCheckpoint(tmp_path, monitor="val/loss", filename="best", save_top_k=1)
    logger = CSVLogger(tmp_path, name="", version="")
    settings = {"max_steps": -1, "max_epochs": 4, "log_every_n_steps": 4, "enable_checkpointing": True}
    fit = trainer(
        tmp_path, saved, LearningRateMonitor(), EarlyStopping("train/loss"), logger=logger, **settings
    )
    fit.fit(module, loader(), loader(batch_size=16))
    logged = rows(tmp_path)
    train = {int(row["step"]): float(row["train/loss"]) for row in logged if row.get("train/loss")}
    held_out = {int(row["step"]): float(row["val/loss"]) for row in logged if row.get("val/loss")}
    assert set(held_out) == {6, 12, 18, 24}
    assert set(train) == {4, 6, 8, 12, 16, 18, 20, 24}  # every 4 steps, and the end of each epoch
    assert saved.best_model_score == pytest.approx(min(held_out.values()))
    assert float(fit.callback_metrics["train/loss"]) == pytest.approx(train[24])
    assert any(row.get("lr-SGD") for row in logged)


def test_the_logged_loss_is_the_mean_over_its_steps(tmp_path: Path):
    found: list[float] = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            found.append(float(outputs["loss"]))

    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, Losses(), logger=logger, log_every_n_steps=3).fit(probing(), loader())
    means = [float(row["train/loss"]) for row in rows(tmp_path) if row.get("train/loss")]
    assert means == pytest.approx([sum(found[:3]) / 3, sum(found[3:]) / 3], rel=1e-5)


def test_a_plateau_is_looked_for_after_each_validation(tmp_path: Path):
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=0.9, factor=0.5)
    module = probing(optimizer=partial(torch.optim.SGD, lr=1.0), lr_schedule=plateau, ema=NoAverage)
    settings = {"max_steps": 12, "val_check_interval": 2, "gradient_clip_val": 1e-9}
    fit = trainer(tmp_path, **settings)
    fit.fit(module, loader(), loader())
    # six validations, none better than the first by the threshold
    assert module.optimizers().param_groups[0]["lr"] == pytest.approx(0.5**5)
    fit.save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)


def test_schedules_of_torch_are_stepped_each_optimizer_step(tmp_path: Path):
    module = probing(
        optimizer=partial(torch.optim.SGD, lr=1.0),
        lr_schedule=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
    )
    trainer(tmp_path, accumulate_grad_batches=2, max_steps=3).fit(module, loader())
    assert module.learning_rate == 0.25
    assert module.optimizers().param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"fast_dev_run": True}, 1),
        ({"limit_train_batches": 3, "max_epochs": 2, "max_steps": -1}, 6),
        ({"overfit_batches": 2, "max_epochs": 2, "max_steps": -1}, 4),
    ],
)
def test_lightnings_short_runs(tmp_path: Path, settings: dict[str, Any], steps: int):
    module = probing()
    fit = trainer(tmp_path, **settings)
    fit.fit(module, loader(shuffle="overfit_batches" not in settings), loader())
    assert fit.global_step == module.ema.state_dict()["num_updates"] == steps
    assert "val/loss" in fit.callback_metrics


@pytest.mark.parametrize(("limit", "moves"), [(0, True), (None, True), (1e-12, False)])
def test_a_limit_of_zero_is_none(tmp_path: Path, limit: float | None, moves: bool):
    module = probing(optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer(tmp_path, gradient_clip_val=limit).fit(module, loader())
    assert (abs(float(module.network.factor) - 0.1) > 1e-3) == moves


def test_gradients_are_clipped_by_value(tmp_path: Path):
    module = probing(optimizer=partial(torch.optim.SGD, lr=1.0))
    settings = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value", "max_steps": 1}
    trainer(tmp_path, **settings).fit(module, loader())
    assert abs(float(module.network.factor.detach()) - 0.1) == pytest.approx(1e-3, rel=1e-3)


def in_half(directory: Path, fused: bool, **settings: Any) -> tuple[DDPM, list[float]]:
    """Trained with a loss that is scaled as under float16, and the norm of each step's gradient."""
    norms: list[float] = []

    class Norms(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: DDPM, *_: Any) -> None:
            norms.append(float(pl_module.gradient_norm.total))
            pl_module.gradient_norm.total = 0.0

    module = probing(optimizer=partial(torch.optim.SGD, lr=0.1, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    trainer(directory, Norms(), plugins=plugins, **settings).fit(module, loader())
    return module, norms


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("fused", [False, True])
def test_scaled_gradients_are_clipped_as_they_would_be_unscaled(tmp_path: Path, fused: bool, algorithm: str):
    settings = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    module, norms = in_half(tmp_path, fused, **settings)
    plain = probing(optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer(tmp_path, **settings).fit(plain, loader())
    assert float(module.network.factor) == pytest.approx(float(plain.network.factor), abs=2e-4)
    assert abs(float(plain.network.factor) - 0.1) == pytest.approx(6 * 0.1 * 0.01, rel=0.01)
    _, unclipped = in_half(tmp_path, fused)
    assert norms[0] == pytest.approx(unclipped[0], rel=1e-3)
    assert 0.01 < norms[0] < 10


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_whose_gradients_overflow_is_left_out(tmp_path: Path, fused: bool, algorithm: str):
    module = probing(optimizer=partial(torch.optim.SGD, lr=0.1, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    class Overflow(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
            if trainer.global_step == 0:
                pl_module.network.factor.grad.fill_(float("inf"))

    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    settings = {"gradient_clip_val": 1.0, "gradient_clip_algorithm": algorithm, "max_steps": 1}
    trainer(tmp_path, Overflow(), plugins=plugins, **settings).fit(module, loader())
    assert float(module.network.factor) == pytest.approx(0.1)
    assert scaler.get_scale() == 2.0**9
    assert float(module.gradient_norm.total) == int(module.gradient_norm.count) == 0


def test_a_plain_loop_needs_no_trainer():
    module = probing()
    optimizer = torch.optim.SGD(module.network.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = module.losses(IMAGES[:8], torch.arange(8) * 10, torch.ones(8, 1, 8, 8)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_module_made_by_hand_is_loaded_in_lightnings_way(tmp_path: Path):
    module = probing()
    fit = trainer(tmp_path)
    fit.fit(module, loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    again = DDPM.load_from_checkpoint(
        tmp_path / "a.ckpt", network=Probe(), schedule=linear(100), image_shape=(1, 8, 8), sampler=DDIM(4)
    )
    assert torch.equal(again.network.factor, module.network.factor)
    assert torch.equal(again.sample(range(3)), module.sample(range(3)))
    with pytest.raises(ValueError, match="was made by hand and holds no configuration; give network="):
        DDPM.load_from_checkpoint(tmp_path / "a.ckpt")


def test_without_an_average_the_networks_own_weights_draw_and_are_measured(tmp_path: Path):
    module = probing(ema=NoAverage)
    fit = trainer(tmp_path)
    fit.fit(module, loader())
    assert torch.equal(module.sample(range(2)), module.sample(range(2), weights="raw"))
    fit.save_checkpoint(tmp_path / "a.ckpt")
    assert not torch.load(tmp_path / "a.ckpt", weights_only=True)["ema"]
    averaged = probing()  # begins at the weights that are loaded
    fit = trainer(tmp_path, max_steps=7)
    fit.fit(averaged, loader(), ckpt_path=tmp_path / "a.ckpt")
    assert averaged.ema.state_dict()["num_updates"] == 1
    assert float(averaged.ema.state_dict()["parameters"]["factor"]) == pytest.approx(
        float(module.network.factor), abs=1e-3
    )


def test_guidance_is_drawn_with_by_hand(tmp_path: Path):
    module = probing(classes=CLASSES, label_drop=0.1, guidance=ClassifierFree(2.0))
    trainer(tmp_path).fit(module, loader(IMAGES, LABELS))
    assert module.sample(range(3), labels=[2]).shape == (3, 1, 8, 8)


def test_importance_learns_from_micro_batches_of_any_size(tmp_path: Path):
    module = probing(timesteps=LossSecondMoment(history=1))
    settings = {"accumulate_grad_batches": 2, "max_steps": 4}
    trainer(tmp_path, **settings).fit(module, loader(IMAGES[:12]))  # 8 + 4, twice an epoch
    assert int(module.timesteps.counts.sum()) == 4 * 12


def test_whoever_logs_in_a_script_of_ones_own_is_at_the_completed_step(tmp_path: Path):
    class Logs(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            pl_module.log("mine", float(trainer.global_step))

    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, Logs(), logger=logger, log_every_n_steps=1, max_steps=5).fit(probing(), loader())
    values = {int(row["step"]): float(row["mine"]) for row in rows(tmp_path) if row.get("mine")}
    assert values == {step: step for step in range(1, 6)}
    losses = {int(row["step"]) for row in rows(tmp_path) if row.get("train/loss")}
    assert losses == set(values)


def test_what_is_drawn_while_measuring_is_of_the_weights_that_are_measured(tmp_path: Path):
    module = probing(ema=partial(EMA, decay=0.9), optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer(tmp_path).fit(module, loader())
    averaged, raw = module.sample(range(2), weights="ema"), module.sample(range(2), weights="raw")
    assert not torch.equal(averaged, raw)
    for around, expected in (("raw", raw), ("ema", averaged)):
        with module.evaluating(around):
            assert torch.equal(module.sample(range(2)), expected)
            assert torch.equal(module.sample(range(2), weights="ema"), averaged)
            assert torch.equal(module.sample(range(2), weights="raw"), raw)
            assert torch.equal(module.sample(range(2)), expected)
    assert torch.equal(module.sample(range(2)), averaged)
    with pytest.raises(ValueError, match="weights=averaged: must be ema or raw"):
        module.sample(range(2), weights="averaged")


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_precision_of_weights_and_noise_is_refused(tmp_path: Path, precision: Any):
    with pytest.raises(ValueError, match=rf"^precision={precision}: .* use 32-true, bf16-mixed or 16-mixed$"):
        trainer(tmp_path, precision=precision).fit(probing(), loader())
