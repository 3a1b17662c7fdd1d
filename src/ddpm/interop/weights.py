"""Weights in files that other codebases write, opened without running anything of theirs."""

import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm import bounded
from ddpm.interop import ho, tensorflow
from ddpm.training import checkpoints

AVERAGED = ("ema", "ema_model", "ema_state_dict", "ema_params", "model_ema")
RAW = ("model", "net_model", "net", "network", "state_dict", "model_state_dict")
"""What codebases call the averaged weights in a file, and those that are trained."""

WRAPPED = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz", ".index")

MOST_HEADER = 1 << 22
"""Bytes of a safetensors file that name its tensors: some hundred for each."""

MOST_PACKED = 4
"""How much smaller than its contents an npz of weights can be."""


class Weights(NamedTuple):
    """What a file or a directory holds: the averaged weights, or those that there are, and the raw ones."""

    averaged: dict[str, Tensor]
    raw: dict[str, Tensor]
    file: Path


def read(source: Path) -> Weights:
    """The weights in a file, or in the newest of a directory.

    Raises:
        ValueError: where there are none, or not without running code of the file.
    """
    if source.is_dir():
        return _of_directory(source)
    return _of_file(_prefixed(source))


def _prefixed(source: Path) -> Path:
    """A TensorFlow checkpoint is called by what its files' names begin with."""
    index = source.with_name(f"{source.name}.index")
    return index if not source.exists() and index.is_file() else source


def _of_directory(directory: Path) -> Weights:
    """improved-diffusion and guided-diffusion write averaged and raw weights into two files."""
    files = sorted(file for file in directory.iterdir() if file.suffix in SUFFIXES)
    averaged = _newest(files, r"ema_[\d.]+_(\d+)\.pt")
    raw = _newest(files, r"model(\d+)\.pt")
    if averaged is not None:
        found = _of_file(averaged)
        step = averaged.stem.rpartition("_")[2]
        beside = raw if raw is not None and int(raw.stem[5:]) == int(step) else None
        return found if beside is None else found._replace(raw=_of_file(beside).raw)
    if raw is not None:
        return _of_file(raw)
    newest = _newest(files, r".*-(\d+)\.index")
    if newest is not None:
        return _of_file(newest)
    if len(files) != 1:
        there = ", ".join(file.name for file in files[:6]) or f"none of {', '.join(SUFFIXES)}"
        raise ValueError(f"{directory}: name one file of weights; there is {there}")
    return _of_file(files[0])


def _newest(files: list[Path], pattern: str) -> Path | None:
    steps = {file: int(match[1]) for file in files if (match := re.fullmatch(pattern, file.name))}
    return max(steps, key=steps.__getitem__, default=None)


def _of_file(file: Path) -> Weights:
    bounded.beginning(file, 0)
    if file.suffix in (".npz", ".index"):
        averaged, raw = ho.states(_arrays(file) if file.suffix == ".npz" else tensorflow.variables(file))
    else:
        content = of_safetensors(file) if file.suffix == ".safetensors" else _of_torch(file)
        averaged, raw = _states(content)
    if not averaged and not raw:
        raise ValueError(f"{file}: holds no weights of a network")
    return Weights(averaged or raw, raw or averaged, file)


def _states(content: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Averaged and raw weights in what a file holds."""
    if not isinstance(content, Mapping):
        return {}, {}
    if any(isinstance(value, Tensor) for value in content.values()):
        return {}, _unwrapped(content)
    found = []
    for names in (AVERAGED, RAW):
        states = (content[name] for name in names if isinstance(content.get(name), Mapping))
        found.append(_unwrapped(next(states, {})))
    return found[0], found[1]


def _unwrapped(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    weights = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    for prefix in WRAPPED:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _of_torch(file: Path) -> Any:
    try:
        return checkpoints.guarded_load(file)
    except checkpoints.RefusedFileError as error:
        raise ValueError(
            f"{file}: cannot be read without running what may be code of it ({error}); if you trust it, "
            "write its weights alone into a new file, as docs/guide.md says, and import that"
        ) from error


def of_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of safetensors, none larger than the file.

    Raises:
        ValueError: where it is damaged.
    """
    from safetensors.torch import load_file

    if int.from_bytes(bounded.beginning(file, 8), "little") > MOST_HEADER:
        raise ValueError(f"{file}: cannot be read (it says more of its tensors than can be)")
    try:
        return load_file(file)
    except Exception as error:  # whatever the library makes of a damaged file
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ValueError(f"{file}: cannot be read ({said})") from error


def _arrays(file: Path) -> dict[str, Tensor]:
    """The arrays of an npz file."""
    import numpy as np

    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(one.file_size for one in archive.infolist())
        if unpacked > MOST_PACKED * file.stat().st_size + MOST_HEADER:
            raise ValueError("it unpacks to much more than weights do")
        with np.load(file, allow_pickle=False) as arrays:
            return dict(_floating(arrays))
    except (ValueError, OSError, MemoryError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ValueError(
            f"{file}: cannot be read ({(str(error) or type(error).__name__).splitlines()[0][:120]})"
        ) from error


def _floating(arrays: Any) -> Iterator[tuple[str, Tensor]]:
    for name in arrays.files:
        array = arrays[name]
        if array.dtype.kind == "f" and array.size == math.prod(array.shape):
            yield name, torch.from_numpy(array)
