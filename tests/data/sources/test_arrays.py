"""Files of arrays as people have them: the images, labels, parts and classes that they were written from."""

import gzip
import logging
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from data.arrays import written
from data.arrays.written import COLOUR, GREY, Both, both, labelled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm.data import bounds
from ddpm.data.images import DataSet
from ddpm.data.sources.arrays import Arrays
from ddpm.data.sources.folder import Folder

ALL = {**COLOUR, **GREY}


def of(name: str) -> Both:
    return both() if name in COLOUR else both(8, 1)


def check(data_set: DataSet, data: Both, classes: list[str] | None = written.CLASSES) -> None:
    """Both parts hold these images and labels, in this order."""
    for part, expected in ((data_set.train, data.train), (data_set.validation, data.test)):
        np.testing.assert_array_equal(part.images, expected.expected)
        if classes is not None:
            np.testing.assert_array_equal(part.labels, expected.labels)
    assert data_set.classes == classes


def check_one(data_set: DataSet, images: np.ndarray, labels: np.ndarray | None) -> None:
    """Without a part to validate on: the same pairs [H, W, C] of image and label, in whatever order."""
    parts = (data_set.train, data_set.validation)
    found = [(image.tobytes(), None if part.labels is None else part.labels[i])
             for part in parts for i, image in enumerate(part.images)]  # fmt: skip
    expected = [(np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes(),
                 None if labels is None else labels[i]) for i, image in enumerate(images)]  # fmt: skip
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", ALL)
def test_every_format(name: str, tmp_path: Path):
    data = of(name)
    data_set = Arrays(ALL[name](tmp_path, data)).read()
    check(data_set, data)
    assert data_set.understood[0].startswith("images: 40 to train on (")


@pytest.mark.parametrize("name", ALL)
def test_every_format_is_as_the_folder_of_the_same_images(name: str, tmp_path: Path):
    data = of(name)
    for part, images in zip(("train", "test"), data, strict=True):
        for index, (image, label) in enumerate(zip(*images, strict=True)):
            folder = tmp_path / "folder" / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.squeeze()).save(folder / f"{index:03}.png")
    (tmp_path / "arrays").mkdir()
    arrays = Arrays(ALL[name](tmp_path / "arrays", data)).read()
    plain = Folder(tmp_path / "folder", image_size=None).read()
    for part, expected in ((arrays.train, plain.train), (arrays.validation, plain.validation)):
        assert part.images.tobytes() == expected.images.tobytes()
        assert part.labels.tobytes() == expected.labels.tobytes()
    assert (arrays.classes, arrays.fingerprint) == (plain.classes, plain.fingerprint)


@pytest.mark.parametrize("name", ["npz", "CIFAR-10", "SVHN", "PCam"])
def test_images_can_be_resized_and_cut(name: str, tmp_path: Path):
    path = COLOUR[name](tmp_path, both())
    for size, crop in ((16, "center"), ([8, 16], "center"), ([8, 16], "none")):
        images = Arrays(path, image_size=size, crop=crop).read().train.images
        assert images.shape == (40, 3, *((16, 16) if size == 16 else (8, 16)))


# -- layouts that people have; the names in comments are public repositories that read them so


def medmnist(folder: Path, data: Both) -> Path:
    parts = (("train", data.train), ("test", data.test), ("val", data.test))
    np.savez(
        folder / "a.npz",
        **{f"{name}_images": part.images for name, part in parts},
        **{f"{name}_labels": part.labels[:, None] for name, part in parts},
    )
    return folder / "a.npz"


def machine_learning_mastery(folder: Path, data: Both) -> Path:  # face-dataset.npz of many face tutorials
    np.savez(folder / "a.npz", trainX=data.train.images, trainy=data.train.labels.astype(str),
             testX=data.test.images, testy=data.test.labels.astype(str))  # fmt: skip
    return folder / "a.npz"


def named_by_file(folder: Path, data: Both) -> Path:  # kailahartman/ImageClassifier
    for name, part in zip(("cifar100_train", "cifar100_test"), data, strict=True):
        np.savez(folder / f"{name}.npz", images=part.images, labels=part.labels)
    return folder


def imagenet32(folder: Path, data: Both) -> Path:  # PatrykChrabaszcz/Imagenet32_Scripts
    rows = data.train.expected.reshape(40, -1)
    for number in range(10):
        here = slice(4 * number, 4 * number + 4)
        np.savez(folder / f"train_data_batch_{number + 1}.npz", data=rows[here],
                 labels=data.train.labels[here] + 1, mean=rows.mean(0))  # fmt: skip
    np.savez(folder / "val_data.npz", data=data.test.expected.reshape(20, -1), labels=data.test.labels + 1)
    return folder


def one_hot(folder: Path, data: Both) -> Path:
    for name, part in zip(("train", "test"), data, strict=True):
        np.save(folder / f"X{name}.npy", part.expected)
        np.save(folder / f"Y{name}.npy", np.eye(10, dtype=np.float32)[part.labels])
    return folder


def short_names(folder: Path, data: Both) -> Path:
    np.savez(folder / "a.npz", X_tr=data.train.images, y_tr=data.train.labels.astype(np.float64),
             X_te=data.test.images, y_te=data.test.labels.astype(np.float64))  # fmt: skip
    return folder / "a.npz"


def cats(folder: Path, data: Both) -> Path:  # EvanEames/h5_ReadWrite
    for name, part in zip(("train", "test"), data, strict=True):
        written.hdf5(folder / f"{name}_catvnoncat.h5", list_classes=np.array(written.CLASSES, "S"),
                     **{f"{name}_set_x": part.images, f"{name}_set_y": part.labels})  # fmt: skip
    return folder


def data_all(folder: Path, data: Both) -> Path:  # finnferdinand/TTT4275-group27
    scipy.io.savemat(
        folder / "a.mat",
        {
            "trainv": data.train.expected.reshape(40, -1),
            "trainlab": data.train.labels[:, None],
            "testv": data.test.expected.reshape(20, -1),
            "testlab": data.test.labels[:, None],
            "num_train": 40.0,
            "row_size": 32.0,
        },
    )
    return folder / "a.mat"


def emnist_matlab(folder: Path, data: Both) -> Path:
    train, test = ({"images": part.expected.reshape(len(part.labels), -1), "labels": part.labels[:, None],
                    "writers": part.labels[:, None]} for part in data)  # fmt: skip
    scipy.io.savemat(folder / "emnist-digits.mat", {"dataset": {"train": train, "test": test}})
    return folder / "emnist-digits.mat"


def mnist_mat(folder: Path, data: Both) -> Path:  # MauiGonzo/CDS-ML-A04
    scipy.io.savemat(folder / "mnist.mat", {
        "trainX": data.train.expected.reshape(40, -1), "trainY": data.train.labels[None],
        "testX": data.test.expected.reshape(20, -1), "testY": data.test.labels[None],
    })  # fmt: skip
    return folder / "mnist.mat"


LAYOUTS: list[Callable[[Path, Both], Path]] = [
    medmnist, machine_learning_mastery, named_by_file, one_hot, short_names, cats, data_all, emnist_matlab,
    mnist_mat,
]  # fmt: skip


@pytest.mark.parametrize("write", LAYOUTS)
def test_layouts_with_parts(write: Callable[[Path, Both], Path], tmp_path: Path):
    data = both()
    check(Arrays(write(tmp_path, data)).read(), data)


def test_labels_from_one(tmp_path: Path):
    data = both()
    check(Arrays(imagenet32(tmp_path, data)).read(), data, [str(label) for label in range(1, 11)])


def mnist_original(
    folder: Path, images: np.ndarray, labels: np.ndarray
) -> Path:  # suprakarnchom/ml-project01
    scipy.io.savemat(folder / "a.mat", {"data": images.reshape(len(images), -1).T, "label": labels[None]})
    return folder / "a.mat"


def lld(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:  # Timothy102/LogoGAN
    return written.hdf5(folder / "LLD-icon.hdf5", data=images.transpose(0, 3, 1, 2),
                        **{"labels/resnet/rc_64": labels, "meta/names": np.array(["a"], "S")})  # fmt: skip


def positional(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:  # openai/guided-diffusion
    np.savez(folder / "a.npz", images, labels)
    return folder / "a.npz"


def first_inputs(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    np.savez(folder / "a.npz", inputs=images, targets=labels, mean=images.mean(0), ids=np.arange(len(images)))
    return folder / "a.npz"


@pytest.mark.parametrize("write", [mnist_original, lld, positional, first_inputs])
def test_layouts_without_parts(write: Callable[..., Path], tmp_path: Path):
    images, labels = labelled(60, 8, 1 if write is mnist_original else 3)
    data_set = Arrays(write(tmp_path, images, labels)).read()
    check_one(data_set, images, labels)
    assert (len(data_set.train), data_set.classes) == (54, written.CLASSES)


# -- parts, labels and classes


def test_the_part_to_validate_on_is_chosen(tmp_path: Path):
    data = both(8)
    path = medmnist(tmp_path, data)
    for chosen, sizes in (
        ({}, (40, 20)),
        ({"split": "test"}, (20, 20)),
        ({"split": "train+test"}, (60, 20)),
        ({"split": "all"}, (72, 8)),
        ({"validation_split": "none"}, (36, 4)),
        ({"split": "val", "validation_split": "train"}, (20, 40)),
    ):
        data_set = Arrays(path, **chosen).read()
        assert (len(data_set.train), len(data_set.validation)) == sizes, chosen
    with pytest.raises(ValueError, match=r"^data\.split=extra: there is no such part; there are train"):
        Arrays(path, split="extra").read()


def test_more_images_of_a_file_of_their_own(tmp_path: Path):
    data, extra = both(), labelled(10, seed=2)
    written.svhn(tmp_path / "svhn", data)
    scipy.io.savemat(
        tmp_path / "svhn" / "extra_32x32.mat",
        {"X": np.moveaxis(extra.images, 0, -1), "y": extra.labels[:, None]},
    )
    check(Arrays(tmp_path / "svhn").read(), data)
    more = Arrays(tmp_path / "svhn", split="train+extra").read()
    np.testing.assert_array_equal(more.train.images, np.concatenate([data.train.expected, extra.expected]))
    assert len(more.validation) == 20


def test_the_numbers_of_svhn_are_its_classes(tmp_path: Path):
    images, labels = labelled(20)
    labels = np.where(labels == 0, 10, labels)
    scipy.io.savemat(tmp_path / "a.mat", {"X": np.moveaxis(images, 0, -1), "y": labels[:, None]})
    data_set = Arrays(tmp_path / "a.mat", validation_fraction=0).read()
    assert data_set.classes == [str(label) for label in range(1, 11)]
    check_one(data_set, images, labels - 1)


def test_coarse_labels_are_chosen(tmp_path: Path):
    data = both()
    path = written.cifar100(tmp_path / "cifar", data)
    data_set = Arrays(path, label_key="coarse_labels").read()
    assert data_set.classes == ["low", "high"]
    np.testing.assert_array_equal(data_set.train.labels, data.train.labels // 5)
    assert data_set.understood[1].startswith(
        "classes: 2 (train/coarse_labels, test/coarse_labels, named by meta/coarse_label_names)"
    )


def test_keys_mean_their_counterparts_too(tmp_path: Path):
    data, other = both(8), both(8)._replace(train=labelled(40, 8, seed=5))
    np.savez(tmp_path / "a.npz", x_train=data.train.images, x_test=data.test.images,
             faces_train=other.train.images, faces_test=other.test.images,
             y_train=data.train.labels, y_test=data.test.labels, age_train=data.train.labels // 5,
             age_test=data.test.labels // 5)  # fmt: skip
    check(Arrays(tmp_path / "a.npz").read(), data)
    data_set = Arrays(tmp_path / "a.npz", image_key="faces_train", label_key="age_*").read()
    np.testing.assert_array_equal(data_set.train.images, other.train.expected)
    np.testing.assert_array_equal(data_set.validation.images, other.test.expected)
    np.testing.assert_array_equal(data_set.validation.labels, data.test.labels // 5)
    assert Arrays(tmp_path / "a.npz", label_key="none").read().classes is None
    for key in ("image_key", "label_key"):
        with pytest.raises(
            ValueError, match=rf"^data\.{key}=nose: .*a\.npz has no such array; it holds x_tr"
        ):
            Arrays(tmp_path / "a.npz", **{key: "nose"}).read()
    with pytest.raises(ValueError, match=r"^data\.image_key=age_train: .* has no such array of images"):
        Arrays(tmp_path / "a.npz", image_key="age_train").read()
    with pytest.raises(ValueError, match=r"^data\.label_key=faces_train: .*do not fit"):
        Arrays(tmp_path / "a.npz", label_key="faces_train").read()


def test_what_is_not_used_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    images, labels = labelled(20, 8)
    np.savez(
        tmp_path / "a.npz", x=images, y=labels, y_fine=labels, x_small=images[:, ::2, ::2], notes=np.zeros(3)
    )
    Arrays(tmp_path / "a.npz").read()
    said = "\n".join(caplog.messages)
    assert "left out y_fine: an array that is not among the labels; data.label_key=y_fine takes it" in said
    assert "left out x_small: an array that is not among the images; data.image_key=x_small takes" in said
    assert "left out notes: an array that is neither images nor labels" in said


def test_a_part_without_labels_holds_nothing_out_of_others(tmp_path: Path):
    data = both(8)
    np.savez(
        tmp_path / "a.npz", x_train=data.train.images, y_train=data.train.labels, x_test=data.test.images
    )
    data_set = Arrays(tmp_path / "a.npz").read()
    check_one(data_set, *data.train)
    assert "x_test has no labels" in data_set.understood[0]
    with pytest.raises(ValueError, match=r"^data\.path=.*x_test has no labels, and other images have"):
        Arrays(tmp_path / "a.npz", validation_split="test").read()
    check(Arrays(tmp_path / "a.npz", label_key="none").read(), data, None)


def test_images_nobody_named_a_part_of_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)  # imene-swaan/autoML4rad
    images, labels = labelled(20, 8)
    np.savez(tmp_path / "a.npz", x=images, y=labels, tx=images[:5], ty=labels[:5])
    check_one(Arrays(tmp_path / "a.npz").read(), images, labels)
    assert "left out tx: an array that is not among the images; data.image_key=tx takes it" in caplog.text
    assert "left out ty: an array that is neither images nor labels" in caplog.text


# -- numbers


@pytest.mark.parametrize(
    ("array", "line"),
    [
        (np.linspace(0, 1, 192, dtype=np.float32), r"float32 from 0 to 1,.*data\.value_range=\[0,1\]$"),
        (np.linspace(-1, 1, 192), r"float64 from -1 to 1,.*data\.value_range=\[-1,1\]$"),
        (np.arange(192), r"int64 from 0 to 191,.*data\.value_range=\[0,255\]$"),
        (np.arange(192) * 300, r"int64 from 0 to 57300,.*data\.value_range=\[0,65535\]$"),
        (
            np.arange(192) - 1000.5,
            r"float64 from -1000\.5 to -809\.5,.*data\.value_range=\[-1000\.5,-809\.5\]$",
        ),
    ],
)
def test_numbers_of_no_known_range(tmp_path: Path, array: np.ndarray, line: str):
    np.savez(tmp_path / "a.npz", x=array.reshape(3, 8, 8))
    with pytest.raises(ValueError, match=rf"^data\.value_range is not set: x holds numbers of type {line}"):
        Arrays(tmp_path / "a.npz").read()


@pytest.mark.parametrize(
    ("kind", "value_range"),
    [
        ("f8", [0, 1]),
        ("f4", [-1, 1]),
        ("f2", [0, 1]),
        ("i8", [0, 255]),
        ("u2", [0, 65535]),
        (">i4", [-128, 127]),
    ],
)
def test_numbers_of_a_stated_range(tmp_path: Path, kind: str, value_range: list[float]):
    images, labels = labelled(20, 8)
    low, high = value_range
    scaled = images / 255 * (high - low) + low
    if np.dtype(kind).kind != "f":
        scaled = np.round(scaled)
    np.savez(tmp_path / "a.npz", x=scaled.astype(kind), y=labels)
    check_one(Arrays(tmp_path / "a.npz", value_range=value_range).read(), images, labels)


def test_two_bytes_are_taken_whole(tmp_path: Path):
    images, labels = labelled(20, 8)
    np.savez(tmp_path / "a.npz", x=images.astype(">u2") * 257, y=labels)
    check_one(Arrays(tmp_path / "a.npz").read(), images, labels)


@pytest.mark.parametrize("value", [1.5, -0.25, np.nan, np.inf])
def test_values_out_of_the_stated_range_are_refused(tmp_path: Path, value: float):
    images = np.full((6, 8, 8), 0.5)
    images[4, 1, 2] = value
    np.savez(tmp_path / "a.npz", x_train=images)
    with pytest.raises(ValueError, match=r"^data\.value_range=\[0, 1\]: image 4 of x_train: "):
        Arrays(tmp_path / "a.npz", value_range=[0, 1]).read()


def test_numbers_that_are_none_are_refused(tmp_path: Path):
    images = np.full((6, 8, 8), 0.5)
    images[4, 1, 2] = np.nan
    np.savez(tmp_path / "a.npz", x_train=images)
    with pytest.raises(ValueError, match=r"^data\.path=.*: image 4 of x_train holds a number that is not"):
        Arrays(tmp_path / "a.npz").read()


def test_true_is_white(tmp_path: Path):
    images = np.random.RandomState(0).rand(6, 8, 8) < 0.5
    np.savez(tmp_path / "a.npz", x=images)
    for value_range in (None, [0, 1]):
        data_set = Arrays(tmp_path / "a.npz", value_range=value_range).read()
        check_one(data_set, images[..., None] * np.uint8(255), None)


# -- what cannot be read


def refused(path: Path, message: str, **chosen: Any) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        Arrays(path, **chosen).read()
    assert "\n" not in str(raised.value)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written.keras(tmp_path / "a.npz", both(8))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(Arrays("~/a.npz").read().train) == 40
    refused(tmp_path / "b.npz", r"^data\.path=.*b\.npz: there is no such file or folder; check")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"^data\.path=.*empty holds no arrays: it: holds no files")


def test_a_changed_file_is_read_again(tmp_path: Path):
    np.savez(tmp_path / "a.npz", images=labelled(4).images)
    before = Arrays(tmp_path / "a.npz").read().fingerprint
    np.savez(tmp_path / "a.npz", images=labelled(5).images)
    assert Arrays(tmp_path / "a.npz").read().fingerprint != before


OTHER_CONTENT: dict[str, Callable[[Path], object]] = {
    "a.npz": lambda path: np.savez(path, weights=np.zeros((3, 3)), bias=np.zeros(3)),
    "a.npy": lambda path: np.save(path, np.zeros((4, 4, 3))),
    "a.mat": lambda path: scipy.io.savemat(
        path, {"history": {"loss": [1.0, 2.0]}, "cells": np.array([1, "a"], object), "f": np.arange(3)}
    ),
    "a.h5": lambda path: written.hdf5(path, weights=np.zeros((3, 2)), names=np.array([b"a"])),
    "batch": lambda path: path.write_bytes(pickle.dumps({"weights": [1, 2], "x": None, "y": "z"}, 2)),
}


@pytest.mark.parametrize("name", OTHER_CONTENT)
def test_files_of_other_content_are_listed(name: str, tmp_path: Path):
    OTHER_CONTENT[name](tmp_path / name)
    refused(tmp_path / name, rf"^data\.path=.*{name}: none of its arrays are images.*it holds \w+.* \[")


@pytest.mark.parametrize("contents", [b"", b"\xc3\xa9t\xc3\xa9", b"\x1f\x8b\x08\x00"])
def test_files_that_hold_no_arrays(tmp_path: Path, contents: bytes):
    (tmp_path / "file").write_bytes(contents)
    refused(
        tmp_path / "file", r"^data\.path=.*file holds no arrays: file: it (is empty|holds no arrays \(npz)"
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(contents)
    refused(tmp_path / "folder", r"^data\.path=.*folder holds no arrays: file: it ")
    refused(
        written.zipped(tmp_path / "folder"), r"^data\.path=.*folder\.zip holds no arrays: folder/file: it "
    )


def test_what_else_may_read_it_is_said(tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    refused(tmp_path, r"^data\.path=.*data=folder")


def test_labels_that_do_not_fit(tmp_path: Path):
    images, labels = labelled(20, 8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels[:15])
    refused(
        tmp_path / "a.npz", r"^data\.path=.*y_train int64 \[15\] for x_train uint8 \[20, 8, 8, 3\].*=none$"
    )
    assert Arrays(tmp_path / "a.npz", label_key="none").read().classes is None
    refused(tmp_path / "a.npz", r"^data\.label_key=y_train: .*do not fit: y_train", label_key="y_train")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(20) - 3, "label 0 of y is -3, which is negative"),
        (np.where(np.arange(20) == 7, np.nan, 1.0), "label 7 of y is nan, which is no whole number"),
        (np.arange(20) / 2, "label 1 of y is 0.5, which is no whole number"),
        (np.eye(20)[:, :5], "row 5 of y, whose 5 columns should be one 1 and else 0, is not so"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, labels: np.ndarray, said: str):
    np.savez(tmp_path / "a.npz", x=labelled(20, 8).images, y=labels)
    refused(tmp_path / "a.npz", rf"^data\.path=.*{said}; leave labels out with data\.label_key=none$")


def test_several_arrays_that_could_be_meant(tmp_path: Path):
    images, labels = labelled(20, 8)
    np.savez(tmp_path / "a.npz", images, images, labels)
    refused(
        tmp_path / "a.npz", r"^data\.path=.*several of its arrays can be the images, arr_0.*image_key=arr_0$"
    )
    np.savez(tmp_path / "b.npz", x=images, y=labels, label=labels)
    refused(
        tmp_path / "b.npz", r"^data\.path=.*several of its arrays can be the labels of x, y .*label_key=y,"
    )
    np.savez(tmp_path / "c.npz", x=images, age=labels, hair=labels)
    refused(
        tmp_path / "c.npz", r"^data\.path=.*can be the labels of x, age int64 \[20\], hair .*label_key=age,"
    )
    check_one(Arrays(tmp_path / "c.npz", label_key="hair").read(), images, labels)


def test_parts_of_other_classes(tmp_path: Path):
    data = both(8)
    np.savez(tmp_path / "a.npz", x_train=data.train.images, y_train=data.train.labels,
             x_test=data.test.images, y_test=data.test.labels + 1)  # fmt: skip
    refused(tmp_path / "a.npz", r"^data\.path=.*x_test holds classes that x_train lacks: 10; hold out")
    assert len(Arrays(tmp_path / "a.npz", validation_split="none").read().validation) == 4


def test_no_part_is_called_train(tmp_path: Path):
    data = both(8)
    np.savez(tmp_path / "a.npz", x_val=data.train.images, x_test=data.test.images)
    refused(tmp_path / "a.npz", r"^data\.path=.*its parts are validation, test, and none is called train")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return self.file.touch, ()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("inside", [False, True])
def test_code_in_a_batch_is_never_run(tmp_path: Path, protocol: int, inside: bool):
    trap = Trap(tmp_path / "sprung")
    value = np.array([trap], object) if inside else trap
    images, labels = labelled(20)
    rows = images.reshape(20, -1)
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": rows, "labels": labels, "x": value}, protocol))
    names = r"(pathlib|builtins|__builtin__|_pickle)[\w.]+"
    said = rf"it is a pickle that names {names}, which could run any code; .*nothing was run"
    refused(tmp_path / "batch", rf"^data\.path=.*batch could not be read as a pickle \({said}\)$")
    assert not (tmp_path / "sprung").exists()


def test_pickled_objects_in_numpys_files_are_never_loaded(tmp_path: Path):
    trap = np.array([Trap(tmp_path / "sprung")], object)
    np.savez(tmp_path / "a.npz", images=labelled(4).images, x=trap)
    np.save(tmp_path / "a.npy", trap)
    for name in ("a.npz", "a.npy"):
        refused(
            tmp_path / name, rf"^data\.path=.*{name} could not be read .* holds pickled objects.*not read"
        )
    assert not (tmp_path / "sprung").exists()


def test_a_file_out_of_the_archive_is_not_written(tmp_path: Path):
    arrays = written.keras(tmp_path / "k.npz", both(8))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(arrays, "set/k.npz")
        archive.write(arrays, "../../escaped.npz")
    check(Arrays(tmp_path / "a.zip").read(), both(8))
    assert not list(tmp_path.parent.rglob("escaped.npz"))


def bomb_npz(path: Path) -> Path:
    np.savez_compressed(path / "a.npz", x=np.zeros((3000, 32, 32), np.uint8))
    return path / "a.npz"


def bomb_idx(path: Path) -> Path:
    return written.idx(path / "train-images-idx3-ubyte.gz", np.zeros((3000, 32, 32), np.uint8))


def bomb_pickle(path: Path) -> Path:
    written.dumped(path / "batch", 2, data=np.zeros((1000, 3072), np.uint8))
    (path / "batch.gz").write_bytes(gzip.compress((path / "batch").read_bytes()))
    return path / "batch.gz"


def bomb_mat(path: Path) -> Path:
    scipy.io.savemat(path / "a.mat", {"X": np.zeros((32, 32, 3000), np.uint8)}, do_compression=True)
    return path / "a.mat"


def bomb_hdf5(path: Path) -> Path:
    return written.hdf5(path / "a.h5", x=np.zeros((3000, 32, 32), np.uint8))


def bomb_chunk(path: Path) -> Path:
    with h5py.File(path / "a.h5", "w") as file:
        chunk = (3000, 32, 32)
        file.create_dataset("x", (1, 32, 32), "u1", chunks=chunk, maxshape=chunk, compression="gzip")[:] = 0
    return path / "a.h5"


def bomb_strings(path: Path) -> Path:
    with h5py.File(path / "a.h5", "w") as file:
        file["x"] = labelled(600, 8).images
        file.create_dataset("y", data=np.array(["a" * 10_000] * 600, "S"), compression="gzip")
    return path / "a.h5"


def bomb_tar(path: Path) -> Path:
    (path / "a").mkdir()
    np.save(path / "a" / "x.npy", np.zeros((3000, 32, 32), np.uint8))
    return written.tarred(path / "a")


def bomb_zip(path: Path) -> Path:
    bomb_tar(path)
    return written.zipped(path / "a")


@pytest.mark.parametrize(
    "write",
    [bomb_npz, bomb_idx, bomb_pickle, bomb_mat, bomb_hdf5, bomb_chunk, bomb_strings, bomb_tar, bomb_zip],
)
def test_what_unpacks_to_far_more_is_refused(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(tmp_path)
    monkeypatch.setattr(bounds, "MOST_BYTES", 1 << 20)
    refused(path, r"^data\.path=.*it would unpack from [\d,]+ bytes to [\d,]+ or more; at most 200 times")


CUT = ["npz", "idx", "idx gz", "CIFAR-10", "SVHN 7.3", "PCam"]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.data())
@pytest.mark.parametrize("name", [*CUT, pytest.param("SVHN", marks=pytest.mark.slow)])
def test_a_file_cut_anywhere_is_told_in_one_message(
    name: str, drawn: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("cut")
    path = ALL[name](folder, both(32 if name == "CIFAR-10" else 8, 1 if name in GREY else 3))
    file = sorted(path.iterdir())[1] if path.is_dir() else path
    whole = file.read_bytes()
    file.write_bytes(whole[: drawn.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=r"^data\.path="):
        Arrays(path, label_key="none").read()


def test_a_mat_file_of_its_header_alone_is_cut(tmp_path: Path):
    path = ALL["SVHN"](tmp_path, both(8, 3))
    file = sorted(path.iterdir())[1]
    file.write_bytes(file.read_bytes()[:128])
    refused(path, r"^data\.path=.*ends behind its header")


def test_hdf5_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written.hdf5(tmp_path / "a.h5", x=labelled(4).images)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(path, r"^data\.path=.*pip install 'ddpm\[hdf5\]'")


def test_settings_that_cannot_be(tmp_path: Path):
    for key, value in (("validation_fraction", 1), ("on_error", "pass"), ("crop", "left"), ("image_size", 0)):
        with pytest.raises(ValueError, match=rf"data\.{key}="):
            Arrays(tmp_path, **{key: value})
