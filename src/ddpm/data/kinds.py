"""What lies at a path, by names and first bytes, and what to type where a data option does not read it."""

import gzip
import itertools
import os
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm.data.layout.names import IMAGES

CONVERTING = "docs/converting.md"
"""Says how each kind that is not read is converted."""

LOOKED_AT = 20_000
"""Files of a folder after which it is not known what is in it: looking must take no time."""

OPENED = 64
"""Files whose names say nothing that are opened; with more of them it is not known what is in a folder."""


@dataclass(frozen=True)
class Kind:
    """A way to keep images.

    Attributes:
        name: of one, with its article.
        names: of many.
        file: the data options that read one such file, the best first.
        folder: the data options that read a folder of them, the best first.
        section: of `CONVERTING`, for a kind that no option reads.
    """

    name: str
    names: str
    file: tuple[str, ...] = ()
    folder: tuple[str, ...] = ()
    section: str | None = None


PICTURE = Kind("a picture", "pictures", folder=("folder", "hub"))
ZIP = Kind("a zip file", "zip files", file=("archive", "arrays"))
TAR = Kind("a tar file", "tar files", file=("archive", "arrays", "stream"), folder=("stream", "hub"))
PARQUET = Kind("a parquet file", "parquet files", file=("stream",), folder=("stream", "hub"))
ARROW = Kind("an Arrow file", "Arrow files", folder=("hub",))
SAVED = Kind("a data set that save_to_disk wrote", "data sets that save_to_disk wrote", folder=("hub",))
NPZ = Kind("an npz file", "npz files", file=("arrays",), folder=("arrays",))
NPY = Kind("an npy file", "npy files", file=("arrays",), folder=("arrays",))
IDX = Kind("an idx file", "idx files", file=("arrays",), folder=("arrays",))
MAT = Kind("a MATLAB file", "MATLAB files", file=("arrays",), folder=("arrays",))
HDF5 = Kind("an HDF5 file", "HDF5 files", file=("arrays",), folder=("arrays",))
CIFAR = Kind("a batch of CIFAR", "batches of CIFAR", file=("arrays",), folder=("arrays",))
CIFAR_TAR = Kind("a tar file of CIFAR's batches", "tar files of CIFAR's batches", file=("arrays",))
LMDB = Kind("an LMDB", "LMDB files", section="LMDB")
TFRECORD = Kind("a TFRecord file", "TFRecord files", section="TFRecord")
ZARR = Kind("a Zarr store", "Zarr stores", section="Zarr")
DICOM = Kind("a DICOM file", "DICOM files", section="DICOM")
NIFTI = Kind("a NIfTI file", "NIfTI files", section="NIfTI")
FFCV = Kind("an FFCV file", "FFCV files", section="FFCV")
MINDRECORD = Kind("a MindRecord file", "MindRecord files", section="MindRecord")
RECORDIO = Kind("a RecordIO file", "RecordIO files", section="RecordIO")
TORCH = Kind("a PyTorch file", "PyTorch files", section="PyTorch tensors")
PICKLE = Kind("a pickle", "pickles", file=("arrays",), folder=("arrays",))
CSV = Kind("a CSV file", "CSV files", section="CSV of pixels")
JSON = Kind("a JSON file", "JSON files", section="Anything that Python reads")
VIDEO = Kind("a video", "videos", section="Video")
OTHER_PICTURE = Kind("a picture of another format", "pictures of other formats", section="HEIC")
OTHER_ARCHIVE = Kind("an archive of another format", "archives of other formats", section="7z, rar, zst")

UNKNOWN = Kind("", "", folder=("arrays",))
"""Neither name nor first bytes say what it is; pictures would say it by their first bytes."""

BESIDE = Kind("", "")
"""Texts that lie beside images."""

SUFFIXES = {
    ZIP: "zip",
    TAR: "tar tgz tbz tbz2 txz tar.gz tar.bz2 tar.xz",
    PARQUET: "parquet",
    ARROW: "arrow feather",
    NPZ: "npz",
    NPY: "npy",
    MAT: "mat",
    HDF5: "h5 hdf5 he5 hdf",
    TFRECORD: "tfrecord tfrecords tfrec tfrecord.gz",
    DICOM: "dcm dicom ima",
    NIFTI: "nii nii.gz",
    FFCV: "beton ffcv",
    MINDRECORD: "mindrecord",
    RECORDIO: "rec",
    TORCH: "pt pth",
    PICKLE: "pkl pickle joblib",
    CSV: "csv tsv",
    JSON: "json jsonl ndjson",
    VIDEO: "mp4 m4v mov avi mkv webm mpg mpeg wmv flv",
    OTHER_PICTURE: "heic heif jxl psd exr hdr tga svg cr2 nef arw dng",
    OTHER_ARCHIVE: "7z rar zst",
    BESIDE: "txt md rst xml yaml yml toml ini html htm pdf py ipynb sh log lst md5 sha256 lock db",
}
KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes.split()}
KIND_OF_SUFFIX |= dict.fromkeys(IMAGES, PICTURE)

NAMES = (
    (re.compile(r"(data|test)_batch(_\d+)?(\.bin)?|batches\.meta"), CIFAR),
    (re.compile(r".*[-.]idx\d-ubyte(\.gz)?"), IDX),
    (re.compile(r".*tfrecords?-\d+-of-\d+"), TFRECORD),
    (re.compile(r".*\.mindrecord\d*(\.db)?"), MINDRECORD),
)
"""Whole names, in small letters, that say more than a suffix."""

SHARD = re.compile(r".*-\d{5}-of-\d{5}")
"""A name without a suffix that TensorFlow's own scripts give to TFRecord files."""

FIRST_BYTES = (
    (
        re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|BM|II[*+]\0|MM\0[*+]|RIFF....WEBP|P[1-7]\s", re.DOTALL),
        PICTURE,
    ),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51|....ftyp(avif|avis|mif1)", re.DOTALL), PICTURE),
    (re.compile(rb"....ftyp(heic|heix|hevc)", re.DOTALL), OTHER_PICTURE),
    (re.compile(rb".{128}DICM", re.DOTALL), DICOM),
    (re.compile(rb".{16}\xde\xc0\xef\xbe", re.DOTALL), LMDB),
    (re.compile(rb"PK\x03\x04.{26}[^\0]*?\.npy", re.DOTALL), NPZ),
    (re.compile(rb"PK\x03\x04.{26}[^\0]*?data\.pkl", re.DOTALL), TORCH),
    (re.compile(rb"PK\x03\x04"), ZIP),
    (re.compile(rb".{257}ustar", re.DOTALL), TAR),
    (re.compile(rb"\x93NUMPY"), NPY),
    (re.compile(rb"\x89HDF\r\n"), HDF5),
    (re.compile(rb"MATLAB 5"), MAT),
    (re.compile(rb"PAR1"), PARQUET),
    (re.compile(rb"ARROW1"), ARROW),
    (re.compile(rb"\x0a\x23\xd7\xce"), RECORDIO),
    (re.compile(rb"\x80[\x02-\x05]"), PICKLE),
    (re.compile(rb"\0\0[\x08\x09\x0b-\x0e][\x01-\x04]"), IDX),
    (re.compile(rb"7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd"), OTHER_ARCHIVE),
    (re.compile(rb"[\t\n\r -~]+\Z"), BESIDE),
)
"""What files begin with whose names say nothing, in the order in which they are tried."""

MARKS = (
    ({"data.mdb"}, LMDB),
    ({"zarr.json"}, ZARR),
    ({".zgroup"}, ZARR),
    ({".zarray"}, ZARR),
    ({"state.json", "dataset_info.json"}, SAVED),
    ({"dataset_dict.json"}, SAVED),
)
"""Files that together say what the folder is that they are in, where no picture lies beside them."""

CIFAR_FOLDER = re.compile(r"cifar-10{1,2}-(batches-py|batches-bin|python|binary)(/|$)")


def refused(option: str, path: str | Path, most: int | None = LOOKED_AT) -> str | None:
    """Why a data option does not read what lies at a path, and what to type instead.

    Args:
        option: folder, archive, arrays, stream or hub.
        path: of a file or folder that is there, on this disk.
        most: files of a folder after which it is not known what is in it. None looks at all of them, and at
            the names in an archive: for an option that has tried, and found nothing.

    Returns:
        a message that begins with `data.path=`, or None where the option may read it.
    """
    place = Path(os.path.expanduser(path))
    if not place.is_dir():
        kind = _of_file(place)
        if most is None and kind in (ZIP, TAR):
            return _refused_archive(option, path, place, kind)
        if not kind.name or option in kind.file:
            return None
        if not kind.file and kind.folder:
            return (
                f"data.path={path} is {kind.name}; name the folder that it is in: data={kind.folder[0]} "
                f"data.path={place.parent}"
            )
        return _instead(f"{path} is {kind.name}", kind, kind.file)
    found: list[tuple[Path, Kind]] = []
    for file, own in _in_folder(place, most):
        if own is None or option in own.folder:
            return None
        if own.name:
            found.append((file, own))
    if not found:
        return None
    kind = _most(own for _, own in found)
    example = next(file for file, own in found if own is kind)
    if example == place:
        return _instead(f"{path} is {kind.name}", kind, kind.folder)
    if not kind.folder and kind.file:
        return (
            f"data.path={path} is a folder of {kind.names}; name one of them: data={kind.file[0]} "
            f"data.path={example}"
        )
    return _instead(f"{path} is a folder of {kind.names}", kind, kind.folder)


def _refused_archive(option: str, path: str | Path, place: Path, archive: Kind) -> str | None:
    """The same of an archive, by the names in it."""
    try:
        if archive is ZIP:
            with zipfile.ZipFile(place) as unzipped:
                names = unzipped.namelist()
        else:
            with tarfile.open(place) as untarred:
                names = untarred.getnames()
    except Exception:  # each part of a damaged archive raises errors of its own
        return None
    found = [kind for name in names if (kind := _by_name(name.rpartition("/")[2])) is not None and kind.name]
    if not found:
        return None
    kind = _most(found)
    what = f"{path} is {archive.name} of {kind.names}"
    if kind in (ZIP, TAR):
        return f"data.path={what}; unpack it, and name one of these: data=archive data.path=FILE"
    read_by = "archive" if kind is PICTURE else "arrays" if "arrays" in kind.file else None
    if option == read_by or (option == "stream" and PICTURE in found):
        return None
    if read_by is None and kind.folder:
        return f"data.path={what}; unpack it, and name the folder: data={kind.folder[0]} data.path=FOLDER"
    return _instead(what, kind, () if read_by is None else (read_by,))


def _most(found: Iterable[Kind]) -> Kind:
    """The kind that most are of; tables and JSON files often lie beside what they describe."""
    numbers = Counter(found)
    return max(numbers, key=lambda kind: (kind not in (CSV, JSON), numbers[kind]))


def conversion(section: str) -> str:
    """The lines that a section of `CONVERTING` shows; nothing where the page was not installed."""
    here = Path(__file__)
    for page in (here.parents[1] / "converting.md", here.parents[3] / CONVERTING):
        if page.is_file():
            text = page.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
            return "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).rstrip()
    return ""


def _instead(what: str, kind: Kind, options: Sequence[str]) -> str:
    """The message: what lies where, and the option that reads it, or else the lines that convert it."""
    if options:
        return f"data.path={what}; read it by data={options[0]}"
    assert kind.section is not None
    lines = conversion(kind.section)
    shown = f":\n\n{lines}" if lines else ""
    return f"data.path={what}, not read as it is; convert it ({CONVERTING}, {kind.section}){shown}"


def _in_folder(folder: Path, most: int | None) -> Iterator[tuple[Path, Kind | None]]:
    """Files below a folder, and folders that are one thing, with their kinds; None ends it where there are
    too many, or some that cannot be looked at.
    """
    waiting, visited, opened, seen = [folder], set[str](), 0, 0
    while waiting:
        here = waiting.pop()
        real = os.path.realpath(here)
        if real in visited:  # through a link
            continue
        visited.add(real)
        try:
            with os.scandir(here) as listed:
                first = itertools.islice(listed, None if most is None else most + 1)
                entries = sorted(first, key=lambda entry: entry.name)
        except OSError:
            yield here, None
            return
        there = {entry.name for entry in entries}
        mark = next((kind for files, kind in MARKS if files <= there), None)
        if mark is not None and not any(_by_name(name) is PICTURE for name in there):
            yield here, mark
            continue
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                continue
            if path.is_dir() if entry.is_symlink() else entry.is_dir():
                waiting.append(path)
                continue
            kind = _by_name(entry.name)
            opened += kind is None
            seen += 1
            if most is not None and (seen > most or opened > OPENED):
                yield path, None
                return
            yield path, _by_contents(path) if kind is None else kind


def _of_file(path: Path) -> Kind:
    """What one file is."""
    kind = _by_name(path.name)
    if kind is TAR and CIFAR_FOLDER.match(_first_in_tar(path)):
        return CIFAR_TAR
    return _by_contents(path) if kind is None or not kind.name else kind


def _by_name(name: str) -> Kind | None:
    """What a name says about a file; None where it says nothing."""
    name = name.lower()
    for pattern, kind in NAMES:
        if pattern.fullmatch(name):
            return kind
    stem, _, suffix = name.rpartition(".")
    double = f"{stem.rpartition('.')[2]}.{suffix}"
    return KIND_OF_SUFFIX.get(double) or KIND_OF_SUFFIX.get(suffix if stem else "")


def _by_contents(path: Path) -> Kind:
    """What the first bytes of a file say about it."""
    try:
        with path.open("rb") as file:
            first = file.read(512)
        if first.startswith(b"\x1f\x8b"):
            with gzip.open(path) as unpacked:
                first = unpacked.read(512)
    except (OSError, EOFError):
        return UNKNOWN
    kind = next((kind for pattern, kind in FIRST_BYTES if pattern.match(first)), UNKNOWN)
    return TFRECORD if kind is UNKNOWN and SHARD.fullmatch(path.name) else kind


def _first_in_tar(path: Path) -> str:
    """The first folder in a tar file, without unpacking what comes behind it; nothing where it is damaged."""
    try:
        with tarfile.open(path, "r|*") as archive:
            names = (member.name.removeprefix("./") for member in archive)
            return f"{next((name for name in names if name != '.'), '')}/"
    except (OSError, EOFError, tarfile.TarError):
        return ""
