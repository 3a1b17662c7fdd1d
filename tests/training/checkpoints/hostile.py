"""Checkpoint files of somebody who means harm: each would run code, take memory or never end."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import ROOT

WHOLE = ROOT / "tests/fixtures/run_0_1/checkpoints/last.ckpt"


class Reduced:
    """Pickled as a call."""

    def __init__(self, call: Callable[..., Any], *arguments: Any):
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def content(**changes: Any) -> dict[str, Any]:
    """Of a whole checkpoint, with other values under some keys."""
    return {**torch.load(WHOLE, weights_only=True), **changes}


def config(key: str, value: Any) -> dict[str, Any]:
    """Of a whole checkpoint, with another value at a dotted key of its configuration."""
    changed = content()
    *groups, name = key.split(".")
    node = changed["config"]
    for group in groups:
        node = node[group]
    node[name] = value
    return changed


def tensor(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Reduced:
    storage, rest = torch.ones(4).untyped_storage(), (False, OrderedDict(), torch.float32)
    return Reduced(torch._utils._rebuild_tensor_v3, storage, offset, size, stride, *rest)


def weights(value: Any) -> dict[str, Any]:
    return content(state_dict={**content()["state_dict"], "network.more": value})


def archive(pickled: bytes, more: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """A file as torch writes it, with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as written:
        for name, data in {
            "data.pkl": pickled,
            "version": b"3\n",
            "byteorder": b"little",
            **(more or {}),
        }.items():
            written.writestr(f"archive/{name}", data)
    return file.getvalue()


def overlapping() -> bytes:
    """A record that holds another, with its header."""
    name = b"archive/data/1"
    inner = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("archive/data.pkl", pickle.dumps({}, 2))
        written.writestr("archive/data/0", inner + bytes(1000))
        outer = written.infolist()[1]
        hidden = zipfile.ZipInfo("archive/data/1")
        hidden.header_offset = outer.header_offset + 30 + len("archive/data/0")
        hidden.file_size = hidden.compress_size = 1000
        hidden.CRC = zlib.crc32(bytes(1000))
        written.filelist.append(hidden)
        written.NameToInfo["archive/data/1"] = hidden
    return file.getvalue()


def many_records(count: int) -> bytes:
    """A table of records, and nothing else."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *[0] * 18)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, count * len(entry), 0, 0)
    return entry * count + end


def laughs(levels: int = 12) -> list[Any]:
    value: list[Any] = ["ha"]
    for _ in range(levels):
        value = [value] * 10
    return value


def equal_hashes(count: int) -> bytes:
    """A dictionary whose keys are all found in one place."""
    keys = [(i * (2**61 - 1)).to_bytes(11, "little") for i in range(1, count)]
    return b"\x80\2}(" + b"".join(b"\x8a\x0b" + key + b"N" for key in keys) + b"u."


def encoded_often(length: int, times: int) -> bytes:
    """A list of so many texts of bytes, each made anew of the same text."""
    text = b"X" + struct.pack("<I", length) + b"a" * length
    once = b"c_codecs\nencode\nq\0" + text + b"X\6\0\0\0latin1\x86q\x01Ra"
    return b"\x80\2]" + once + b"h\0h\1Ra" * times + b"."


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as written:
        written.add(WHOLE, "pickle")
    return file.getvalue()


def nan() -> dict[str, Any]:
    changed = content()
    next(iter(changed["ema"]["parameters"].values())).view(-1)[0] = float("nan")
    return changed


CONTENTS: dict[str, Callable[[], Any]] = {
    "system": lambda: content(config=Reduced(os.system, "touch mischief")),
    "bytearray": lambda: content(data=Reduced(bytearray, 10**10)),
    "new tensor": lambda: content(data=Reduced(torch.Tensor, 10**10)),
    "sparse": lambda: content(data=Reduced(torch._utils._rebuild_sparse_tensor, torch.strided, (1,))),
    "tensor of stride 0": lambda: weights(tensor(0, (10**12,), (0,))),
    "tensor beyond its memory": lambda: weights(tensor(0, (10**11,), (1,))),
    "tensor begins beyond its memory": lambda: weights(tensor(10**12, (2,), (1,))),
    "negative sizes": lambda: weights(tensor(0, (-1, 4), (1, 1))),
    "state is a list": lambda: content(state_dict=[torch.ones(3)]),
    "state is of numbers": lambda: content(state_dict={"network.w": 3}),
    "configuration is text": lambda: content(config="schedule"),
    "data are a number": lambda: content(data=7),
    "step is text": lambda: content(global_step="20"),
    "step is below 0": lambda: content(global_step=-1),
    "average is a list": lambda: content(ema=[1]),
    "average of nothing": lambda: content(ema={"parameters": {}, "num_updates": 1}),
    "newer layout": lambda: content(layout=99),
    "layout is text": lambda: content(layout="2"),
    "not finite": nan,
    "image of 10^12 numbers": lambda: content(data={**content()["data"], "image_shape": [1, 10**6, 10**6]}),
    "image of no size": lambda: content(data={**content()["data"], "image_shape": [1, -8, 8]}),
    "image of no shape": lambda: content(data={}),
    "wide network": lambda: config("model.channels", 2**20),
    "network without end": lambda: config("model.blocks", 10**9),
    "layers of another kind": lambda: config(
        "model", {"_target_": "torch.nn.Linear", "in_features": 10**6, "out_features": 10**6}
    ),
    "schedule without end": lambda: config("schedule.num_timesteps", 10**10),
    "schedule is missing": lambda: content(config={}),
    "target of a stranger": lambda: config(
        "schedule.x", [{"_target_": "subprocess.Popen", "args": ["true"]}]
    ),
    "billion laughs": lambda: content(data=laughs()),
    "endless": lambda: content(data=endless()),
}

FILES: dict[str, Callable[[], bytes]] = {
    "pickle alone": lambda: pickle.dumps(Reduced(os.system, "touch mischief"), 2),
    "compressed": lambda: archive(pickle.dumps({}, 2), {"data/0": bytes(1 << 26)}, zipfile.ZIP_DEFLATED),
    "overlapping": overlapping,
    "a table and nothing else": lambda: many_records(500_000),
    "deep": lambda: archive(b"\x80\2" + b"]" * 300_000 + b"a" * 299_999 + b"."),
    "large number": lambda: archive(pickle.dumps({"a": 1 << 80_000_000}, 2)),
    "equal hashes": lambda: archive(equal_hashes(200_000)),
    "far memo": lambda: archive(b"\x80\2]r\xff\xff\xff\x7f."),
    "long text without bytes": lambda: archive(b"\x80\2X\xff\xff\xff\x7fa."),
    "many steps": lambda: archive(b"\x80\2]" + b"Na" * 3_000_000 + b"."),
    "encoded": lambda: archive(b"\x80\2c_codecs\nencode\nX\1\0\0\0aX\x08\0\0\0punycode\x86R."),
    "one text encoded again and again": lambda: archive(encoded_often(1 << 20, 2_000)),
    "changes a function": lambda: archive(b"\x80\2ctorch\nSize\n}X\1\0\0\0aK\1sb."),
    "tar": tar,
    "empty": lambda: b"",
    "text": lambda: b"hello\n",
}


SAID = {
    "compressed": "a record is compressed",
    "overlapping": "records overlap",
    "many steps": "too many steps",
    "one text encoded again and again": "makes more than it has bytes for",
    "equal hashes": "a number beyond 64 bits",
    "tensor beyond its memory": "is larger than its bytes",
    "network without end": "a larger network than its weights are of",
    "not finite": "is not finite: ema.parameters.time.0.weight holds NaN",
    "newer layout": "was written by a newer version",
    "schedule is missing": "schedule: is missing",
}
"""Of some the reason, as they are small enough here to be refused for another."""


def make(directory: Path) -> list[Path]:
    """Write all of them."""
    directory.mkdir()
    made = []
    for name, of_content in CONTENTS.items():
        made.append(directory / f"{name}.ckpt")
        torch.save(of_content(), made[-1])
    for name, of_file in FILES.items():
        made.append(directory / f"{name}.ckpt")
        made[-1].write_bytes(of_file())
    made.append(directory / "folder.ckpt")
    made[-1].mkdir()
    return made
