"""From the images that a device computes at once follows the accumulation, and nothing else changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import composed, run_here
from models import make_module, make_trainer
from torch import Tensor

from ddpm.app import command_line
from ddpm.app import micro_batch as chosen_by
from ddpm.app.left_run import LeftRun
from ddpm.app.micro_batch import accumulating
from ddpm.app.run_directory import Place
from ddpm.app.same_run import differences, identity
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.errors import UsageError
from ddpm.training import micro_batch
from ddpm.training.launching import ACCUMULATION
from ddpm.training.micro_batch import BEYOND_TENSORS, SHARE, STATE, WEIGHT

CPU = ("trainer.accelerator=cpu", "trainer.devices=1")


def accumulation(*words: str, begun: int | None = None, batch_size: int = 64) -> int:
    """What a run of these words accumulates."""
    config = composed("train", *CPU, *words)
    data = ImageDataModule(Digits(), batch_size=batch_size)
    found = accumulating(config, Place(Path("run")), make_module(), data, begun)
    assert found["data"]["micro_batch"] == config["data"]["micro_batch"]
    number: int = found["trainer"]["accumulate_grad_batches"]
    return number


@pytest.mark.parametrize(
    ("words", "batch_size", "expected"),
    [
        ("data.micro_batch=16", 64, 4),
        ("data.micro_batch=64", 64, 1),
        ("data.micro_batch=1000", 64, 1),
        ("data.micro_batch=63", 64, 2),
        ("data.micro_batch=10", 64, 8),
        ("data.micro_batch=16", 60, 4),
        ("data.micro_batch=16", 59, 59),
        ("data.micro_batch=16 trainer.devices=2", 64, 2),
        ("trainer.accumulate_grad_batches=2", 64, 2),
        ("trainer.accumulate_grad_batches=1", 64, 1),
    ],
)
def test_it_is_the_least_that_divides(words: str, batch_size: int, expected: int):
    assert accumulation(*words.split(), batch_size=batch_size) == expected


def test_a_batch_that_the_devices_cannot_share_is_told_as_ever():
    with pytest.raises(UsageError, match=r"data\.batch_size=63"):
        accumulation("data.micro_batch=16", "trainer.devices=2", batch_size=63)


class Lanes(ImageDataModule):
    """Images that are read in lanes, which devices and micro-batches share."""

    def check_shared(self, *, world_size: int, accumulation: int) -> None:
        super().check_shared(world_size=world_size, accumulation=accumulation)
        if 4 % (world_size * accumulation):
            raise ValueError("data.lanes=4")


def test_lanes_are_shared_too():
    def number(micro_batch: int) -> int:
        config = composed("train", *CPU, f"data.micro_batch={micro_batch}")
        found = accumulating(config, Place(Path("run")), make_module(), Lanes(Digits(), 60), None)
        return int(found["trainer"]["accumulate_grad_batches"])

    assert number(20) == 4  # 3 micro-batches would do, and do not divide the lanes
    with pytest.raises(
        UsageError, match=r"data\.micro_batch=14: .* use data\.micro_batch=15, or more data\.la"
    ):
        number(14)


@pytest.fixture
def with_room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the machine have memory for the small module and so many images."""

    def have(images: float) -> None:
        module, data = make_module(), ImageDataModule(Digits())
        taken = data.bytes_on(torch.device("cpu")) or 0
        image = BEYOND_TENSORS * module.training_bytes
        needed = (WEIGHT + STATE) * module.num_parameters + images * image + taken
        for place in (micro_batch, chosen_by):
            monkeypatch.setattr(place, "free_memory", lambda device: int(needed / SHARE) + 2)

    return have


@pytest.mark.slow
def test_auto_is_what_the_memory_holds(with_room_for: Callable[[float], None]):
    with_room_for(17)
    assert accumulation("data.micro_batch=auto") == 4
    with_room_for(64)
    assert accumulation("data.micro_batch=auto") == 1
    with_room_for(0.5)
    with pytest.raises(
        UsageError, match=r"data\.micro_batch=auto: a micro-batch of 1 does not fit into the 0\.0 G"
    ):
        accumulation("data.micro_batch=auto")


def test_who_goes_on_or_follows_finds_nothing_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chosen_by, "idle_trainer", lambda *arguments: pytest.fail("looked for devices"))
    assert accumulation("data.micro_batch=auto", begun=8) == 8
    monkeypatch.setenv(ACCUMULATION, "2")
    assert accumulation("data.micro_batch=auto") == 2
    assert accumulation("data.micro_batch=null") == 1


def test_the_loss_of_every_image_is_the_same(tmp_path: Path):
    def losses(*words: str) -> Tensor:
        module, seen = make_module(), []
        computed = module.losses

        def recorded(*arguments: Any) -> Tensor:
            found = computed(*arguments)
            seen.append(found.detach())
            return found

        vars(module)["losses"] = recorded
        number = accumulation(*words, batch_size=32)
        trainer = make_trainer(tmp_path, 5, accumulation=number)
        trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
        assert len(seen) == 5 * number
        return torch.cat(seen)

    torch.testing.assert_close(losses(), losses("data.micro_batch=9"), atol=2e-4, rtol=1e-3)


# Going on


BEGUN = "data.micro_batch=16"


def begun(accumulated: int = 4, *words: str) -> dict[str, Any]:
    """The configuration that a run has left."""
    config = composed("train", *words)
    return {**config, "trainer": {**config["trainer"], "accumulate_grad_batches": accumulated}}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([BEGUN], []),
        (["data.micro_batch=auto"], []),
        ([], ["trainer.accumulate_grad_batches"]),
        (["trainer.accumulate_grad_batches=4"], []),
        ([BEGUN, "data.batch_size=32"], ["data.batch_size"]),
    ],
)
def test_the_same_command_is_of_the_same_run(words: list[str], named: list[str], tmp_path: Path):
    """Whatever is fit here: `data.micro_batch` leaves open what was found then."""
    left = LeftRun(tmp_path, {}, begun(4, BEGUN))
    assert [name for name, *_ in left.differences(composed("train", *words))] == named


def test_a_typed_accumulation_is_compared_though_micro_batch_is_there():
    there = begun(4, BEGUN)
    here = begun(2, BEGUN)
    assert differences(here, there) == [("trainer.accumulate_grad_batches", 2, 4)]


def test_ranks_compare_what_they_found_and_not_what_was_typed():
    same = identity(begun(4, BEGUN), "images")
    assert same == identity(begun(4, "data.micro_batch=auto"), "images")
    assert same != identity(begun(2, BEGUN), "images")


@pytest.mark.e2e
@pytest.mark.slow
def test_a_run_goes_on_as_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """By the same command, by ckpt=, and again from its configuration: there it begins anew."""
    monkeypatch.chdir(tmp_path)
    words = ("experiment=smoke", *CPU, "logger=none", "hydra.run.dir=run", "lr_schedule=constant")
    assert run_here(monkeypatch, "train", *words, "data.micro_batch=16", "trainer.max_steps=10") == 0

    def found(directory: Path) -> tuple[Any, int, int]:
        config = yaml.safe_load((directory / "config.yaml").read_text())
        record = json.loads((directory / "run.json").read_text())
        number = config["trainer"]["accumulate_grad_batches"]
        return config["data"]["micro_batch"], number, record["accumulate_grad_batches"]

    assert found(tmp_path / "run") == (16, 4, 4)
    assert "micro-batches  4 a step, of 16 images on a device" in capsys.readouterr().err
    assert run_here(monkeypatch, "train", *words, "data.micro_batch=auto", "trainer.max_steps=12") == 0
    assert found(tmp_path / "run") == ("auto", 4, 4)
    more = ("hydra.run.dir=more", "trainer.max_steps=14", "data.micro_batch=32")
    assert run_here(monkeypatch, "train", "ckpt=run", *more) == 0
    assert found(tmp_path / "more") == (32, 4, 4)
    again = ("--config-dir", "run", "--config-name", "config", "hydra.run.dir=again", "data.micro_batch=32")
    assert run_here(monkeypatch, "train", *again) == 0
    assert found(tmp_path / "again") == (32, 2, 2)


@pytest.mark.e2e
def test_a_sweep_is_not_checked_for_what_only_its_jobs_find(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    arguments = command_line.words.read(["-m", "data.micro_batch=auto,16,7", "trainer.devices=2"], "train")
    jobs, multirun = command_line.checked(arguments, "train")
    assert multirun
    assert [job.values["data"]["micro_batch"] for job in jobs] == ["auto", 16, 7]
