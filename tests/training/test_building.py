"""A module from its configuration, and again from its checkpoint."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import composed
from models import make_trainer
from torch import Tensor

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.samplers import DDIM
from ddpm.errors import UsageError
from ddpm.training.building import build_module
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.checkpoints import averaged_weights, find
from ddpm.training.ema import EMA, NoAverage
from ddpm.training.module import DDPM

DATA = {"image_shape": [1, 8, 8], "classes": [str(digit) for digit in range(10)]}
LAST = "checkpoints/last.ckpt"


def config(*overrides: str) -> dict[str, Any]:
    return composed("train", "experiment=smoke", *overrides)


def trained(
    directory: Path, settings: dict[str, Any], max_steps: int, ckpt: Path | None = None, **changes: Any
) -> DDPM:
    module = build_module(settings, DATA, **changes)
    trainer = make_trainer(directory, max_steps, Checkpoints(every_n_steps=100))
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0), ckpt_path=ckpt)
    return module


@pytest.mark.parametrize("ema", ["exponential", "none"])
def test_a_checkpoint_is_all_that_its_module_needs(tmp_path: Path, ema: str):
    module = trained(tmp_path, config(f"ema={ema}", "optimizer=sgd", "lr_schedule=one_cycle"), 4)
    again = DDPM.load_from_checkpoint(tmp_path / LAST)
    assert isinstance(again.ema, EMA if ema == "exponential" else NoAverage)
    assert again.config == module.config
    for weights in ("ema", "raw"):
        settings: dict[str, Any] = {"sampler": DDIM(3), "weights": weights}
        assert torch.equal(again.sample(range(2), **settings), module.sample(range(2), **settings))
    loaded = averaged_weights(find(tmp_path)[1])
    with module.evaluating():
        assert all(torch.equal(loaded[name], value) for name, value in module.network.state_dict().items())


def test_what_is_given_stands_in_place_of_the_configuration(tmp_path: Path):
    trained(tmp_path, config(), 1)
    sampler = DDIM(3)
    assert DDPM.load_from_checkpoint(str(tmp_path / LAST), sampler=sampler).sampler is sampler


def test_a_checkpoint_builds_from_allowed_packages_only(tmp_path: Path):
    trained(tmp_path, config(), 1)
    checkpoint = torch.load(tmp_path / LAST, weights_only=True)
    checkpoint["config"]["ema"]["x"] = [{"_target_": "subprocess.Popen", "args": ["true"]}]
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(UsageError, match=r"ema\.x\[0\]\._target_=subprocess\.Popen: is not in an allowed"):
        DDPM.load_from_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["lr_schedule=warmup", "lr_schedule.warmup_steps=-5"],
            r"^lr_schedule\.warmup_steps=-5 must be a whole number, at l",
        ),
        (
            ["lr_schedule=warmup", "lr_schedule.warmup_steps=few"],
            r"^lr_schedule\.warmup_steps=few: must be a whole number",
        ),
        (["optimizer.lr=fast"], r"^optimizer\.lr=fast must be above 0$"),
        (["optimizer.lr=0"], r"^optimizer\.lr=0 must be above 0$"),
        (["optimizer.betas=[2,0.9]"], r"^optimizer: Invalid beta parameter at index 0: 2$"),
        (["ema.decay=2"], r"^ema\.decay=2 must be"),
        (
            ["lr_schedule=one_cycle", "trainer.max_steps=-1"],
            r"^lr_schedule\.total_steps=-1 must be a whole number",
        ),
        (["variance=learned_range"], r"^weighting: Simple does not train the variance"),
    ],
)
def test_what_cannot_be_trained_is_told_before_it_is(overrides: list[str], message: str):
    with pytest.raises(UsageError, match=message):
        build_module(config(*overrides), DATA)


@pytest.mark.parametrize("name", ["optimizer", "lr_schedule", "ema"])
def test_a_node_may_say_that_it_is_partial_or_not(name: str):
    settings = config()
    settings[name].pop("_partial_")
    assert isinstance(build_module(settings, DATA), DDPM)


def test_nothing_stands_for_no_schedule_and_no_average():
    module = build_module({**config(), "lr_schedule": None, "ema": None}, DATA)
    assert module.lr_schedule is None
    assert isinstance(module.ema, NoAverage)


def with_schedule(settings: dict[str, Any], **schedule: Any) -> dict[str, Any]:
    changed = deepcopy(settings)
    changed["lr_schedule"] = schedule
    return changed


FUNCTIONS = "ddpm.training.lr_schedules"


def rates(module: DDPM) -> tuple[float, float]:
    """Of the step that was made last, and of the next."""
    return module.learning_rate, module.optimizers().param_groups[0]["lr"]


@pytest.mark.e2e
def test_a_finished_cycle_goes_on_with_another_schedule(tmp_path: Path):
    cycle = with_schedule(config(), _target_=f"{FUNCTIONS}.one_cycle", total_steps=6)
    assert rates(trained(tmp_path / "first", cycle, 6))[1] == pytest.approx(0, abs=1e-12)
    ckpt = tmp_path / "first" / LAST
    constant = with_schedule(cycle, _target_=f"{FUNCTIONS}.constant")
    assert rates(trained(tmp_path / "constant", constant, 7, ckpt)) == (2e-3, 2e-3)
    assert rates(trained(tmp_path / "none", {**cycle, "lr_schedule": None}, 7, ckpt)) == (2e-3, 2e-3)
    warmup = with_schedule(cycle, _target_=f"{FUNCTIONS}.warmup", warmup_steps=4)
    first = trained(tmp_path / "warmup", warmup, 7, ckpt)
    assert rates(first) == pytest.approx((2e-3 / 4, 2e-3 * 2 / 4))
    # its state is kept from there on
    assert rates(trained(tmp_path / "again", warmup, 8, tmp_path / "warmup" / LAST)) == pytest.approx(
        (2e-3 * 2 / 4, 2e-3 * 3 / 4)
    )


def test_the_moments_go_on_under_another_schedule(tmp_path: Path):
    settings = config()
    trained(tmp_path / "first", settings, 6)
    before = find(tmp_path / "first")[1]["optimizer_states"][0]["state"]
    still = with_schedule(settings, _target_=f"{FUNCTIONS}.warmup", warmup_steps=10**12)
    trained(tmp_path / "rest", still, 7, tmp_path / "first" / LAST)
    after = find(tmp_path / "rest")[1]["optimizer_states"][0]["state"]
    for key, moments in before.items():
        assert float(after[key]["step"]) == 7
        assert_decayed(moments["exp_avg_sq"], after[key]["exp_avg_sq"])


def assert_decayed(before: Tensor, after: Tensor) -> None:
    """The second moment is at least what is left of what it was."""
    assert (after >= 0.999 * before * (1 - 1e-5)).all()
    assert float(before.sum()) > 0


def test_the_same_schedule_is_continued(tmp_path: Path):
    cycle = with_schedule(config(), _target_=f"{FUNCTIONS}.one_cycle", total_steps=12)
    whole = rates(trained(tmp_path / "whole", cycle, 8))
    trained(tmp_path / "first", cycle, 5)
    assert rates(trained(tmp_path / "rest", cycle, 8, tmp_path / "first" / LAST)) == whole


def test_images_without_classes_are_refused_with_the_reason():
    data = {**DATA, "classes": None, "understood": ["images: 9", "classes: none (3 lie beside the folders)"]}
    with pytest.raises(UsageError, match=r"have no classes \(3 lie beside the folders\); use conditional="):
        build_module(config("conditional=true"), data)
