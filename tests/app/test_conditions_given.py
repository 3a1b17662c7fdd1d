"""Runs that are conditioned on more than the class, from training to what is drawn, measured and refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import _make_run, composed, run_command, run_here, run_program
from PIL import Image

import ddpm
from ddpm.app import conditions_given, demo
from ddpm.app.build import build_data
from ddpm.app.measuring import several_runs
from ddpm.app.measuring.measurement import data_of, draw_under_held_out
from ddpm.data.conditions.downsampled import Downsampled
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.diffusion.condition import Condition
from ddpm.errors import UsageError
from ddpm.evaluation.nll import NLL
from ddpm.sampling.conditions import HeldOut
from ddpm.sampling.figures import sheet

pytestmark = pytest.mark.e2e


def picture(path: Path, height: int, width: int, grey: int = 128, mode: str = "L") -> Path:
    Image.new(mode, (width, height), (grey,) * len(mode) if mode != "L" else grey).save(path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """small (4x4), large (8x8), odd (5x7), vast (40x40, in colour), mask and a mask of another size."""
    for name, size in (("small", 4), ("large", 8), ("other", 6)):
        picture(tmp_path / f"{name}.png", size, size, 200)
    half = np.repeat([0, 255], 32).reshape(8, 8).astype(np.uint8)
    Image.fromarray(half).save(tmp_path / "mask.png")
    picture(tmp_path / "odd.png", 5, 7)
    picture(tmp_path / "vast.png", 40, 40, 90, "RGB")
    return tmp_path


def sampled(monkeypatch: pytest.MonkeyPatch, run: Path, out: Path, *words: str) -> int:
    return run_here(monkeypatch, "sample", f"ckpt={run}", f"out={out}", "n=3", *words)


def drawn(out: Path) -> np.ndarray:
    found: np.ndarray = np.load(out / "samples.npz")["arr_0"]
    return found


def test_pictures_of_every_size_that_fits_are_read(downsampled_run: Path, pictures: Path):
    run = ddpm.load(downsampled_run, device="cpu")

    def image(name: str) -> torch.Tensor:
        words = {"condition": str(pictures / name), "condition_mask": None}
        found = conditions_given.read(words, run).conditions
        assert found is not None
        seen = found([0]).image
        assert seen is not None
        return seen

    small = image("small.png")
    assert small.unique().item() == pytest.approx(200 / 127.5 - 1, abs=1e-6)
    assert torch.equal(image("large.png"), small), "the same grey, brought down"
    assert image("vast.png").unique().item() == pytest.approx(90 / 127.5 - 1, abs=1e-6)


@pytest.mark.slow
def test_pictures_of_every_size_that_fits_are_drawn_from(
    downsampled_run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("small", "large", "vast"):
        words = f"condition={pictures / name}.png"
        assert sampled(monkeypatch, downsampled_run, pictures / f"out_{name}", words) == 0
    small, large, vast = (drawn(pictures / f"out_{name}") for name in ("small", "large", "vast"))
    assert np.array_equal(small, large), "the same grey, brought down"
    assert not np.array_equal(small, vast)
    many = pictures / "many"
    many.mkdir()
    for name in ("large", "small"):
        shutil.copy(pictures / f"{name}.png", many)
    assert sampled(monkeypatch, downsampled_run, pictures / "out_many", f"condition={many}") == 0
    assert np.array_equal(drawn(pictures / "out_many"), small)
    assert sampled(monkeypatch, downsampled_run, pictures / "out_held", "condition=held_out") == 0
    assert sampled(monkeypatch, downsampled_run, pictures / "out_default") == 0
    assert np.array_equal(drawn(pictures / "out_held"), drawn(pictures / "out_default"))
    assert sampled(monkeypatch, downsampled_run, pictures / "out_index", "condition=1") == 0
    assert np.array_equal(drawn(pictures / "out_index")[1], drawn(pictures / "out_held")[1])


def test_a_held_out_image_gives_its_condition_class_and_truth(masked_run: Path, pictures: Path):
    run = ddpm.load(masked_run, device="cpu")
    held_out = build_data({"data": run.config["data"], "seed": 0}).held_out([17])
    mask = str(pictures / "mask.png")
    words: dict[str, Any] = {"condition": "17", "condition_mask": None, "start": None, "allow_targets": []}
    for typed in ({}, {"condition_mask": mask}, {"condition": None, "start": "17"}):
        found = conditions_given.read({**words, **typed}, run).conditions
        assert found is not None
        assert found.labels([0, 5]) == 2 * held_out.labels.tolist()  # type: ignore[union-attr]
        assert torch.equal(found.truth([0, 5])[1], held_out.x_0[0])  # type: ignore[index]
        same = torch.equal(found([3]).image, held_out.condition.image)  # type: ignore[union-attr,arg-type]
        assert same == ("condition_mask" not in typed)
    with pytest.raises(UsageError, match="drawn under, as condition=PICTURE, or condition=held_out"):
        conditions_given.read({**words, "condition": None, "start": mask}, run)


@pytest.mark.slow
def test_images_have_the_class_of_what_they_are_drawn_under(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (run := tmp_path / "run").mkdir()
    words = ("conditional=true", "data.label_drop=0.1", "condition=masked", "data.condition_drop=0.1")
    _make_run(run, *words)
    settings = ddpm.load(run, device="cpu").config["data"]
    labels = build_data({"data": settings, "seed": 0}).held_out(range(9)).labels.tolist()  # type: ignore[union-attr]
    other = next(index for index, label in enumerate(labels) if label)

    def classes(out: str, *words: str) -> list[int]:
        assert sampled(monkeypatch, run, tmp_path / out, *words) == 0
        found: list[int] = np.load(tmp_path / out / "samples.npz")["arr_1"].tolist()
        return found

    assert classes("turn") == labels[:3]
    assert classes("one", f"condition={other}") == 3 * [labels[other]]
    # conditions without a class were never shown: label and condition are withheld together
    assert classes("from", f"start={other}", "start_t=20") == 3 * [labels[other]]
    shared = classes("shared", f"condition={other}", "shared_t=20", "sampler=ancestral")
    assert set(shared) == {labels[other]}


@pytest.mark.slow
def test_a_picture_with_a_mask_is_drawn_from(
    masked_run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    words = f"condition={pictures}/large.png", f"condition_mask={pictures}/mask.png"
    assert sampled(monkeypatch, masked_run, pictures / "out", *words) == 0
    assert sampled(monkeypatch, masked_run, pictures / "index", "condition=3", words[1]) == 0
    assert sampled(monkeypatch, masked_run, pictures / "default") == 0
    others = [drawn(pictures / name) for name in ("out", "index", "default")]
    assert not any(np.array_equal(others[0], other) for other in others[1:])


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        ("unconditional", ["condition=small.png"], "conditioned on nothing beside the class; leave"),
        ("unconditional", ["condition=held_out"], "conditioned on nothing beside the class"),
        ("downsampled", ["condition=odd.png"], "is 5x7 (height x width); this run takes pictures of 4x4"),
        ("downsampled", ["condition=nowhere.png"], "condition=nowhere.png: there is no such file or folder"),
        ("downsampled", ["condition=360"], "hold out 360 images"),
        ("downsampled", ["condition=1", "condition_mask=mask.png"], "is for runs of condition=masked"),
        ("masked", ["condition=large.png"], "condition_mask=PICTURE, white there"),
        ("masked", ["condition_mask=mask.png"], "needs the picture that it is of, condition=PICTURE"),
        ("masked", ["condition=large.png", "condition_mask=other.png"], "is 6x6 (height x width)"),
        ("masked", ["guidance=classifier_free"], "or with a condition and data.condition_drop=0.1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_left(
    kind: str,
    words: Sequence[str],
    said: str,
    request: pytest.FixtureRequest,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(pictures)
    run = request.getfixturevalue(f"{kind}_run")
    assert sampled(monkeypatch, run, pictures / "out", *words) == 2
    assert said in capsys.readouterr().err
    assert not (pictures / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["condition=downsampled", "data.condition.factor=3"], "factor=3: does not divide images of 8x8"),
        (["condition=downsamplet"], "condition=downsamplet: there is no such option; did you mean"),
        (["data.condition.factor=2"], "what is chosen takes no keys; choose one of condition="),
        (["data.condition={a: 1}"], "data.condition.a"),
        (["data.condition_drop=0.1"], "data.condition_drop=0.1: there is no condition to withhold"),
        (["condition=downsampled", "data.condition_drop=1.5"], "data.condition_drop=1.5 must be in [0, 1]"),
        (["condition=downsampled", "guidance=classifier_free"], "data.condition_drop=0.1"),
    ],
)  # fmt: skip
def test_training_refuses_what_makes_no_sense(
    words: Sequence[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "experiment=smoke", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_weights_of_another_condition_are_refused(
    downsampled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "experiment=smoke", f"init={downsampled_run}") == 2
    said = capsys.readouterr().err
    assert "condition: this network takes none, and the checkpoint's an image of 1 channels" in said


def test_where_a_condition_has_no_place_is_said(
    downsampled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run_command(monkeypatch, "export", downsampled_run, tmp_path / "out") == 2
    assert "a DDPMPipeline gives its network nothing but noise" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="the page has no place for that"):
        demo._opened([downsampled_run], [])


def test_a_notebook_gives_the_condition_of_each_image(downsampled_run: Path):
    run = ddpm.load(downsampled_run, device="cpu")
    assert "Downsampled: an image of 1 channels" in repr(run)
    with pytest.raises(ValueError, match="no condition is given"):
        run.sample(2)
    with pytest.raises(ValueError, match="takes an image of 1 channels, and is given an image of 2 channels"):
        run.sample(2, condition=Condition(torch.zeros(1, 2, 8, 8)))
    with pytest.raises(ValueError, match="condition: is 4x4"):
        run.sample(2, condition=Condition(torch.zeros(1, 1, 4, 4)))
    given = Downsampled(2)(torch.rand(2, 1, 8, 8), torch.zeros(2, 0))
    images = run.sample(3, condition=given)
    assert torch.allclose(run.sample(1, condition=given)[0], images[0], atol=1e-3)
    assert not torch.equal(run.sample(3, condition=given.withheld()), images)
    guided = run.sample(3, condition=given, guidance="classifier_free", scale=3.0)
    assert not torch.allclose(guided, images)
    unguided = run.sample(3, condition=given, guidance="classifier_free", scale=0.0)
    assert torch.allclose(unguided, run.sample(3, condition=given.withheld()), atol=1e-5)
    assert run.grid(2, condition=given).size[0] == 2 + 2 * 66, "condition and sample, no truth"


def test_a_grid_shows_condition_sample_and_truth(downsampled_run: Path):
    run = ddpm.load(downsampled_run, device="cpu")
    data = build_data({"data": run.config["data"], "seed": 0})
    run.module.conditions = HeldOut(data)
    held_out = data.held_out(range(2))
    picture = sheet(run.module, run.sample(2))
    cells = [picture[16:80, 2 + 66 * i : 66 + 66 * i : 8, 0][::8] for i in range(3)]
    assert held_out.condition is not None
    assert held_out.condition.image is not None
    for cell, x in ((0, held_out.condition.image), (2, held_out.x_0)):
        assert np.array_equal(cells[cell], ((x[0, 0] + 1) * 127.5).round().numpy())


@pytest.mark.slow
def test_likelihood_is_of_each_image_under_its_own_condition(
    downsampled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ("metrics=[nll]", "metrics.nll.n=8", "metrics.nll.num_steps=3", f"hydra.run.dir={tmp_path}/out")
    assert run_here(monkeypatch, "evaluate", f"ckpt={downsampled_run}", *words) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["nll"]
    run = ddpm.load(downsampled_run, device="cpu")
    data = build_data({"data": run.config["data"], "seed": 0})
    held_out = data.held_out(range(8))
    assert held_out.condition is not None
    withheld = held_out.condition.withheld()
    with run.module.evaluating():
        own = NLL(3, 8).bound(run.module, data, range(8), 0, lambda: None).total.mean().item()
        run.module.conditions = None
        monkeypatch.setattr(data, "held_out", lambda _: held_out._replace(condition=withheld))
        without = NLL(3, 8).bound(run.module, data, range(8), 0, lambda: None).total.mean().item()
    assert found["bits_per_dim"] == pytest.approx(own, rel=1e-5)
    assert without != pytest.approx(own, rel=1e-3)


WORDS = (
    "experiment=smoke", "condition=masked", "conditional=true", "data.condition_drop=0.2",
    "data.label_drop=0.2", "trainer.max_steps=2", "callbacks=none", "logger=none",
    "trainer.val_check_interval=2", "trainer.accelerator=cpu",
)  # fmt: skip


@pytest.mark.slow
def test_one_device_and_two_train_alike_and_draw_alike(tmp_path: Path):
    """Random masks, and what is withheld, are by the index in the global batch."""
    losses = []
    for devices in (1, 2):
        out = tmp_path / str(devices)
        words = (*WORDS, f"trainer.devices={devices}", f"hydra.run.dir={out}", "strategy=ddp")
        outcome = run_program("train.py", *words, cwd=tmp_path)
        assert outcome.returncode == 0, outcome.said
        rows = (out / "metrics.csv").read_text().splitlines()
        losses.append(dict(zip(rows[0].split(","), rows[-1].split(","), strict=True)))
    for name in ("train/loss", "val/loss"):
        assert float(losses[0][name]) == pytest.approx(float(losses[1][name]), rel=1e-5)


def test_a_kind_that_gives_nothing_is_refused():
    nothing = {"_target_": "ddpm.diffusion.condition.Condition"}
    config = composed("train", "experiment=smoke")
    with pytest.raises(UsageError, match="Condition gives neither an image nor numbers"):
        build_data({**config, "data": {**config["data"], "condition": nothing}})


def test_images_of_another_shape_are_said_to_be_that(masked_run: Path, tmp_path: Path):
    colours = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "others.npz", images=colours)
    words = (f"ckpt={masked_run}", "data=npz", f"data.path={tmp_path / 'others.npz'}")
    run = ddpm.load(masked_run, device="cpu")
    with pytest.raises(UsageError, match=r"data: images are \[3, 8, 8\] .* and the run draws \[1, 8, 8\]"):
        draw_under_held_out(run, data_of(run, composed("evaluate", *words)))


def test_runs_are_compared_under_conditions_of_the_same_images():
    sets = [DataSet(*(ImageSet(np.full((2, 2, 4, 4), v, np.uint8)),) * 2) for v in (1, 2)]
    paired = DataSet(sets[0].train, sets[0].validation, condition_channels=1)
    plain = DataSet(*(ImageSet(np.ones((2, 1, 4, 4), np.uint8)),) * 2)
    several_runs._check_same_held_out(paired, plain)
    with pytest.raises(UsageError, match="hold out other images than those of the first run"):
        several_runs._check_same_held_out(*sets)


def test_training_is_refused_where_no_condition_is_held_to_draw_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def stream(self: ImageDataModule, indices: Sequence[int]) -> None:
        raise ValueError("data.condition: no image of this stream is held out")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ImageDataModule, "held_out", stream)
    assert run_here(monkeypatch, "train", "experiment=smoke", "condition=masked") == 2
    assert "no image of this stream is held out" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_a_run_does_not_go_on_under_another_condition(
    downsampled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", f"ckpt={downsampled_run}", "condition=masked") == 2
    assert "belongs to another run: data.condition" in capsys.readouterr().err


def of_vectors() -> Any:
    """A run that is conditioned on two numbers, as far as they are read."""
    about = {"condition": {"mean": [1.0, 2.0], "std": [2.0, 4.0]}}
    module = SimpleNamespace(is_conditioned=True, vector_size=2, condition_channels=0, data=about)
    return SimpleNamespace(module=module, config={})


def test_numbers_are_read_as_the_network_sees_them(tmp_path: Path):
    rows = np.array([[3.0, 2.0], [1.0, 6.0]])
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "rows.npz", rows)
    for typed in ("[[3,2],[1,6]]", str(tmp_path / "rows.npy"), str(tmp_path / "rows.npz")):
        found = conditions_given.read({"condition": typed, "condition_mask": None}, of_vectors())
        assert found.conditions is not None
        vector = found.conditions([0, 1, 2]).vector
        assert vector is not None
        assert vector.tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("[1,2,3]", r"is \[1, 3\], and this run takes vectors of 2 numbers"),
        ("[1,two]", "must be numbers"),
        ("[1,NaN]", "not finite"),
        ("nowhere.npy", "there is no such file; numbers are typed as"),
        (__file__, "cannot be read as an .npy or .npz file"),
    ],
)
def test_other_numbers_are_refused(typed: str, said: str):
    with pytest.raises(UsageError, match=said):
        conditions_given.read({"condition": typed, "condition_mask": None}, of_vectors())
