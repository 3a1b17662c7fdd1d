"""evaluate.py samples=: images that are there already are measured as a run's are."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import composed, run_here
from PIL import Image

from ddpm.app.measuring import run_or_samples
from ddpm.app.measuring.given import given
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.sources.digits import Digits
from ddpm.errors import UsageError

PIXELS = (
    "data=digits",
    "extractor=pixels",
    "metrics=[kid,precision_recall,nearest]",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
)
GREY = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)

MISTAKES = {
    "": r"ckpt and samples: nothing says what is to be measured; name a trained run by ckpt=RUN_DIR, or",
    "samples=on data=digits": r"samples=on: there is no such folder or file",
    "samples=own data.path=own": r"data: nothing says what samples are compared with; choose data=OPTION",
    "samples=own data=digits": r"metrics=nll: is of a run, and samples=own are images alone",
    "samples=own data=digits metrics=[nearest] strategy=fsdp": r"strategy=fsdp: parts a run's network",
    "samples=own data=digits metrics=[nearest] n=5": r"n=5: samples=own holds 4 images; leave n out",
}

OF_A_RUN: dict[str, Any] = {
    "sampler": {"_target_": "ddpm.diffusion.samplers.ddim.DDIM"},
    "guidance": {"scale": 2.0},
    "variance": {"_target_": "ddpm.diffusion.variances.FixedSmall"},
    "weights": "raw",
    "batch_size": 4,
    "channels_last": False,
    "compile": False,
}


def is_a_folder(path: Path, images: np.ndarray = GREY) -> Path:
    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index}.png")
    return path


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_told(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    is_a_folder(tmp_path / "own")
    assert run_here(monkeypatch, "evaluate", *arguments.split(), "trainer.accelerator=cpu") == 2
    said = capsys.readouterr().err
    assert re.search(MISTAKES[arguments], said), said
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """Of evaluate.py, that measures images."""
    return composed("evaluate", "samples=.", "data=digits", "metrics=[kid]")


@pytest.mark.parametrize("key", OF_A_RUN)
def test_a_key_of_a_run_is_refused(key: str, config: dict[str, Any]):
    run_or_samples.check(config)
    with pytest.raises(
        UsageError, match=rf"^{key}: is of a run that draws, and samples=\. are drawn already"
    ):
        run_or_samples.check({**config, key: OF_A_RUN[key]})


def test_the_precision_of_a_run_is_refused(config: dict[str, Any]):
    trainer = {**config["trainer"], "precision": "bf16-mixed"}
    with pytest.raises(UsageError, match=r"trainer\.precision=bf16-mixed: .*extractor\.bf16=true"):
        run_or_samples.check({**config, "trainer": trainer})


def test_a_run_and_samples_are_not_given_together(config: dict[str, Any]):
    with pytest.raises(UsageError, match=r"^ckpt and samples: give one"):
        run_or_samples.check({**config, "ckpt": "logs/train/x"})


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return Digits().read()


def in_colour(classes: list[str] | None = None) -> DataSet:
    images = ImageSet(np.zeros((4, 3, 8, 8), np.uint8))
    return DataSet(images, images, classes)


def look(path: Path, data: DataSet, n: int | None = None, by_class: str | None = None) -> Any:
    return given({"samples": str(path), "n": n}, data, by_class)


def test_the_first_n_are_taken_in_the_order_of_their_names(digits: DataSet, tmp_path: Path):
    found = look(is_a_folder(tmp_path / "my samples_1"), digits, n=3)
    with found.samples() as samples:
        assert samples.n == 3
        assert samples.name == "my-samples-1"
        assert np.array_equal(samples.read(range(1, 3)), GREY[1:3, None])
    assert samples.about["samples_there"] == 4


def test_the_fingerprint_is_of_the_pixels_however_they_are_kept(digits: DataSet, tmp_path: Path):
    np.savez(tmp_path / "x.npz", arr_0=GREY[..., None])
    np.savez(tmp_path / "y.npz", arr_0=GREY[::-1, ..., None])
    folder = look(is_a_folder(tmp_path / "own"), digits)
    packed = shutil.make_archive(str(tmp_path / "own"), "zip", tmp_path / "own")
    assert look(Path(packed), digits).fingerprint == folder.fingerprint
    assert look(tmp_path / "x.npz", digits).fingerprint == folder.fingerprint
    assert look(tmp_path / "y.npz", digits).fingerprint != folder.fingerprint
    assert look(tmp_path / "x.npz", digits, n=3).fingerprint != folder.fingerprint


def test_grey_images_among_those_in_colour_get_three_channels(tmp_path: Path):
    images = np.stack([GREY] * 3, -1)
    images[1, 0, 0] = (255, 0, 0)
    with look(is_a_folder(tmp_path / "own", images), in_colour()).samples() as samples:
        assert np.array_equal(samples.read(range(4)), images.transpose(0, 3, 1, 2))


def large(path: Path) -> Path:
    return is_a_folder(path, np.zeros((2, 9, 7), np.uint8))


def coloured(path: Path) -> Path:
    return is_a_folder(path, np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))


def damaged(path: Path) -> Path:
    (is_a_folder(path) / "2.png").write_bytes(b"\x89PNG")
    return path


@pytest.mark.parametrize(
    ("made", "is_colour", "said"),
    [
        (
            large,
            False,
            r"0\.png is of size \[9, 7\] \(height, width\), and the images of the data of \[8, 8\]",
        ),
        (coloured, False, r"0\.png is in colour, and the images of the data are grey; give data\.channels=3"),
        (is_a_folder, True, r"are grey, and the images of the data are in colour; give data\.channels=1"),
        (damaged, False, r"2\.png cannot be read: .*; mend it or take it away"),
    ],
)
def test_images_that_are_not_as_the_datas_are_refused(
    made: Callable[[Path], Path], is_colour: bool, said: str, digits: DataSet, tmp_path: Path
):
    with pytest.raises(UsageError, match=said):
        look(made(tmp_path / "own"), in_colour() if is_colour else digits)


def test_classes_are_those_of_the_data(digits: DataSet, tmp_path: Path):
    def asked(labels: Any, data: DataSet) -> list[int]:
        np.savez(tmp_path / "x.npz", arr_0=np.concatenate([GREY[..., None]] * 3, 3), arr_1=labels)
        if data is digits:
            np.savez(tmp_path / "x.npz", arr_0=GREY[..., None], arr_1=labels)
        return look(tmp_path / "x.npz", data, by_class="own_label").asked.tolist()

    assert asked([9, 0, 3, 3], digits) == [9, 0, 3, 3]
    assert asked(["7", "0", "1", "7"], digits) == [7, 0, 1, 7]
    for labels, said in {
        (0, 1, 2, 10): r"one is of class 10, and the data has classes 0 to 9",
        (0, 1, 2, -1): r"label 3 of arr_1 is -1.*metrics=own_label needs classes that count from 0",
        ("a", "0", "1", "2"): r"the data has no class a; it has 0, 1",
    }.items():
        with pytest.raises(UsageError, match=said):
            asked(list(labels), digits)
    with pytest.raises(UsageError, match=r"says no classes, which metrics=own_label needs; save an npz"):
        look(is_a_folder(tmp_path / "own"), digits, by_class="own_label")


def test_other_classes_of_the_same_images_are_another_request(digits: DataSet, tmp_path: Path):
    np.savez(tmp_path / "x.npz", arr_0=GREY[..., None], arr_1=[0, 1, 2, 3])
    np.savez(tmp_path / "y.npz", arr_0=GREY[..., None], arr_1=[0, 1, 2, 4])
    x, y = (look(tmp_path / name, digits, by_class="own_label").contents for name in ("x.npz", "y.npz"))
    assert x["samples"] == y["samples"]
    assert x != y


@pytest.mark.e2e
def test_samples_of_a_file_are_measured_as_those_of_the_run_that_drew_them(
    conditional_run: Path,
    digits: DataSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    from ddpm.evaluation.quality.drawn import classes_of
    from ddpm.run import load

    monkeypatch.chdir(tmp_path)
    labels = classes_of(load(conditional_run).module, digits, 30)
    assert labels is not None
    drawn = (f"ckpt={conditional_run}", "n=30", f"labels=[{','.join(map('number:{}'.format, labels))}]")
    assert run_here(monkeypatch, "sample", *drawn, "out=drawn", *PIXELS[-2:]) == 0
    own = [f"ckpt={conditional_run}", *PIXELS[1:], "n=30", "hydra.run.dir=own"]
    assert run_here(monkeypatch, "evaluate", *own) == 0
    files = ["samples=drawn", *PIXELS, "hydra.run.dir=files"]
    assert run_here(monkeypatch, "evaluate", *files) == 0

    run, file = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("own", "files"))
    assert file["kid"]["kid30_train_pixels_drawn"] == pytest.approx(
        run["kid"]["kid30_train_pixels_ema_ddim4_guided2"], rel=1e-9, abs=1e-12
    )
    for name in ("kid", "precision_recall", "nearest"):
        values = [list(found[name].values())[:-1] for found in (run, file)]  # the last says of what they are
        assert values[0] == values[1], name
    assert file["kid"]["of"]["samples"] == str(tmp_path / "drawn")

    # the same command is done, wherever the files are now; other files are another request
    capsys.readouterr()
    (tmp_path / "drawn").rename(tmp_path / "moved")
    again = ["samples=moved", *PIXELS, "hydra.run.dir=files"]
    assert run_here(monkeypatch, "evaluate", *again) == 0
    assert "holds these measurements already" in capsys.readouterr().out
    np.savez(tmp_path / "moved" / "samples.npz", arr_0=GREY[..., None].repeat(8, 0)[:30])
    assert run_here(monkeypatch, "evaluate", *again) == 2
    assert "the content of samples is another" in capsys.readouterr().err
