"""What lies at a path is told without reading it, and what to type instead where it is not read."""

import gzip
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, accepted, run_here
from PIL import Image

from ddpm.app import check
from ddpm.data import kinds
from ddpm.options import options


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


IDX = b"\0\0\x08\x03" + np.array([1, 2, 2], ">u4").tobytes() + b"1234"


def write(path: Path, contents: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    return path


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(write(path), "w") as archive:
        for name in names:
            archive.writestr(name, png())
    return path


def tarred(path: Path, mode: str, *names: str) -> Path:
    with tarfile.open(write(path), mode) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            archive.addfile(member, io.BytesIO())
    return path


def filled(folder: Path, *names: str, contents: bytes = b"x") -> Path:
    for name in names:
        write(folder / name, contents)
    return folder


PICTURES: dict[str, Callable[[Path], Path]] = {
    "folder": lambda place: filled(place / "set", "a/1.png", "b/2.JPG", "readme.txt"),
    "names without suffix": lambda place: filled(place / "set", "a/1", "a/2", contents=png()),
    "names that mean nothing": lambda place: filled(place / "set", *map(str, range(200)), contents=png()),
    "pictures among videos": lambda place: filled(place / "set", *(f"{i}.mp4" for i in range(9)), "z/1.webp"),
    "a state.json of one's own": lambda place: filled(
        place / "set", "state.json", "dataset_info.json", "1.png"
    ),
    "a link in a circle": lambda place: linked(filled(place / "set", "1.png")),
    "more than is looked at": lambda place: filled(
        place / "set", *(f"{i:05}.dcm" for i in range(300)), "z.jpg"
    ),
}


def linked(folder: Path) -> Path:
    (folder / "again").symlink_to(folder)
    return folder


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_never_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kinds, "LOOKED_AT", 100)
    path = PICTURES[name](tmp_path)
    for option in ("folder", "hub"):
        assert kinds.refused(option, path, most=100) is None
        assert kinds.refused(option, path) is None


TARS, ZIPS = {"archive", "arrays", "stream"}, {"archive", "arrays"}

READ: dict[str, tuple[Callable[[Path], Path], str, set[str]]] = {
    "idx": (lambda place: write(place / "t10k-images-idx3-ubyte", IDX), "an idx file", {"arrays"}),
    "idx, another name": (lambda place: write(place / "digits.bin", IDX), "an idx file", {"arrays"}),
    "idx.gz": (lambda place: write(place / "x.gz", gzip.compress(IDX)), "an idx file", {"arrays"}),
    "npz": (lambda place: zipped(place / "a.npz", "images.npy"), "an npz file", {"arrays"}),
    "npz, another name": (lambda place: zipped(place / "a", "images.npy"), "an npz file", {"arrays"}),
    "npy": (lambda place: write(place / "images.npy"), "an npy file", {"arrays"}),
    "mat": (lambda place: write(place / "train_32x32.mat"), "a MATLAB file", {"arrays"}),
    "h5": (lambda place: write(place / "3dshapes.h5"), "an HDF5 file", {"arrays"}),
    "cifar batch": (lambda place: write(place / "data_batch_1"), "a batch of CIFAR", {"arrays"}),
    "cifar-100's": (lambda place: write(place / "train", b"\x80\x02}"), "a pickle", {"arrays"}),
    "cifar.tar.gz": (
        lambda place: tarred(place / "cifar.tar.gz", "w:gz", "cifar-10-batches-py/", "cifar-10-batches-py/x"),
        "a tar file of CIFAR's batches",
        {"arrays"},
    ),
    "cifar in a dot": (
        lambda place: tarred(place / "c.tar", "w", "./", "./cifar-100-binary/"),
        "a tar file of CIFAR's batches",
        {"arrays"},
    ),
    "zip": (lambda place: zipped(place / "a.zip", "a/1.png"), "a zip file", ZIPS),
    "zip, another name": (
        lambda place: zipped(place / "a.cbz", "a/1.png"),
        "a zip file",
        ZIPS,
    ),
    "tar": (
        lambda place: tarred(place / "a.tar", "w", "1.png"),
        "a tar file",
        TARS,
    ),
    "tar.xz": (
        lambda place: tarred(place / "a.txz", "w:xz", "1.png"),
        "a tar file",
        TARS,
    ),
    "tar, no name": (
        lambda place: tarred(place / "a", "w:gz", "1.png"),
        "a tar file",
        TARS,
    ),
    "parquet": (lambda place: write(place / "a.parquet"), "a parquet file", {"stream"}),
    "pickle": (lambda place: write(place / "a.pkl"), "a pickle", {"arrays"}),
    "folder of parquet": (
        lambda place: filled(place / "set", "README.md", "data/train-00000-of-00001.parquet"),
        "a folder of parquet files",
        {"stream", "hub"},
    ),
    "folder of shards": (
        lambda place: filled(place / "set", "train-0.tar", "train-1.tar"),
        "a folder of tar files",
        {"stream", "hub"},
    ),
    "saved": (
        lambda place: filled(place / "set", "data-0.arrow", "dataset_info.json", "state.json"),
        "a data set that save_to_disk wrote",
        {"hub"},
    ),
    "saved parts": (
        lambda place: filled(place / "set", "dataset_dict.json", "train/state.json", "train/data.arrow"),
        "a data set that save_to_disk wrote",
        {"hub"},
    ),
    "folder of cifar": (
        lambda place: filled(place / "cifar", "batches.meta", "data_batch_1", "data_batch_2", "test_batch"),
        "a folder of batches of CIFAR",
        {"arrays"},
    ),
    "folder of mnist": (
        lambda place: filled(place / "raw", "train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
        "a folder of idx files",
        {"arrays"},
    ),
    "folder of npy": (
        lambda place: filled(place / "set", "images.npy", "labels.npy"),
        "a folder of npy files",
        {"arrays"},
    ),
}
"""What some option reads: how it is made, what it is called, and the options that read it."""

OPTIONS = ("folder", "archive", "arrays", "stream", "hub")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", READ)
def test_what_another_option_reads(name: str, option: str, tmp_path: Path):
    make, called, read_by = READ[name]
    path = make(tmp_path)
    said = kinds.refused(option, path)
    if option in read_by:
        assert said is None
    else:
        (first,) = {"arrays", "archive", "stream", "hub"} & {re.search(r"data=(\w+)$", said)[1]}
        assert said == f"data.path={path} is {called}; read it by data={first}"
        assert first in read_by


SHARDS = ("train-00000-of-01024", "train-00001-of-01024")

NOT_READ: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "LMDB": (lambda place: filled(place / "x_lmdb", "data.mdb", "lock.mdb"), "is an LMDB", "LMDB"),
    "LMDB file": (
        lambda place: write(place / "x.mdb", bytes(16) + b"\xde\xc0\xef\xbe" + bytes(99)),
        "is an LMDB",
        "LMDB",
    ),
    "TFRecord": (lambda place: write(place / "a.tfrecords"), "is a TFRecord file", "TFRecord"),
    "TFDS": (
        lambda place: filled(place / "1.0.0", "cifar10-train.tfrecord-00000-of-00001", "dataset_info.json"),
        "is a folder of TFRecord files",
        "TFRecord",
    ),
    "ImageNet's": (
        lambda place: filled(place / "set", *SHARDS, contents=b"\x10\x02" + bytes(10)),
        "is a folder of TFRecord files",
        "TFRecord",
    ),
    "Zarr": (lambda place: filled(place / "a.zarr", "zarr.json", "images/c/0"), "is a Zarr store", "Zarr"),
    "Zarr 2": (lambda place: filled(place / "a", ".zgroup", "images/0.0"), "is a Zarr store", "Zarr"),
    "DICOM": (
        lambda place: filled(place / "scans", "a/IM0", "a/IM1", contents=bytes(128) + b"DICM"),
        "is a folder of DICOM files",
        "DICOM",
    ),
    "DICOM beside tables": (
        lambda place: filled(place / "scans", "1.dcm", "a.csv", "b.csv", "c.json", "d.json", "e.json"),
        "is a folder of DICOM files",
        "DICOM",
    ),
    "DICOM file": (lambda place: write(place / "a.dcm"), "is a DICOM file", "DICOM"),
    "NIfTI": (lambda place: write(place / "brain.nii.gz"), "is a NIfTI file", "NIfTI"),
    "FFCV": (lambda place: write(place / "a.beton"), "is an FFCV file", "FFCV"),
    "MindRecord": (
        lambda place: filled(place / "set", "a.mindrecord0", "a.mindrecord0.db"),
        "is a folder of MindRecord files",
        "MindRecord",
    ),
    "RecordIO": (
        lambda place: filled(place / "faces", "train.rec", "train.idx", "train.lst"),
        "is a folder of RecordIO files",
        "RecordIO",
    ),
    "tensors": (lambda place: write(place / "training.pt"), "is a PyTorch file", "PyTorch tensors"),
    "CSV": (
        lambda place: filled(place / "kaggle", "train.csv", "test.csv", "sample_submission.csv"),
        "is a folder of CSV files",
        "CSV of pixels",
    ),
    "video": (lambda place: filled(place / "films", "1.mp4", "2.MOV"), "is a folder of videos", "Video"),
    "HEIC": (
        lambda place: filled(place / "phone", "1.HEIC", "2.heic"),
        "is a folder of pictures of other formats",
        "HEIC",
    ),
    "7z": (lambda place: write(place / "a.7z"), "is an archive of another format", "7z, rar, zst"),
    "JSON": (lambda place: write(place / "a.jsonl"), "is a JSON file", "Anything that Python reads"),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", NOT_READ)
def test_what_no_option_reads(name: str, option: str, tmp_path: Path):
    make, what, section = NOT_READ[name]
    path = make(tmp_path)
    said = kinds.refused(option, path)
    head = f"data.path={path} {what}, not read as it is; convert it (docs/converting.md, {section})"
    assert said == f"{head}:\n\n{kinds.conversion(section)}"
    assert "ddpm inspect data=" in said


def test_a_folder_of_archives_names_one(tmp_path: Path):
    folder = tmp_path / "downloads"
    first = zipped(folder / "a.zip", "1.png")
    zipped(folder / "b.zip", "1.png")
    said = f"data.path={folder} is a folder of zip files; name one of them: data=archive data.path={first}"
    assert kinds.refused("folder", folder) == said


def test_of_one_file_its_folder_is_named(tmp_path: Path):
    picture = write(tmp_path / "a" / "1.png")
    said = (
        f"data.path={picture} is a picture; name the folder that it is in: data=folder data.path={tmp_path}/a"
    )
    assert kinds.refused("folder", picture) == said
    arrow = write(tmp_path / "b" / "data.arrow")
    said = (
        f"data.path={arrow} is an Arrow file; name the folder that it is in: data=hub data.path={tmp_path}/b"
    )
    assert kinds.refused("stream", arrow) == said


IN_ARCHIVES = {
    ("1.png",): ("archive", "{path} is {archive} of pictures; read it by data=archive"),
    ("a/x.npy", "a/y.npy", "a/1.png"): (
        "arrays",
        "{path} is {archive} of npy files; read it by data=arrays",
    ),
    ("data/a.parquet",): (
        None,
        "{path} is {archive} of parquet files; unpack it, and name the folder: data=stream data.path=FOLDER",
    ),
    ("1.dcm", "labels.csv", "labels.json"): (
        None,
        "{path} is {archive} of DICOM files, not read as it is; convert it (docs/converting.md, DICOM):",
    ),
}
"""By the names in an archive, the option that reads it, and what is said for the others."""


@pytest.mark.parametrize("option", ["archive", "arrays"])
@pytest.mark.parametrize("names", IN_ARCHIVES)
@pytest.mark.parametrize("archive", ["a zip file", "a tar file"])
def test_an_option_that_found_nothing_in_an_archive_asks_by_the_names_in_it(
    names: tuple[str, ...], option: str, archive: str, tmp_path: Path
):
    read_by, message = IN_ARCHIVES[names]
    names = ("readme.txt", *names)
    zip_ = archive == "a zip file"
    path = zipped(tmp_path / "a.zip", *names) if zip_ else tarred(tmp_path / "a.tgz", "w:gz", *names)
    assert kinds.refused(option, path) is None
    said = kinds.refused(option, path, most=None)
    if option == read_by:
        assert said is None
    else:
        assert said.partition("\n")[0] == "data.path=" + message.format(path=path, archive=archive)


UNTOLD: dict[str, Callable[[Path], Path]] = {
    "empty folder": lambda place: filled(place / "empty", ".hidden"),
    "texts alone": lambda place: filled(place / "set", "readme.txt", "a/notes.md"),
    "other bytes": lambda place: filled(place / "set", "a.dat", "b"),
    "a file of other bytes": lambda place: write(place / "a.dat"),
    "an empty file": lambda place: write(place / "a", b""),
    "a damaged gz": lambda place: write(place / "a.gz", b"\x1f\x8bx"),
    "a damaged tar.gz": lambda place: write(place / "a.tar.gz", b"\x1f\x8bx"),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_what_is_not_known_is_left_to_the_source(name: str, tmp_path: Path):
    path = UNTOLD[name](tmp_path)
    option = "archive" if path.name == "a.tar.gz" else "folder"
    assert kinds.refused(option, path) is None
    assert kinds.refused(option, path, most=None) is None


def test_a_folder_too_large_to_look_at_is_left_to_the_source_which_asks_again(tmp_path: Path):
    path = filled(tmp_path / "scans", *(f"{i:05}.dcm" for i in range(300)))
    assert kinds.refused("folder", path, most=299) is None
    assert "DICOM" in kinds.refused("folder", path, most=300)
    assert "DICOM" in kinds.refused("folder", path, most=None)
    path = filled(tmp_path / "odd", *map(str, range(kinds.OPENED + 1)), contents=bytes(128) + b"DICM")
    assert kinds.refused("folder", path) is None
    assert "DICOM" in kinds.refused("folder", path, most=None)


def test_every_option_that_is_named_is_there():
    known = options("data")
    found = [kind for kind in vars(kinds).values() if isinstance(kind, kinds.Kind)]
    assert {option for kind in found for option in (*kind.file, *kind.folder)} <= set(known)
    assert len(found) > 25
    for kind in found:
        assert not kind.name or kind.file or kind.folder or kinds.conversion(kind.section)


def test_what_is_looked_at_is_what_sources_read():
    from ddpm import targets

    for target, option in check.READERS.items():
        assert "path" in targets.parameters("data", target).names
        assert option in OPTIONS


MISTAKES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "an LMDB": (NOT_READ["LMDB"][0], "folder", r"is an LMDB, not read as it is; .*LMDB\):\n\nfrom pathlib"),
    "a folder of TFRecord": (NOT_READ["TFDS"][0], "cifar10", r"is a folder of TFRecord files, not read"),
    "an npz for a folder": (READ["npz"][0], "folder", r"is an npz file; read it by data=arrays"),
    "a folder for an archive": (PICTURES["folder"], "archive", r"is a folder of pictures; .* data=folder"),
    "CIFAR's archive": (READ["cifar.tar.gz"][0], "archive", r"CIFAR's batches; read it by data=arrays"),
    "shards in a folder": (READ["folder of shards"][0], "folder", r"tar files; read it by data=stream"),
    "pictures for a stream": (PICTURES["folder"], "stream", r"is a folder of pictures; .* data=folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_program_says_it_before_anything_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    make, option, message = MISTAKES[name]
    path = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for program in ("inspect", "train"):
        words = [f"data={option}", f"data.path={path}"]
        assert run_here(monkeypatch, program, *words, prepare=accepted) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: data.path={path} ")
        assert said.count("error: ") == 1
        assert re.search(message, said), said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["an LMDB", "an npz for a folder", "CIFAR's archive"])
def test_inspect_in_a_process_of_its_own(name: str, tmp_path: Path):
    make, option, message = MISTAKES[name]
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    command = [sys.executable, "-m", "ddpm", "inspect", f"data={option}", f"data.path={path}"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 2
    assert re.search(message, outcome.stderr)
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_looking_imports_nothing_heavy():
    code = (
        "import sys; from ddpm.data import kinds; kinds.refused('folder', '.'); "
        "sys.exit(' '.join({'numpy', 'torch', 'PIL', 'pyarrow', 'datasets'} & set(sys.modules)) or 0)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
