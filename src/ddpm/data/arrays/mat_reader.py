"""The arrays of a MATLAB file as npy files: a program of its own, as SciPy crashes on damaged files.

    python mat_reader.py FILE FOLDER BYTES

writes into the folder `names.json`, the names of the arrays with `/` between those of structs and fields, and
the arrays as `0.npy`, `1.npy`, ... An error is the last line that it prints. It takes at most as many bytes
of memory beyond those of its start, where the system can hold it to that.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.io import loadmat, whosmat


def arrays(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of numbers, the cells of strings, and what of both is in structs, one after the other."""
    for name, _, _ in whosmat(file, appendmat=False):
        found = loadmat(file, appendmat=False, variable_names=[name], mat_dtype=True)
        yield from _within(name, found.get(name))


def _within(name: str, value: object) -> Iterator[tuple[str, np.ndarray]]:
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names is not None:
        for field in value.dtype.names if value.size == 1 else ():
            yield from _within(f"{name}/{field}", value[field].item())
    elif value.dtype.kind == "O":
        words = [item.item() for item in value.ravel() if isinstance(item, np.ndarray) and item.size == 1]
        if len(words) == value.size and all(isinstance(word, str) for word in words):
            yield name, np.array(words, dtype=str)
    elif value.dtype.kind == "U":
        yield name, np.char.rstrip(value)
    elif value.dtype.kind in "buif":
        yield name, value


def main(file: Path, folder: Path) -> None:
    """Write what is in the file into the folder."""
    names: list[str] = []
    for name, array in arrays(file):
        np.save(folder / f"{len(names)}.npy", array, allow_pickle=False)
        names.append(name)
    (folder / "names.json").write_text(json.dumps(names), encoding="utf-8")


def take_at_most(size: int) -> None:
    """Let requests for more memory than what is held and these bytes fail: damaged files promise anything."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return
    import resource

    held = int(status.read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + size
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most < 0 else min(wanted, most), most))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    try:
        take_at_most(int(sys.argv[3]))
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # a damaged file raises whatever its parts raise
        sys.exit(" ".join(f"{error}".split()) or type(error).__name__)
