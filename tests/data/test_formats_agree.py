"""The same pictures from every format: images, labels, parts and names of classes as from a plain folder.

Each file is made by its format's own library, or to the letter of its description where it has none.
"""

import gzip
import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pytest
import scipy.io
from contents import contents
from PIL import Image

from ddpm.data.sources.archive import Archive
from ddpm.data.sources.arrays import Arrays
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.hub import Hub
from ddpm.data.sources.shard_stream import ShardStream

DIGITS = [str(digit) for digit in range(10)]
WORDS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COUNTS = {"train": 5, "test": 2}
"""Images of each class."""


@dataclass(frozen=True)
class Pictures:
    """Two parts of a set, of ten classes, those of a class side by side.

    Attributes:
        images: uint8 [N, 32, 32, 3], or [N, 32, 32] where they are grey.
        labels: int64 [N], by part.
        names: of the classes.
    """

    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    names: list[str]

    def rows(self, part: str) -> list[tuple[np.ndarray, int]]:
        """Each image with its label."""
        return list(zip(self.images[part], self.labels[part].tolist(), strict=True))

    def files(self) -> list[tuple[str, bytes]]:
        """As pictures in folders: train/airplane/0000.png."""
        return [
            (f"{part}/{self.names[label]}/{number:04}.png", png(image))
            for part in COUNTS
            for number, (image, label) in enumerate(self.rows(part))
        ]


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def made(names: list[str], *shape: int) -> Pictures:
    random = np.random.default_rng(0)
    labels = {part: np.repeat(np.arange(10), count) for part, count in COUNTS.items()}
    images = {part: random.integers(0, 256, (len(labels[part]), *shape), np.uint8) for part in COUNTS}
    return Pictures(images, labels, names)


NUMBERED, NAMED, GREY = made(DIGITS, 32, 32, 3), made(WORDS, 32, 32, 3), made(DIGITS, 32, 32)
WITHOUT_TEST = Pictures(
    NUMBERED.images | {"test": NUMBERED.images["test"][:0]},
    NUMBERED.labels | {"test": NUMBERED.labels["test"][:0]},
    DIGITS,
)


def folder(place: Path, pictures: Pictures) -> Folder:
    for name, contents_ in pictures.files():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(contents_)
    return Folder(path=place)


def zip_(place: Path, pictures: Pictures) -> Archive:
    with zipfile.ZipFile(place / "set.zip", "w") as archive:
        for name, contents_ in pictures.files():
            archive.writestr(name, contents_)
    return Archive(path=place / "set.zip")


def tar_gz(place: Path, pictures: Pictures) -> Archive:
    """With a folder around everything, as `tar czf set.tar.gz set` makes it."""
    folder(place / "set", pictures)
    with tarfile.open(place / "set.tar.gz", "w:gz") as archive:
        archive.add(place / "set", "set")
    return Archive(path=place / "set.tar.gz")


def edm_zip(place: Path, pictures: Pictures) -> Archive:
    """As `dataset_tool.py` of StyleGAN3 and EDM writes it; it knows no parts."""
    labels = []
    with zipfile.ZipFile(place / "edm.zip", "w", zipfile.ZIP_STORED) as archive:
        for number, (image, label) in enumerate(pictures.rows("train")):
            name = f"{number // 1000:05}/img{number:08}.png"
            archive.writestr(name, png(image))
            labels.append([name, label])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return Archive(path=place / "edm.zip", validation_fraction=0.0)


def idx_bytes(array: np.ndarray) -> bytes:
    """As http://yann.lecun.com/exdb/mnist says: a magic number, the sizes, the bytes."""
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def idx(place: Path, pictures: Pictures, suffix: str = "") -> Arrays:
    for part, prefix in (("train", "train"), ("test", "t10k")):
        for name, array in (("images", pictures.images[part]), ("labels", pictures.labels[part])):
            contents_ = idx_bytes(array)
            path = place / f"{prefix}-{name}-idx{array.ndim}-ubyte{suffix}"
            path.write_bytes(gzip.compress(contents_) if suffix else contents_)
    return Arrays(path=place)


def idx_gz(place: Path, pictures: Pictures) -> Arrays:
    return idx(place, pictures, ".gz")


def flat(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 3072]: all of red, of green, of blue."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def cifar_batches(pictures: Pictures) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Names of batches, with images [N, 3072] and labels [N]."""
    train = zip(
        np.split(flat(pictures.images["train"]), 5), np.split(pictures.labels["train"], 5), strict=True
    )
    named = [(f"data_batch_{number + 1}", *arrays) for number, arrays in enumerate(train)]
    return [*named, ("test_batch", flat(pictures.images["test"]), pictures.labels["test"])]


def cifar_python(place: Path, pictures: Pictures) -> Arrays:
    """Keys are bytes, as in the files of 2009, which Python 2 wrote."""
    for name, images, labels in cifar_batches(pictures):
        batch = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": images}
        (place / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {b"num_cases_per_batch": 10, b"label_names": [name.encode() for name in WORDS], b"num_vis": 3072}
    (place / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    (place / "readme.html").write_text("<html></html>")
    return Arrays(path=place)


def cifar_tar_gz(place: Path, pictures: Pictures) -> Arrays:
    inner = place / "cifar-10-batches-py"
    inner.mkdir()
    cifar_python(inner, pictures)
    with tarfile.open(place / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(inner, inner.name)
    return Arrays(path=place / "cifar-10-python.tar.gz")


def cifar_binary(place: Path, pictures: Pictures) -> Arrays:
    for name, images, labels in cifar_batches(pictures):
        rows = np.concatenate([labels[:, None].astype(np.uint8), images], 1)
        (place / f"{name}.bin").write_bytes(rows.tobytes())
    (place / "batches.meta.txt").write_text("".join(f"{name}\n" for name in WORDS) + "\n")
    return Arrays(path=place)


def mat(place: Path, pictures: Pictures) -> Arrays:
    """X [32, 32, 3, N] and y [N, 1], as SVHN has them; there 10 stands for the digit 0, here 0."""
    for part in COUNTS:
        arrays = {"X": np.moveaxis(pictures.images[part], 0, -1), "y": pictures.labels[part][:, None]}
        scipy.io.savemat(place / f"{part}_32x32.mat", {**arrays, "y": arrays["y"].astype(np.uint8)})
    return Arrays(path=place)


def npz(place: Path, arrays: dict[str, np.ndarray], **settings: Any) -> Arrays:
    np.savez_compressed(place / "set.npz", **arrays)
    return Arrays(path=place / "set.npz", **settings)


def npz_keras(place: Path, pictures: Pictures) -> Arrays:
    images, labels = pictures.images, pictures.labels
    names = {"x_test": images["test"], "x_train": images["train"]}
    return npz(place, names | {"y_test": labels["test"], "y_train": labels["train"]})


def npz_medmnist(place: Path, pictures: Pictures) -> Arrays:
    arrays = {}
    for part in COUNTS:
        arrays[f"{part}_images"] = pictures.images[part]
        arrays[f"{part}_labels"] = pictures.labels[part][:, None].astype(np.uint8)
    return npz(place, arrays)


def npz_one_hot(place: Path, pictures: Pictures) -> Arrays:
    """Channels first, numbers from 0 to 1, labels one-hot."""
    arrays = {}
    for part in COUNTS:
        images = pictures.images[part].transpose(0, 3, 1, 2)
        arrays[f"X_{part}"] = (images / 255).astype(np.float32)
        arrays[f"Y_{part}"] = np.eye(10, dtype=np.float32)[pictures.labels[part]]
    return npz(place, arrays, value_range=[0, 1])


def npz_long(place: Path, pictures: Pictures) -> Arrays:
    arrays = {}
    for part, name in (("train", "training"), ("test", "testing")):
        arrays[f"{name}_data"] = pictures.images[part]
        arrays[f"{name}_targets"] = pictures.labels[part].astype(np.float64)
    return npz(place, arrays)


def npy_folder(place: Path, pictures: Pictures) -> Arrays:
    for part in COUNTS:
        np.save(place / f"{part}_images.npy", pictures.images[part])
        np.save(place / f"{part}_labels.npy", pictures.labels[part])
    return Arrays(path=place)


def hdf5(place: Path, pictures: Pictures) -> Arrays:
    h5py = pytest.importorskip("h5py")
    with h5py.File(place / "set.h5", "w") as file:
        for part in COUNTS:
            file.create_dataset(f"{part}/images", data=pictures.images[part], chunks=True, compression="gzip")
            file.create_dataset(f"{part}/labels", data=pictures.labels[part])
    return Arrays(path=place / "set.h5")


def webdataset(place: Path, pictures: Pictures) -> ShardStream:
    library = pytest.importorskip("webdataset")
    for part in COUNTS:
        with library.ShardWriter(str(place / f"{part}-%06d.tar"), maxcount=30, verbose=0) as shards:
            for number, (image, label) in enumerate(pictures.rows(part)):
                name = pictures.names[label]
                shards.write({"__key__": f"{part}{number:06}", "png": image, "cls": name})
    return ShardStream(path=place, image_size=32)


def webdataset_by_hand(place: Path, pictures: Pictures) -> ShardStream:
    """The form that its documentation describes: tar --sort=name of 000000.cls, 000000.png."""
    for part in COUNTS:
        with tarfile.open(place / f"{part}-000000.tar", "w") as archive:
            for number, (image, label) in enumerate(pictures.rows(part)):
                for suffix, contents_ in (("cls", pictures.names[label].encode()), ("png", png(image))):
                    member = tarfile.TarInfo(f"{number:06}.{suffix}")
                    member.size = len(contents_)
                    archive.addfile(member, io.BytesIO(contents_))
    return ShardStream(path=place, image_size=32)


def table(pictures: Pictures) -> datasets.DatasetDict:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=pictures.names)}
    )
    return datasets.DatasetDict(
        {
            part: datasets.Dataset.from_dict(
                {
                    "image": [Image.fromarray(image) for image in pictures.images[part]],
                    "label": pictures.labels[part],
                },
                features,
            )
            for part in COUNTS
        }
    )


def parquet_files(place: Path, pictures: Pictures) -> None:
    """As the hub has them."""
    (place / "data").mkdir()
    for part, rows in table(pictures).items():
        rows.to_parquet(place / "data" / f"{part}-00000-of-00001.parquet")


def parquet(place: Path, pictures: Pictures) -> Hub:
    parquet_files(place, pictures)
    return Hub(path=place)


def parquet_stream(place: Path, pictures: Pictures) -> ShardStream:
    parquet_files(place, pictures)
    return ShardStream(path=place, image_size=32)


def saved(place: Path, pictures: Pictures) -> Hub:
    table(pictures).save_to_disk(place / "saved")
    return Hub(path=place / "saved")


def bucket(place: Path, pictures: Pictures) -> Folder:
    files = fsspec.filesystem("memory")
    for name, contents_ in pictures.files():
        files.pipe(f"/{place.name}/{name}", contents_)
    return Folder(path=f"memory://{place.name}")


def bucket_of_shards(place: Path, pictures: Pictures) -> ShardStream:
    webdataset_by_hand(place, pictures)
    files = fsspec.filesystem("memory")
    for path in place.iterdir():
        files.pipe(f"/{place.name}/{path.name}", path.read_bytes())
    shutil.rmtree(place)
    return ShardStream(path=f"memory://{place.name}", image_size=32)


Make = Callable[[Path, Pictures], Any]
"""Writes pictures into an empty folder; the source that reads them."""

FORMATS: dict[str, tuple[Make, Pictures]] = {
    "folder, numbers": (folder, NUMBERED),
    "folder, grey": (folder, GREY),
    "zip": (zip_, NAMED),
    "tar.gz": (tar_gz, NAMED),
    "EDM's zip": (edm_zip, WITHOUT_TEST),
    "idx": (idx, GREY),
    "idx.gz": (idx_gz, GREY),
    "CIFAR, Python": (cifar_python, NAMED),
    "CIFAR, Python, tar.gz": (cifar_tar_gz, NAMED),
    "CIFAR, binary": (cifar_binary, NAMED),
    "mat": (mat, NUMBERED),
    "npz, Keras": (npz_keras, NUMBERED),
    "npz, MedMNIST": (npz_medmnist, NUMBERED),
    "npz, one-hot": (npz_one_hot, NUMBERED),
    "npz, long names": (npz_long, NUMBERED),
    "npy, folder": (npy_folder, NUMBERED),
    "HDF5": (hdf5, NUMBERED),
    "WebDataset": (webdataset, NAMED),
    "WebDataset, by hand": (webdataset_by_hand, NAMED),
    "parquet": (parquet, NAMED),
    "parquet, streamed": (parquet_stream, NAMED),
    "save_to_disk": (saved, NAMED),
    "bucket": (bucket, NAMED),
    "bucket of shards": (bucket_of_shards, NAMED),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_holds_what_a_plain_folder_holds(name: str, tmp_path: Path):
    make, pictures = FORMATS[name]
    place = tmp_path / f"of_{name.encode().hex()}"
    place.mkdir()
    data_set = make(place, pictures).read()
    assert list(data_set.classes) == pictures.names
    for part, found in zip(COUNTS, contents(data_set), strict=True):
        expected = [
            (image.reshape(32, 32, -1).transpose(2, 0, 1).tobytes(), pictures.names[label])
            for image, label in pictures.rows(part)
        ]
        shown = [(image.tobytes(), label) for image, label in found]
        if pictures is WITHOUT_TEST:  # a share would be held out, from all over the set
            shown, expected = sorted(shown), sorted(expected)
        assert shown == expected, part


def test_the_plain_folder_holds_what_was_written(tmp_path: Path):
    """Told from the files alone, without this project."""
    written = {name: np.asarray(Image.open(io.BytesIO(contents_))) for name, contents_ in NAMED.files()}
    data_set = folder(tmp_path, NAMED).read()
    for part, found in zip(COUNTS, contents(data_set), strict=True):
        expected = sorted(name for name in written if name.startswith(part))
        assert [label for _, label in found] == [name.split("/")[1] for name in expected]
        for (image, _), name in zip(found, expected, strict=True):
            assert np.array_equal(image.transpose(1, 2, 0), written[name])
