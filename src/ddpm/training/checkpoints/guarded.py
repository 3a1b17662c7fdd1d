"""A file that `torch.save` wrote, read without running its code and without believing a size in it.

`torch.load(weights_only=True)` runs no code either, but it allocates whatever a file asks for (a tensor that
says to be larger than its bytes, a compressed record, `bytearray(10**10)`), and it does not look at the
checksums that the file holds. Here the pickle is read into outlines of tensors, all sizes are compared with
what there is, and only then memory is taken; and every record that is used must have the CRC-32 that the
archive states for it. So one flipped bit is noticed wherever it matters, in files of every version, and also
in one that a person changed and saved again by `torch.save`.
"""

import math
import pickle
import pickletools
import sys
from collections import OrderedDict
from collections.abc import Callable, Sized
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from ddpm.training.checkpoints.archive import Record, RefusedFileError, read, records

MAX_OPCODES = 1_000_000
"""Steps of a pickle; a network with an optimizer and an average takes about 100 for each parameter."""

MAX_DEPTH = 64
"""Containers within each other."""

MAX_NODES = 1_000_000
"""Values in all, each as often as it stands somewhere: a pickle repeats what it made at no cost."""

OPCODES = {
    "PROTO", "STOP", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "MARK", "BINGET", "LONG_BINGET", "BINPUT",
    "LONG_BINPUT", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINSTRING", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST",
    "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET",
}  # fmt: skip
"""Of pickle's protocol 2, which `torch.save` writes; each takes memory in proportion to its own length."""

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
        torch.complex64, torch.complex128, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
        torch.uint16, torch.uint32, torch.uint64, torch.bool,
    )
}  # fmt: skip

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype, torch.device)


class Storage(NamedTuple):
    """What a pickle says of the memory of tensors."""

    key: str
    dtype: torch.dtype | None  # None for bytes, whose tensors say it
    numel: int


class Outline(NamedTuple):
    """What a pickle says of a tensor."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def guarded_load(path: Path) -> Any:
    """Read what `torch.save` wrote, onto the CPU.

    Tensors, numbers, text, bytes, and lists, tuples, sets and dictionaries of them: anything else is refused.
    It takes memory for the tensors, which is no more than the file has bytes, and a few MB.

    Raises:
        RefusedFileError: where the file is none of these, damaged, or hostile.
        OSError: where it cannot be opened or read.
    """
    with path.open("rb", buffering=0) as file:
        found = records(file)
        root, content = _outlined(file, found)
        storages = _storages(content)
        for storage in storages.values():
            record = found.get(f"{root}data/{storage.key}")
            if record is None or record.size != storage.numel * _itemsize(storage):
                raise RefusedFileError(f"the size of {storage.key[:20]!r} is not that of its record")
        memory = {key: read(file, found[f"{root}data/{key}"]) for key in storages}
    return _filled(content, memory)


def outlined(path: Path) -> Any:
    """What is in a file of `torch.save`, with outlines in place of its tensors, which are not read.

    Raises:
        RefusedFileError, OSError: as `guarded_load`.
    """
    with path.open("rb", buffering=0) as file:
        content = _outlined(file, records(file))[1]
    _storages(content)
    return content


def _outlined(file: BinaryIO, found: dict[str, Record]) -> tuple[str, Any]:
    """How the names of all records begin, and what the pickle among them describes."""
    pickles = [name for name in found if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise RefusedFileError("it is no file of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = found.get(f"{root}byteorder")
    if order is not None and read(file, order).numpy().tobytes() != sys.byteorder.encode():
        raise RefusedFileError("its numbers are in another byte order")
    return root, _unpickled(read(file, found[pickles[0]]).numpy().tobytes())


# The pickle


class _Callable:
    """Stands for a function that a pickle may call. It has nothing that a pickle could set."""

    __slots__ = ("call",)
    call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "call", call)

    def __setattr__(self, name: str, value: Any) -> None:
        raise RefusedFileError("it changes a function")

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


def _outline(storage: Storage, offset: int, size: Any, stride: Any, *_: Any) -> Outline:
    return Outline(storage, offset, size, stride, storage.dtype or torch.uint8)


def _outline_of_bytes(
    storage: Storage, offset: int, size: Any, stride: Any, _: Any, __: Any, dtype: torch.dtype, *___: Any
) -> Outline:
    return Outline(storage, offset, size, stride, dtype)


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise RefusedFileError(f"it encodes text in {encoding[:20]!r}")
    return text.encode("latin1")


CALLED: dict[tuple[str, str], _Callable] = {
    ("collections", "OrderedDict"): _Callable(lambda: OrderedDict()),
    ("collections", "Counter"): _Callable(lambda counts: dict(counts)),  # MultiStepLR's, of earlier versions
    ("torch._utils", "_rebuild_tensor"): _Callable(_outline),
    ("torch._utils", "_rebuild_tensor_v2"): _Callable(_outline),
    ("torch._utils", "_rebuild_tensor_v3"): _Callable(_outline_of_bytes),
    ("torch._utils", "_rebuild_parameter"): _Callable(lambda data, *_: data),
    ("torch", "Size"): _Callable(lambda sizes: torch.Size(sizes)),
    ("torch", "device"): _Callable(lambda *place: torch.device(*place)),
    ("_codecs", "encode"): _Callable(_encoded),
    ("builtins", "bytes"): _Callable(lambda: b""),
    ("builtins", "set"): _Callable(lambda values: set(values)),
    ("builtins", "complex"): _Callable(lambda real, imaginary: complex(real, imaginary)),
}
"""What a pickle of tensors calls, and what is done instead."""


class _Unpickler(pickle.Unpickler):
    """Reads tensors as outlines."""

    def __init__(self, data: bytes):
        super().__init__(BytesIO(data))
        self._left = len(data)  # of what calls may make: one makes as much of each thing as often as it likes

    def _called(self, call: _Callable, *arguments: Any) -> Any:
        self._left -= sum(len(one) for one in arguments if isinstance(one, Sized))
        if self._left < 0:
            raise RefusedFileError("its pickle makes more than it has bytes for")
        return call(*arguments)

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("__builtin__", "builtins")  # Python 2's name, which protocol 2 keeps
        if (module, name) in CALLED:
            return _Callable(partial(self._called, CALLED[module, name]))
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return None
        raise RefusedFileError(f"it names {f'{module}.{name}'[:80]}, which no tensors need")

    def persistent_load(self, pid: Any) -> Storage:
        _, dtype, key, _, numel = pid
        return Storage(key, dtype, numel)


def _unpickled(data: bytes) -> Any:
    """What a pickle describes, its tensors as outlines, bounded in size and depth."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name not in OPCODES:
                raise RefusedFileError(f"its pickle has a step {opcode.name}, which no tensors need")
            if count >= MAX_OPCODES:
                raise RefusedFileError("its pickle has too many steps")
            if opcode.name == "LONG_BINPUT" and int(argument or 0) > count:
                # all places of the memo before this one would be given memory
                raise RefusedFileError("its pickle has a place far beyond the others")
            if opcode.name == "LONG1" and not -(1 << 63) <= int(argument or 0) < 1 << 64:
                # as keys, numbers that are equal modulo 2^61 - 1 make a dictionary slow
                raise RefusedFileError("its pickle has a number beyond 64 bits")
        unpickler = _Unpickler(data)
        content = unpickler.load()
        unpickler.memo.clear()  # which holds it itself, and through it all tensors, long after they are used
        return content
    except RefusedFileError:
        raise
    except Exception as error:  # whatever a damaged pickle leads to
        raise RefusedFileError(f"its pickle is damaged, {type(error).__name__}") from error


# What both say together


def _storages(content: Any) -> dict[str, Storage]:
    """The memory that the tensors of a content need, by key; checks the content on the way."""
    found: dict[str, Storage] = {}
    waiting: list[tuple[Any, int]] = [(content, 0)]
    nodes = 0
    while waiting:
        value, depth = waiting.pop()
        if type(value) is Outline:
            _check(value)
            storage = value.storage
            if found.setdefault(storage.key, storage) != storage:
                raise RefusedFileError("two tensors disagree about their memory")
            continue
        inner: list[Any] = []
        plain: Any = ()
        if type(value) in (dict, OrderedDict):
            inner = [*value.values(), *_attributes(value)]
            plain = value  # its keys
        elif type(value) in (list, tuple):
            inner = list(value)
        else:
            plain = value if type(value) is set else (value,)
        for scalar in plain:
            if type(scalar) not in SCALARS:
                raise RefusedFileError(f"it holds a {type(scalar).__name__} where no tensors need one")
        nodes += 1 + len(inner)
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise RefusedFileError("it holds containers within containers without end")
        waiting.extend((part, depth + 1) for part in inner)
    return found


def _attributes(value: Any) -> list[Any]:
    """Of an OrderedDict: a module's state has `_metadata`, the versions of its layers."""
    return [vars(value)] if type(value) is OrderedDict and vars(value) else []


def _check(outline: Outline) -> None:
    """Refuse a tensor that its memory does not hold. One that repeats elements (a stride of 0) would be
    larger than its memory as soon as it is copied.
    """
    storage, offset, size, stride, dtype = outline
    if not (
        type(storage) is Storage
        and type(storage.key) is str
        and type(dtype) is torch.dtype
        and type(size) in (tuple, torch.Size)
        and type(stride) in (tuple, torch.Size)
        and len(size) == len(stride) <= MAX_DEPTH
        and all(type(number) is int and number >= 0 for number in (storage.numel, offset, *size, *stride))
    ):
        raise RefusedFileError("a tensor is described by what is none")
    there = storage.numel if storage.dtype is not None else storage.numel // dtype.itemsize
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    numel = math.prod([*size])
    if numel > there or (numel and last >= there):
        raise RefusedFileError(f"a tensor of shape {str(tuple(size))[:60]} is larger than its bytes")


def _itemsize(storage: Storage) -> int:
    return 1 if storage.dtype is None else storage.dtype.itemsize


def _filled(value: Any, memory: dict[str, Tensor]) -> Any:
    """A content with tensors in place of their outlines."""
    if type(value) is Outline:
        data, itemsize = memory[value.storage.key], value.dtype.itemsize
        whole = data[: len(data) // itemsize * itemsize].view(value.dtype)
        return whole.as_strided(value.size, value.stride, value.offset)
    if type(value) in (dict, OrderedDict):
        for key in value:
            value[key] = _filled(value[key], memory)
        for attributes in _attributes(value):
            _filled(attributes, memory)
    elif type(value) is list:
        value[:] = [_filled(part, memory) for part in value]
    elif type(value) is tuple:
        return tuple(_filled(part, memory) for part in value)
    return value
