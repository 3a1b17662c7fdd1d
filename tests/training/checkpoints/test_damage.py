"""A damaged checkpoint is noticed, or what it holds is unharmed; the one before it is taken."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from models import make_module, make_trainer
from training.checkpoints.content import differences

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.checkpoints import CheckpointError, at_step, find, load


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 2 and 4."""
    directory = tmp_path_factory.mktemp("run")
    make_trainer(directory, 4, Checkpoints(every_n_steps=2)).fit(
        make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0)
    )
    return directory


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """Truncated, or with one bit flipped, half of the time near the end, where the table of records is."""
    if chance.random() < 0.25:
        return whole[: chance.randrange(len(whole))]
    first = len(whole) - len(whole) // 10 if chance.random() < 0.5 else 0
    changed = bytearray(whole)
    changed[chance.randrange(first, len(whole))] ^= 1 << chance.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_damage_is_noticed_or_harmless(run: Path, tmp_path: Path, count: int):
    newest = run / "checkpoints" / at_step(4)
    whole, content = newest.read_bytes(), load(newest)
    path = tmp_path / "damaged.ckpt"
    noticed = 0
    for seed in range(count):
        path.write_bytes(damaged(whole, random.Random(seed)))
        try:
            found = load(path)
        except CheckpointError:
            noticed += 1
        else:
            assert not [*differences(found, content)], seed
    assert noticed > 0.6 * count


def test_every_bit_of_a_weight_counts(run: Path, tmp_path: Path):
    newest = run / "checkpoints" / at_step(4)
    weight = load(newest)["ema"]["parameters"]["conv_in.weight"]
    whole = newest.read_bytes()
    at = whole.index(weight.numpy().tobytes()[:64])
    for bit in range(32):
        changed = bytearray(whole)
        changed[at + bit // 8] ^= 1 << bit % 8
        (tmp_path / "flipped.ckpt").write_bytes(changed)
        with pytest.raises(CheckpointError, match="a checksum differs"):
            load(tmp_path / "flipped.ckpt")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "not finite"])
def test_the_one_before_a_damaged_one_is_taken(
    run: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
):
    directory = tmp_path / "run"
    shutil.copytree(run, directory)
    for path in (directory / "checkpoints" / name for name in (at_step(4), "last.ckpt")):
        data = bytearray(path.read_bytes())
        if damage == "truncated":
            del data[-1000:]
        elif damage == "flipped":
            data[len(data) // 2] ^= 1
        else:
            content = torch.load(path, weights_only=True)
            content["optimizer_states"][0]["state"][3]["exp_avg"].view(-1)[-1] = float("inf")
            torch.save(content, path)
            continue
        path.write_bytes(data)
    path, content = find(directory)
    assert path.name == at_step(2)
    assert content["global_step"] == 2
    said = [record.message for record in caplog.records]
    assert f"falling back to {path}, step 2" in said
    if damage == "not finite":
        assert "is not finite: optimizer_states.0.state.3.exp_avg holds NaN or infinity" in said[0]
