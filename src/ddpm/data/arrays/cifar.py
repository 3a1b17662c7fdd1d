"""CIFAR-10 and -100 as they are published: Python's batches, which are read without running what is in
them, and binary ones.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.data import bounds
from ddpm.data.arrays.held import Held, Workspace, in_memory

PIXELS = 3 * 32 * 32
NAMES = {
    "batches.meta.txt": "label_names",
    "fine_label_names.txt": "fine_label_names",
    "coarse_label_names.txt": "coarse_label_names",
}
"""Text files that name the classes of binary batches, a line each."""


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so is one, of protocol 2 or later."""
    return len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def batch(contents: bytes, prefix: str) -> list[Held]:
    """The arrays and the lists of numbers or words of a pickled dictionary.

    Raises:
        ValueError: where it names anything but what NumPy's plain arrays are made of; nothing of it is run.
    """
    for operation, argument, _ in pickletools.genops(contents):
        # Python makes room for as many results as a pickle names numbers, however few bytes it has.
        if "PUT" in operation.name and int(argument or 0) > len(contents):
            raise ValueError("it is no pickle that Python wrote")
    unpickled = _Arrays(io.BytesIO(contents), encoding="bytes").load()
    if not isinstance(unpickled, dict):
        raise ValueError("it is a pickle, but of no dictionary of arrays")
    found = ((_text(key), _plain(value)) for key, value in unpickled.items())
    return [in_memory(prefix + key, array) for key, array in found if key is not None and array is not None]


def binary(file: Path, prefix: str, work: Workspace) -> list[Held]:
    """The images and labels of a binary batch: rows of one label, or of a coarse and a fine one, and 3,072
    bytes.
    """
    size = file.stat().st_size
    keys = ["labels"] if "batch" in file.name else ["coarse_labels", "fine_labels"]
    row = len(keys) + PIXELS
    if not size or size % row:
        raise ValueError(f"its {size:,} bytes are no whole number of rows of {row:,} bytes")
    stream = work.stack.enter_context(file.open("rb"))

    def part(first: int, last: int) -> np.ndarray:
        stream.seek(first * row)
        return np.frombuffer(stream.read((last - first) * row), np.uint8).reshape(-1, row)

    def read(columns: slice, first: int = 0, last: int = size // row) -> np.ndarray:
        return part(first, last)[:, columns]

    pixels = slice(len(keys), None)
    images = Held(
        f"{prefix}data",
        (size // row, PIXELS),
        np.dtype(np.uint8),
        lambda: read(pixels),
        lambda first, last: read(pixels, first, last),
    )
    rows = np.concatenate(
        [part(first, min(first + 1000, size // row))[:, : len(keys)] for first in range(0, size // row, 1000)]
    )
    return [images, *(in_memory(f"{prefix}{key}", rows[:, index]) for index, key in enumerate(keys))]


def is_binary(name: str) -> bool:
    """Whether a file of this name is a binary batch."""
    return name.endswith(".bin") and (name.removesuffix(".bin") in ("train", "test") or "_batch" in name)


def class_names(file: Path, prefix: str) -> list[Held]:
    """The names of a text file of `NAMES`."""
    words = file.read_text(encoding="utf-8").split()
    return [in_memory(prefix + NAMES[file.name], np.array(words, dtype=str))] if words else []


class _Dtype:
    """What a pickle says of a type of numbers."""

    def __init__(self, kind: Any, *_: Any):
        self.kind = _text(kind) or ""
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1]) or "="

    def plain(self) -> np.dtype:
        dtype = np.dtype(self.kind)
        if self.order == ">":
            dtype = dtype.newbyteorder(">")
        if dtype.kind not in "buifSU":
            raise ValueError(f"it holds an array of {dtype}, which could run any code and is not read")
        return dtype


class _Array:
    """What a pickle says of an array: NumPy itself would believe it."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def plain(self) -> np.ndarray:
        _, shape, dtype, fortran_order, contents = self.state
        return np.frombuffer(contents, dtype.plain()).reshape(shape, order="F" if fortran_order else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(contents: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", contents)
    return array


def _scalar(dtype: _Dtype, contents: bytes) -> Any:
    return np.frombuffer(contents, dtype.plain())[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"it encodes as {encoding}")
    return text.encode("latin1")


def _bytearray(contents: bytes | str = b"", encoding: str = "latin1") -> bytes:
    return (
        _encode(contents, encoding.replace("-", ""))
        if isinstance(contents, str)
        else bytes(memoryview(contents))
    )


def _no_bytes() -> bytes:
    return b""


ADMITTED = {
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(module, "bytearray"): _bytearray for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): _no_bytes for module in ("builtins", "__builtin__")},
}
"""All that a pickle may name, and what stands for it here."""


class _Arrays(pickle.Unpickler):
    """Makes stand-ins of NumPy's arrays, and refuses everything else that has a name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(
                f"it is a pickle that names {module}.{name}, which could run any code; only plain arrays are "
                "read, and nothing was run"
            )
        return ADMITTED[module, name]


def _plain(value: Any) -> np.ndarray | None:
    """An array, or a list as one; None for anything else."""
    if isinstance(value, _Array):
        return value.plain()
    if not isinstance(value, list) or not value:
        return None
    for kinds in ((int,), (float, int)):
        if all(isinstance(item, kinds) for item in value):
            array = np.array(value)
            return None if array.dtype.kind == "O" else array
    if not all(isinstance(item, str | bytes) for item in value):
        return None
    # NumPy gives each the room of the longest, and all may be one string of the file.
    if 4 * max(map(len, value)) * len(value) > bounds.MOST_BYTES:
        return None
    return np.array([item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in value])


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin1")
    return value if isinstance(value, str) else None
