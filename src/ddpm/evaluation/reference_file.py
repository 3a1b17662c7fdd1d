"""Reference statistics in a file: the npz with `mu` and `sigma` of pytorch-fid, and of EDM."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm.errors import UsageError
from ddpm.evaluation.measures.moments import MOST_FEATURES, Gaussian
from ddpm.runtime.pieces import write_npz
from ddpm.runtime.writing import whole

PICKLE = (
    "holds pickled objects, which could run any code and are not read; save it where it comes from as "
    "np.savez(FILE, mu=mu, sigma=sigma)"
)
KEPT = "n"
"""How many images it is of: a key of our own, which other readers pass over."""


def write(path: Path, reference: Gaussian) -> None:
    """Write mean and covariance as float64, so that pytorch-fid's and EDM's `fid.py` read them.

    Raises:
        ddpm.runtime.writing.WriteError: where the disk refuses.
    """
    arrays = {"mu": reference.mean.numpy(), "sigma": reference.covariance.numpy()}
    if reference.n is not None:
        arrays[KEPT] = np.array(reference.n, np.int64)
    with whole(path) as temporary:
        write_npz(temporary, {name: (each.shape, each.dtype, [each]) for name, each in arrays.items()})


def read(path: Path, num_features: int | None = None) -> Gaussian:
    """Read what `write`, pytorch-fid (`--save-stats`), EDM (`fid.py ref`), or guided-diffusion wrote.

    Args:
        path: an npz file with `mu` [D] and `sigma` [D, D]; other arrays in it are left alone.
        num_features: D, where it is known.

    Raises:
        UsageError: where it is no such file, holds pickled objects, its shapes do not fit, or its numbers
            are no mean and covariance.
    """
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise UsageError(f"{path}: {PICKLE}")
    try:
        with zipfile.ZipFile(path) as archive:
            mean = _array(archive, "mu", (num_features,))
            covariance = _array(archive, "sigma", (len(mean), len(mean)))
            n = int(_array(archive, KEPT, ())) if f"{KEPT}.npy" in archive.namelist() else None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{path}: is no npz file that can be read ({error})") from error
    if not np.isfinite(mean).all() or not np.isfinite(covariance).all():
        raise UsageError(f"{path}: holds NaN or infinity")
    scale = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > 1e-6 * scale or (np.diagonal(covariance) < 0).any():
        raise UsageError(
            f"{path}: its sigma is no covariance, it is not symmetric or has a negative variance"
        )
    covariance = (covariance + covariance.T) / 2
    return Gaussian(torch.from_numpy(mean), torch.from_numpy(covariance), n)


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int | None, ...]) -> np.ndarray[Any, Any]:
    """An array of numbers as float64, of a shape in which None is any size; what a header says is looked at
    before memory is taken.
    """
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        held = ", ".join(sorted(archive.namelist())[:5]) or "nothing"
        raise UsageError(
            f"holds no {name}; reference statistics have mu and sigma, and this file has {held}"
        ) from None
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            found, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            found, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version}")
        if dtype.hasobject:
            raise UsageError(PICKLE)
        wanted = tuple(size if asked is None else asked for size, asked in zip(found, shape, strict=False))
        if len(found) != len(shape) or found != wanted or dtype.kind not in "fiu":
            asked = ", ".join("D" if size is None else str(size) for size in shape)
            raise UsageError(
                f"its {name} is {dtype} {list(found)}, not numbers [{asked}]; it is of another extractor"
            )
        if any(size > MOST_FEATURES for size in found):
            raise UsageError(f"its {name} is {list(found)}, and at most {MOST_FEATURES:,} features are read")
        size = int(np.prod(found, dtype=np.int64)) * dtype.itemsize
        contents = stream.read(size)
    if len(contents) < size:
        raise ValueError(f"{name} is cut short")
    values = np.frombuffer(contents, dtype).reshape(found, order="F" if fortran else "C")
    return values.astype(np.float64)
