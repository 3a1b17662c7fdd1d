"""Reference statistics are what pytorch-fid and EDM read and write, and nothing in a file is run."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.errors import UsageError
from ddpm.evaluation import reference_file
from ddpm.evaluation.measures.moments import gaussian


def drawn() -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=3)).standard_normal((50, 4))


def test_what_is_written_is_read(tmp_path: Path):
    whole = gaussian(torch.from_numpy(drawn()))
    reference_file.write(tmp_path / "reference.npz", whole)
    found = reference_file.read(tmp_path / "reference.npz", 4)
    assert torch.equal(found.mean, whole.mean)
    assert torch.equal(found.covariance, whole.covariance)
    assert found.n == 50


def test_others_read_it(tmp_path: Path):
    """As pytorch-fid and EDM do: f["mu"][:], and dict(np.load(f))."""
    whole = gaussian(torch.from_numpy(drawn()))
    reference_file.write(tmp_path / "reference.npz", whole)
    with np.load(tmp_path / "reference.npz") as found:
        np.testing.assert_array_equal(found["mu"][:], whole.mean)
        np.testing.assert_array_equal(dict(found)["sigma"], whole.covariance)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8"])
def test_theirs_are_read(save: Any, dtype: str, tmp_path: Path):
    """pytorch-fid compresses; guided-diffusion has more arrays in it."""
    mu, sigma = drawn().mean(0).astype(dtype), np.cov(drawn(), rowvar=False).astype(dtype)
    save(tmp_path / "theirs.npz", mu=mu, sigma=np.asfortranarray(sigma), mu_s=mu[:2])
    found = reference_file.read(tmp_path / "theirs.npz")
    assert found.mean.dtype == found.covariance.dtype == torch.float64
    np.testing.assert_allclose(found.mean, mu)
    np.testing.assert_allclose(found.covariance, sigma, rtol=1e-6)
    assert found.n is None


class Harmful:
    def __reduce__(self) -> Any:
        return pytest.fail, ("it was run",)


GOOD = {"mu": np.zeros(3), "sigma": np.eye(3)}


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        (
            {"mu": np.zeros(3)},
            "holds no sigma; reference statistics have mu and sigma, and this file has mu.npy",
        ),
        (GOOD | {"sigma": np.eye(4)}, r"its sigma is float64 \[4, 4\], not numbers \[3, 3\]"),
        (GOOD | {"mu": np.zeros((3, 1))}, r"its mu is float64 \[3, 1\], not numbers \[D\]"),
        (GOOD | {"mu": np.array(["a", "b", "c"])}, "its mu is <U1"),
        (GOOD | {"mu": np.array([0, np.nan, 0])}, "holds NaN or infinity"),
        (GOOD | {"sigma": np.triu(np.ones((3, 3)))}, "its sigma is no covariance"),
        (GOOD | {"sigma": -np.eye(3)}, "its sigma is no covariance"),
        (GOOD | {"mu": np.array([Harmful()] * 3, object)}, "holds pickled objects"),
    ],
)
def test_what_is_no_reference_is_refused(arrays: dict[str, np.ndarray], why: str, tmp_path: Path):
    file = tmp_path / "bad.npz"
    np.savez(file, **arrays)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=rf"{file}: {why}"):
        reference_file.read(file)


def test_a_reference_of_another_extractor_is_refused(tmp_path: Path):
    np.savez(tmp_path / "theirs.npz", **GOOD)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"its mu is float64 \[3\], not numbers \[2048\]; it is of another"):
        reference_file.read(tmp_path / "theirs.npz", 2048)


def test_pickles_are_refused(tmp_path: Path):
    file = tmp_path / "edm2.pkl"
    file.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(UsageError, match=r"holds pickled objects.*np.savez\(FILE, mu=mu, sigma=sigma\)"):
        reference_file.read(file)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 and then nothing", b"\x93NUMPY"])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path):
    file = tmp_path / "bad.npz"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"bad.npz: is no npz file that can be read"):
        reference_file.read(file)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no.npz: cannot be read \(No such file"):
        reference_file.read(tmp_path / "no.npz")


def test_a_header_that_asks_for_terabytes_gets_none(tmp_path: Path):
    file = tmp_path / "bad.npz"
    with zipfile.ZipFile(file, "w") as archive, archive.open("mu.npy", "w") as stream:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(UsageError, match=r"its mu is \[1000000000000\], and at most 8,192 features are read"):
        reference_file.read(file)
