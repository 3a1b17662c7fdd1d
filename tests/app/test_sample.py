"""sample.py refuses what it cannot do, with one message and nothing left behind."""

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from models import make_module
from PIL import Image
from torch import nn

import ddpm
from ddpm.app import command_line, pictures_given
from ddpm.app import sample as app_sample
from ddpm.app.asked_rows import asked_rows, grid_of
from ddpm.app.build import build_data
from ddpm.data.images import ImageSet
from ddpm.data.pixels.decoding import Decoded
from ddpm.data.pixels.shaping import Shaping
from ddpm.data.sources.folder import Folder
from ddpm.diffusion import Known
from ddpm.diffusion.samplers import Heun
from ddpm.errors import UsageError
from ddpm.networks import UNet
from ddpm.sampling.captions import CAPTION
from ddpm.sampling.figures import to_uint8

MISTAKES = {
    "n=0": r"n=0: must be at least 1",
    "n=many": r"n=many: must be a whole number",
    "n=true": r"n=True: must be a whole number",
    "seed=-1": r"seed=-1: must be at least 0",
    "weights=best": r"weights=best: must be ema or raw",
    "progressive=1": r"progressive=1: must be at least 2",
    "progressive=3 shared_t=5": r"progressive and shared_t: .* give one",
    "progressive=3 n=101": r"n=101: a picture shows at most 100",
    "shared_t=[]": r"shared_t=\[\]: must name at least one step",
    "shared_t=1000": r"shared_t=1000: the reverse process goes from t = 999 down to 0",
    "shared_t=0": r"shared_t=0: below t = 1 this sampler draws no noise.* use shared_t=1 or more",
    "shared_t=500 n=1": r"n=1: to share x_t takes at least 2 images",
    "shared_t=500 sampler=ddim": r"shared_t=500: DDIM .* draws no noise .* sampler=ddim sampler\.eta=1",
    "shared_t=[30,29] sampler=ddim sampler.eta=1": r"shared_t: two rows would be of t = 20.* of the 50 steps",
    "shared_t=5 start=first.png end=first.png start_t=9": r"shared_t and end: .* give one",
    "same_noise=true": r"same_noise: is of images that lead from one picture to another; give start=",
    "same_noise=true start=first.png start_t=9": r"same_noise: is of images that lead from one",
    "start_t=[5]": r"start_t=\[5\]: needs a picture to start from",
    "start_t=[5,5] start=first.png": r"start_t: two rows would be of t = 5; leave one out",
    "start_t=[5,9] start=first.png progressive=3": r"start_t=\[5, 9\] and progressive: each makes a picture",
    "start=360 start_t=5": r"start=360: .* hold out 360 images, 0 to 359; a file .* start=\./360",
    "format=jpg": r"format=jpg: must be npz or png or both",
    "batch_size=0": r"batch_size=0: must be at least 1",
    "trainer.precision=16-mixed": r"trainer\.precision=16-mixed: is for GPUs; on a CPU",
    "compile=often": r"compile=often: must be true or false or null",
    "sampler=ddim sampler.num_steps=5000": r"sampler\.num_steps=5000",
    "sampler.eta=0.5": r"sampler\.eta: there is no such key.*this run is Ancestral; sampler=OPTION",
    "guidance.scale=2": r"guidance: this run was trained without classes; .* conditional=true",
    "guidance=classifier_free": r"guidance: this run was trained without classes",
    "labels=[cat]": r"labels: this run was trained without classes, so there is no cat",
    "sampler.timesteps=[0,10,300]": r"sampler\.timesteps ends at 300, and noise is x_t at t = 999",
    "start=first.png start_t=20 sampler=ddim": r"num_steps=50: from t = 20 .* use sampler\.num_steps=21",
    "labels=[1]": r"labels=\[1\]: the network was trained without classes",
    "start=nowhere start_t=5": r"start=nowhere: there is no such file",
    "start=samples.npz start_t=5": r"start=samples\.npz: cannot be read as a picture: it is empty",
    "start_t=5": r"start_t=5: needs a picture to start from, start=PICTURE",
    "mask=mask.png": r"mask=mask\.png: needs a picture to start from",
    "start=first.png": r"start_t is missing: .* try start_t=499",
    "start=first.png start_t=1000": r"start_t=1000: .* to 999 with schedule\.num_timesteps=1000",
    "start=first.png start_t=few": r"start_t=few: must be a whole number or a list \[\.\.\.\] of .* or null",
    "start=first.png start_t=5 end=first.png n=1": r"n=1: .* at least 2",
    "start=first.png mask=second.png": r"mask: is 9x30 .* 8x8",
    "start=first.png mask=first.png end=first.png": r"mask and end: give one",
    "sampler=dddim": r"sampler=dddim: there is no such option; did you mean ddim",
    "trainer.accelerator=toaster": r"trainer: .*toaster",
    "trainer.devices=0": r"trainer\.devices=0: must be a number of devices",
    "trainer.max_steps=5": r"trainer\.max_steps: there is no such key; valid here: accelerator, devices",
    "strategy=ddpp": r"strategy=ddpp: there is no such option; did you mean ddp",
    "timeout=0": r"timeout=0.*: must be above 0 seconds",
    "device=cuda:1": r"device: is now trainer\.accelerator with trainer\.devices",
    "precision=bf16-mixed": r"precision: is now trainer\.precision",
    "number=3": r"number: there is no such key",
    "ckpt=nowhere": r"ckpt=.*nowhere: there is no such run directory",
    "out=/proc/x": r"out=/proc/x: ",
    "out=.": r"holds samples\.npz of another run already",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_told(
    arguments: str,
    smoke_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.npz").touch()
    Image.new("RGB", (30, 20)).save(tmp_path / "first.png")
    Image.new("RGB", (30, 9)).save(tmp_path / "second.png")
    monkeypatch.setattr(sys, "argv", ["sample.py", f"ckpt={smoke_run}", *arguments.split()])
    with pytest.raises(SystemExit) as exit_:
        command_line.run("sample")
    said = capsys.readouterr().err
    assert exit_.value.code == 2, said
    assert re.search(MISTAKES[arguments], said), said
    assert {path.name for path in tmp_path.iterdir()} == {"samples.npz", "first.png", "second.png"}


def sampled(directory: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """What sample.py leaves, and the samples, uint8 [N, H, W, C]."""
    monkeypatch.setattr(sys, "argv", ["sample.py", *arguments, f"out={directory}"])
    with pytest.raises(SystemExit) as exit_:
        command_line.run("sample")
    assert exit_.value.code == 0
    return directory, np.load(directory / "samples.npz")["arr_0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("labels=[1,10]", r"labels=\[1, 10\]: there is no class 10; classes are 0 to 9"),
        ("labels=[cat]", r"labels: this run has no class cat; they are 0, 1, 2"),
        ("labels=3", r"labels=3: must be "),
        ("labels=[1.5]", r"labels: this run has no class 1\.5; they are 0, 1"),
        ("labels=[true]", r"labels: this run has no class True"),
        ("guidance.scale=two", r"guidance\.scale=two: must be a number"),
        ("guidance.interval=[0.2,0.8]", r"guidance\.interval=\[0\.2, 0\.8\]: must be .* whole numbers"),
        ("guidance.interval=[0,50]", r"guidance\.interval=\[0, 50\]: t is 0 to 49"),
    ],
)
def test_a_class_that_there_is_not_is_told(
    arguments: str,
    message: str,
    conditional_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setattr(sys, "argv", ["sample.py", f"ckpt={conditional_run}", arguments])
    with pytest.raises(SystemExit) as exit_:
        command_line.run("sample")
    said = capsys.readouterr().err
    assert exit_.value.code == 2, said
    assert re.search(message, said), said


def test_classes_and_guidance_are_chosen_on_the_command_line(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ckpt = f"ckpt={conditional_run}"
    directory, every = sampled(tmp_path / "every", ckpt, "n=20", monkeypatch=monkeypatch)
    assert np.load(directory / "samples.npz")["arr_1"].tolist() == [*range(10), *range(10)]
    columns, rows = 10, 2
    assert Image.open(directory / "grid.png").size == (2 + columns * 66, 2 + rows * (66 + CAPTION))
    _, named = sampled(tmp_path / "named", ckpt, "n=4", 'labels=["2",3]', monkeypatch=monkeypatch)
    assert np.array_equal(named[2:], every[2:4])  # the same noise and the same class
    assert not np.array_equal(named[0], every[0])
    assert not np.array_equal(named[1], every[1])
    _, guided = sampled(
        tmp_path / "guided", ckpt, "n=4", "labels=[2,3]", "guidance.scale=5", monkeypatch=monkeypatch
    )
    assert not np.array_equal(guided, named)
    _, plain = sampled(tmp_path / "one", ckpt, "n=4", "guidance.scale=1", monkeypatch=monkeypatch)
    _, none = sampled(tmp_path / "none", ckpt, "n=4", "guidance=none", monkeypatch=monkeypatch)
    assert np.array_equal(plain, none)


def assert_cells(path: Path, columns: int, images: Sequence[np.ndarray]) -> None:
    """A grid of captioned images of 8x8, and nothing beside them."""
    shown = np.asarray(Image.open(path))
    assert shown.shape[:2] == (2 + (CAPTION + 66) * math.ceil(len(images) / columns), 2 + 66 * columns)
    for i, image in enumerate(images):
        top, left = 2 + (CAPTION + 66) * (i // columns) + CAPTION, 2 + 66 * (i % columns)
        assert np.array_equal(shown[top : top + 64 : 8, left : left + 64 : 8, 0], image), i


def test_a_grid_without_classes_shows_what_its_images_are_from():
    model: Any = SimpleNamespace(classes=None, num_classes=None, conditions=None, is_conditioned=False)
    start, end, drawn = torch.full((1, 8, 8), -1.0), torch.ones(1, 8, 8), torch.zeros(5, 1, 8, 8)
    row = grid_of(model, drawn, pictures_given.Given({"start": start, "end": end}), None, None)
    assert row.shape == (2 + CAPTION + 66, 2 + 7 * 66, 3)
    assert row[CAPTION + 10, [10, 10 + 6 * 66], 0].tolist() == [0, 255]
    around = pictures_given.Given({"start": start}, Known(start, torch.ones(1, 8, 8, dtype=torch.bool)))
    square = grid_of(model, drawn, around, None, None)
    assert square.shape == (2 + 3 * (CAPTION + 66), 2 + 3 * 66, 3)
    assert square[CAPTION + 10, [10, 76, 142], 0].tolist() == [0, 255, 128]


def test_pictures_are_what_sampling_starts_from(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    levels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(levels).save("first.png")
    Image.fromarray(255 - levels).save("last.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 255
    Image.fromarray(mask).save("mask.png")
    ckpt = f"ckpt={conditional_run}"

    directory, near = sampled(
        tmp_path / "near", ckpt, "n=3", "start=first.png", "start_t=3", monkeypatch=monkeypatch
    )
    _, far = sampled(tmp_path / "far", ckpt, "n=3", "start=first.png", "start_t=49", monkeypatch=monkeypatch)
    distance = [np.abs(x[..., 0].astype(int) - levels).mean() for x in (near, far)]
    assert distance[0] < distance[1]
    assert np.array_equal(np.asarray(Image.open(directory / "start.png")), levels)

    _, drawn = sampled(
        tmp_path / "drawn", ckpt, "n=2", "start=first.png", "mask=mask.png", monkeypatch=monkeypatch
    )
    assert (drawn[:, :, :4, 0] == levels[:, :4]).all()
    assert_cells(tmp_path / "drawn" / "grid.png", 2, [levels, mask, *drawn[..., 0]])
    assert not np.array_equal(drawn[0, :, 4:, 0], levels[:, 4:])

    arguments = (ckpt, "n=3", "labels=[4]", "start=first.png", "start_t=10")
    _, ends = sampled(tmp_path / "way", *arguments, "end=last.png", monkeypatch=monkeypatch)
    assert_cells(tmp_path / "way" / "grid.png", 5, [levels, *ends[..., 0], 255 - levels])
    _, first = sampled(tmp_path / "same", *arguments, monkeypatch=monkeypatch)
    assert np.array_equal(ends[0], first[0])  # the same noise and the same picture
    assert not np.array_equal(ends[1], first[1])


def test_the_way_of_each_image_is_shown_beside_the_same_images(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    arguments = (f"ckpt={conditional_run}", "n=4", "sampler=ddim", "sampler.num_steps=7", "batch_size=3")
    _, plain = sampled(tmp_path / "plain", *arguments, monkeypatch=monkeypatch)
    directory, images = sampled(tmp_path / "way", *arguments, "progressive=3", monkeypatch=monkeypatch)
    assert np.array_equal(images, plain)
    with Image.open(directory / "progressive.png") as picture:
        shown = np.asarray(picture)
    left = shown.shape[1] - 3 * 66 - 2  # where classes are named
    assert 0 < left < 66
    assert shown.shape[0] == 2 + CAPTION + 4 * 66
    for i, image in enumerate(images):
        top = 2 + CAPTION + i * 66
        cells = [shown[top : top + 64 : 8, left + 2 + 66 * k :][:, :64:8, 0] for k in range(3)]
        assert np.array_equal(cells[2], image[..., 0])
        assert not np.array_equal(cells[0], cells[1])
    assert not (tmp_path / "way" / "pieces").exists()


def test_images_share_x_t_and_differ_below_it(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    asked = (
        f"ckpt={conditional_run}", "n=3", "sampler=ddim", "sampler.num_steps=8", "sampler.eta=1",
        "labels=[4]", "shared_t=[7,48]", "format=both", "batch_size=2",
    )  # fmt: skip
    directory, images = sampled(tmp_path / "shared", *asked, monkeypatch=monkeypatch)
    assert len(images) == 6
    assert len(list((directory / "images").glob("*_4.png"))) == 6
    assert np.array_equal(images[0], images[3])  # image 0 is itself in every row
    low, high = (np.abs(row[1:].astype(int) - row[0]).mean() for row in (images[:3], images[3:]))
    assert 0 < low < high
    shown = np.asarray(Image.open(directory / "shared.png"))
    assert shown.shape[0] == 2 + CAPTION + 2 * 66
    left = shown.shape[1] - 4 * 66 - 2
    cells = [shown[2 + CAPTION :: 8, left + 2 + 66 * k :][:8, :64:8, 0] for k in range(4)]
    assert all(np.array_equal(cell, image[..., 0]) for cell, image in zip(cells[1:], images[:3], strict=True))


def test_several_start_t_are_rows_between_held_out_images(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    arguments = (f"ckpt={conditional_run}", "n=3", "start=17", "end=42", "trainer.accelerator=cpu")
    directory, images = sampled(tmp_path / "rows", *arguments, "start_t=[10,30]", monkeypatch=monkeypatch)
    _, lone = sampled(tmp_path / "lone", *arguments, "start_t=30", monkeypatch=monkeypatch)
    assert np.array_equal(images[3:], lone)
    run = ddpm.load(conditional_run, device="cpu")
    config = {"data": run.config["data"], "seed": run.config["seed"]}
    held_out = build_data(config).data_set.validation.images
    for name, index in (("start", 17), ("end", 42)):
        assert np.array_equal(np.asarray(Image.open(directory / f"{name}.png")), held_out[index, 0])
    shown = np.asarray(Image.open(directory / "interpolation.png"))
    left = shown.shape[1] - 5 * 66 - 2
    cells = [shown[2 + CAPTION :: 8, left + 2 + 66 * k :][:8, :64:8, 0] for k in range(5)]
    assert np.array_equal(cells[0], held_out[17, 0])
    assert np.array_equal(cells[4], held_out[42, 0])
    assert all(np.array_equal(cells[1 + i], images[i, ..., 0]) for i in range(3))
    other, _ = sampled(tmp_path / "variations", *arguments[:3], "start_t=[10,30]", monkeypatch=monkeypatch)
    assert (other / "variations.png").exists()


@pytest.mark.parametrize("same_noise", [False, True])
def test_the_images_of_a_row_take_one_noise_where_they_are_asked_to(same_noise: bool, conditional_run: Path):
    module = ddpm.load(conditional_run, device="cpu").module
    ends = {"start": torch.zeros(1, 8, 8), "end": torch.ones(1, 8, 8)}
    nothing = {"progressive": None, "shared_t": None, "end": "b.png"}
    config = {"n": 3, "start_t": [10, 30], "same_noise": same_noise, **nothing}
    rows = asked_rows(config, module, pictures_given.Given(ends), seed=0, labels=[0]).rows
    assert [row.drawing.same_noise for row in rows] == [same_noise] * 2


NOTHING: dict[str, Any] = dict.fromkeys(("start", "start_t", "end", "mask"))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"resize": "nearest"},
        {"resize": "box", "crop": "none"},
        {"crop": "random"},
        {"crop": "random", "resize": "bicubic", "value_range": [10, 100]},
    ],
)
def test_a_picture_to_start_from_is_shaped_as_the_runs_images_were(
    settings: dict[str, Any], conditional_run: Path, tmp_path: Path
):
    """As the middle of an image that was read for the run, pixel for pixel."""
    (tmp_path / "images").mkdir()
    picture = tmp_path / "images" / "a.png"
    pixels = np.random.default_rng(0).integers(10, 100, (30, 53, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    images = Folder(tmp_path / "images", image_size=8, channels=1, **settings).read().train
    assert isinstance(images, ImageSet)
    [expected] = images.centre((8, 8)).images
    run = ddpm.load(conditional_run, device="cpu")
    run.config["data"] = {"_target_": "ddpm.data.sources.folder.Folder", **settings}
    given = pictures_given.read({**NOTHING, "start": str(picture), "start_t": 3}, run)
    assert np.array_equal(to_uint8(given.sources["start"]), expected)


def test_a_picture_of_the_size_of_the_images_stays_as_it_is(conditional_run: Path, tmp_path: Path):
    """Such as one that the run drew, where training shows a part of each."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "drawn.png")
    run = ddpm.load(conditional_run, device="cpu")
    run.config["data"] = {"crop": "random"}
    config = {**NOTHING, "start": str(tmp_path / "drawn.png"), "start_t": 3}
    assert np.array_equal(to_uint8(pictures_given.read(config, run).sources["start"])[0], pixels)
    run.config["data"] = {"crop": 3, "resize": ["x"], "value_range": "wide"}  # of a source of one's own
    assert np.array_equal(to_uint8(pictures_given.read(config, run).sources["start"])[0], pixels)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"_target_": "ddpm.data.sources.folder.Folder", "path": "nowhere"}, r"cannot be read: .*nowhere"),
        ({}, r"cannot be read: data: this run says nothing about it"),
    ],
)
def test_held_out_images_of_data_that_are_gone_are_refused(
    data: dict[str, Any], said: str, conditional_run: Path
):
    run = ddpm.load(conditional_run, device="cpu")
    run.config["data"] = data
    with pytest.raises(UsageError, match=rf"start=3: .* {said}.*; start=PICTURE names a file"):
        pictures_given.read({**NOTHING, "start": "3", "start_t": 3, "allow_targets": []}, run)


@pytest.mark.parametrize("crop", ["center", "random", "none"])
def test_a_mask_as_large_as_the_picture_is_shaped_as_that_is_and_stays_black_and_white(
    crop: str, conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is white in the mask is what is white in a picture of the same drawing."""
    asked: list[tuple[str, Shaping]] = []
    decode = pictures_given.decode_or_reason

    def look(file: Path, shaping: Shaping) -> Decoded | str:
        asked.append((file.name, shaping))
        return decode(file, shaping)

    monkeypatch.setattr(pictures_given, "decode_or_reason", look)
    drawing = np.zeros((40, 64), np.uint8)
    drawing[:20, 32:] = 255
    for name in ("start", "mask"):
        Image.fromarray(drawing).save(tmp_path / f"{name}.png")
    run = ddpm.load(conditional_run, device="cpu")
    run.config["data"] = {"crop": crop}
    config = {**NOTHING, "start": str(tmp_path / "start.png"), "mask": str(tmp_path / "mask.png")}
    given = pictures_given.read(config, run)
    known = given.known
    assert known is not None
    assert known.mask.dtype == torch.bool
    expected = np.zeros((8, 8), bool)
    expected[:4, 4:] = True
    assert np.array_equal(known.mask[0], expected)
    assert np.array_equal(given.sources["start"][0] > 0, expected)
    resized = {name: shaping.resize for name, shaping in asked if shaping.size is not None}
    assert resized == {"start.png": "lanczos", "mask.png": "nearest"}


@pytest.mark.e2e
def test_precision_layout_and_compilation_are_chosen_on_the_command_line(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """And none of them changes the pictures by more than rounding."""
    ran: list[int] = []
    plain_compile = nn.Module.compile

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        return lambda *arguments: (ran.append(1), graph(*arguments))[1]

    monkeypatch.setattr(nn.Module, "compile", lambda self: plain_compile(self, backend=backend))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    seen: list[tuple[torch.dtype, bool]] = []
    plain_forward = UNet.forward

    def forward(self: UNet, *inputs: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling():
            with torch.no_grad():
                dtype = self.conv_in(inputs[0]).dtype
            seen.append((dtype, self.middle[0].block.conv_in.weight.is_contiguous()))
        return plain_forward(self, *inputs)

    monkeypatch.setattr(UNet, "forward", forward)
    arguments = (f"ckpt={conditional_run}", "n=4", "batch_size=2")
    _, plain = sampled(tmp_path / "plain", *arguments, monkeypatch=monkeypatch)
    assert set(seen) == {(torch.float32, True)}
    assert not ran
    for setting, said, within, computed in (
        ("channels_last=true", "2 images at once, computed in 32-true, channels last on cpu", 1,
         {(torch.float32, False)}),
        ("trainer.precision=bf16-mixed", "computed in bf16-mixed on cpu", 40, {(torch.bfloat16, True)}),
        ("compile=true", "computed in 32-true, compiled on cpu", 1, set()),
    ):  # fmt: skip
        seen.clear()
        name = setting.partition("=")[0]
        _, pictures = sampled(tmp_path / name, *arguments, setting, monkeypatch=monkeypatch)
        assert said in capsys.readouterr().err
        assert np.abs(pictures.astype(int) - plain).max() <= within
        assert set(seen) == computed
    assert len(ran) >= 4 * 2  # every use of the network


def test_what_is_worth_compiling_follows_from_how_often_the_network_is_asked(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []
    choose = app_sample.choose
    monkeypatch.setattr(
        app_sample, "choose", lambda *args, **kwargs: asked.append(args[2]) or choose(*args, **kwargs)
    )
    sampled(tmp_path / "a", f"ckpt={conditional_run}", "n=5", "batch_size=2", monkeypatch=monkeypatch)
    assert asked == [4 * 2 * 3]  # steps, with and without the class, batches


def test_a_missing_checkpoint_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys, "argv", ["sample.py"])
    with pytest.raises(SystemExit):
        command_line.run("sample")
    assert "ckpt is missing: give it as ckpt=VALUE" in capsys.readouterr().err


def test_images_part_where_noise_is_drawn_and_not_where_churn_raises_it_to():
    module, sampler = make_module(), Heun(6, churn=2.0)
    config = {"n": 2, "shared_t": 65, "same_noise": False, **dict.fromkeys(("start_t", "end", "progressive"))}
    (row,) = asked_rows(config, module, pictures_given.Given(), seed=0, sampler=sampler).rows
    used = row.drawing.timesteps
    assert min(used, key=lambda t: abs(t - 65)) == 64, "where sigma is raised to"
    assert row.t == 59
