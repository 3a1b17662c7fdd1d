"""Files of arrays, each written by the library that is made for it."""

import gzip
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import scipy.io

CLASSES = [str(label) for label in range(10)]


class Labelled(NamedTuple):
    """Images uint8 [N, H, W, C] and their labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def expected(self) -> np.ndarray:
        """As they are stored: [N, C, H, W]."""
        return self.images.transpose(0, 3, 1, 2)


def labelled(count: int, side: int = 32, channels: int = 3, seed: int = 0) -> Labelled:
    """As many images of each of ten classes, sorted by them as the files of a folder are."""
    images = np.random.RandomState(seed).randint(0, 256, (count, side, side, channels)).astype(np.uint8)
    return Labelled(images, np.arange(count) * 10 // count)


class Both(NamedTuple):
    """A part to train on and one to validate on."""

    train: Labelled
    test: Labelled


def both(side: int = 32, channels: int = 3) -> Both:
    return Both(labelled(40, side, channels), labelled(20, side, channels, seed=1))


def idx(path: Path, array: np.ndarray, kind: int = 8) -> Path:
    """Written by hand, since there is no library for it; compressed where the name says so."""
    dtype = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}[kind]
    header = struct.pack(f">4B{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(header + array.astype(dtype).tobytes())
    return path


def mnist(folder: Path, data: Both, end: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", data.train), ("t10k", data.test)):
        idx(folder / f"{name}-images-idx3-ubyte{end}", part.images[..., 0])
        idx(folder / f"{name}-labels-idx1-ubyte{end}", part.labels)
    return folder


def dumped(path: Path, protocol: int, **values: object) -> Path:
    """A dictionary as Python 2 pickled it, its keys bytes; as Python 3 does from protocol 4 on."""
    keyed = {key.encode() if protocol < 4 else key: value for key, value in values.items()}
    path.write_bytes(pickle.dumps(keyed, protocol))
    return path


def cifar10(folder: Path, data: Both, protocol: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows, labels = data.train.expected.reshape(len(data.train.labels), -1), data.train.labels
    size = len(rows) // 5
    batches = [(f"data_batch_{i + 1}", slice(i * size, (i + 1) * size)) for i in range(5)]
    for name, of in batches:
        dumped(
            folder / name,
            protocol,
            batch_label=f"training batch {name[-1]} of 5".encode(),
            labels=labels[of].tolist(),
            data=rows[of],
            filenames=[b"a.png"] * size,
        )
    test = data.test.expected.reshape(len(data.test.labels), -1)
    dumped(folder / "test_batch", protocol, labels=data.test.labels.tolist(), data=test)
    names = [name.encode() if protocol < 4 else name for name in CLASSES]
    dumped(folder / "batches.meta", protocol, label_names=names, num_cases_per_batch=size, num_vis=3072)
    (folder / "readme.html").write_text("<meta>")
    return folder


def cifar10_binary(folder: Path, data: Both) -> Path:
    folder.mkdir(parents=True)
    for name, part, of in (
        ("data_batch_1", data.train, slice(0, 20)),
        ("data_batch_2", data.train, slice(20, None)),
        ("test_batch", data.test, slice(None)),
    ):
        rows = part.expected[of].reshape(-1, 3072)
        (folder / f"{name}.bin").write_bytes(
            np.concatenate([part.labels[of, None].astype(np.uint8), rows], axis=1).tobytes()
        )
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return folder


def cifar100(folder: Path, data: Both) -> Path:
    folder.mkdir(parents=True)
    for name, part in zip(("train", "test"), data, strict=True):
        dumped(
            folder / name,
            2,
            data=part.expected.reshape(-1, 3072),
            fine_labels=part.labels.tolist(),
            coarse_labels=(part.labels // 5).tolist(),
        )
    dumped(
        folder / "meta",
        2,
        fine_label_names=[name.encode() for name in CLASSES],
        coarse_label_names=[b"low", b"high"],
    )
    return folder


def matlab73(path: Path, **arrays: np.ndarray) -> Path:
    """As MATLAB does: HDF5 with its axes the other way round, after a header of its own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array.T)
            file[name].attrs["MATLAB_class"] = np.bytes_(str(array.dtype).replace("float64", "double"))
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM"
    path.write_bytes(header + path.read_bytes()[len(header) :])
    return path


def svhn(folder: Path, data: Both, *, version: str = "5", compressed: bool = True) -> Path:
    folder.mkdir(parents=True)
    for name, part in zip(("train", "test"), data, strict=True):
        arrays = {"X": np.moveaxis(part.images, 0, -1), "y": part.labels[:, None].astype(np.uint8)}
        path = folder / f"{name}_32x32.mat"
        if version == "7.3":
            matlab73(path, **arrays)
        else:
            scipy.io.savemat(path, arrays, do_compression=compressed)
    return folder


def hdf5(path: Path, **arrays: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            packed = {"compression": "gzip", "chunks": True} if np.ndim(array) > 1 else {}
            file.create_dataset(name, data=array, **packed)
    return path


def pcam(folder: Path, data: Both) -> Path:
    folder.mkdir(parents=True)
    for name, part in (("train", data.train), ("valid", data.test)):
        stem = f"camelyonpatch_level_2_split_{name}"
        hdf5(folder / f"{stem}_x.h5", x=part.images)
        hdf5(folder / f"{stem}_y.h5", y=part.labels[:, None, None, None].astype(np.uint8))
    return folder


def keras(path: Path, data: Both, save: Callable[..., None] = np.savez) -> Path:
    save(
        path,
        x_test=data.test.images,
        x_train=data.train.images,
        y_test=data.test.labels,
        y_train=data.train.labels,
    )
    return path


def npy_folder(folder: Path, data: Both) -> Path:
    folder.mkdir(parents=True)
    for name, part in zip(("train", "test"), data, strict=True):
        np.save(folder / f"x_{name}.npy", part.images)
        np.save(folder / f"y_{name}.npy", part.labels)
    return folder


def tarred(folder: Path, end: str = "tar.gz") -> Path:
    path = folder.with_name(f"{folder.name}.{end}")
    with tarfile.open(path, f"w:{end.removeprefix('tar').removeprefix('.')}") as archive:
        archive.add(folder, folder.name)
    return path


def zipped(folder: Path) -> Path:
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


COLOUR: dict[str, Callable[[Path, Both], Path]] = {
    "npz": lambda folder, data: keras(folder / "a.npz", data),
    "npz compressed": lambda folder, data: keras(folder / "a.npz", data, np.savez_compressed),
    "npy": lambda folder, data: npy_folder(folder / "npy", data),
    "npy in zip": lambda folder, data: zipped(npy_folder(folder / "npy", data)),
    "CIFAR-10": lambda folder, data: cifar10(folder / "cifar-10-batches-py", data),
    "CIFAR-10 protocol 4": lambda folder, data: cifar10(folder / "cifar", data, 4),
    "CIFAR-10 protocol 5": lambda folder, data: cifar10(folder / "cifar", data, 5),
    "CIFAR-10 tar.gz": lambda folder, data: tarred(cifar10(folder / "cifar-10-batches-py", data)),
    "CIFAR-10 tar.xz": lambda folder, data: tarred(cifar10(folder / "cifar-10-batches-py", data), "tar.xz"),
    "CIFAR-10 binary": lambda folder, data: cifar10_binary(folder / "cifar-10-batches-bin", data),
    "CIFAR-100": lambda folder, data: cifar100(folder / "cifar-100-python", data),
    "SVHN": lambda folder, data: svhn(folder / "svhn", data),
    "SVHN uncompressed": lambda folder, data: svhn(folder / "svhn", data, compressed=False),
    "SVHN 7.3": lambda folder, data: svhn(folder / "svhn", data, version="7.3"),
    "SVHN tar": lambda folder, data: tarred(svhn(folder / "svhn", data), "tar"),
    "PCam": lambda folder, data: pcam(folder / "pcam", data),
    "HDF5": lambda folder, data: hdf5(
        folder / "a.h5",
        **{
            f"{name}/{role}": array
            for name, part in zip(("train", "test"), data, strict=True)
            for role, array in (("images", part.images), ("labels", part.labels))
        },
    ),
}
"""Files of three channels, by what they are."""

GREY: dict[str, Callable[[Path, Both], Path]] = {
    "idx": lambda folder, data: mnist(folder / "MNIST" / "raw", data),
    "idx gz": lambda folder, data: mnist(folder / "MNIST" / "raw", data, ".gz"),
    "idx both": lambda folder, data: mnist(mnist(folder / "raw", data), data, ".gz"),
    "idx zip": lambda folder, data: zipped(mnist(folder / "raw", data, ".gz")),
}
"""Files of one channel, by what they are."""
