"""docs/converting.md: its blocks as they stand, on files that each format's own library wrote."""

import ast
import io
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, composed, run_here
from contents import contents
from PIL import Image

from ddpm.app.build import build_data

PAGE = ROOT / "docs" / "converting.md"
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))

CLASSES = ["0", "1", "2", "10"]
LABELS = np.arange(24) % 4
"""Into `CLASSES`."""

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
GREY = IMAGES[..., 0]

Expected = Iterable[tuple[np.ndarray, str | None]]
"""Images uint8 [H, W, C] or [H, W] with the names of their classes."""


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def named(images: np.ndarray) -> Expected:
    return [(image, CLASSES[label]) for image, label in zip(images, LABELS, strict=True)]


def numbered(images: np.ndarray) -> Expected:
    """Of files that hold numbers for labels."""
    return [(image, str(label)) for image, label in zip(images, LABELS, strict=True)]


def unlabelled(images: np.ndarray) -> Expected:
    return [(image, None) for image in images]


def lmdb() -> Expected:
    import lmdb

    with lmdb.open("church_train_lmdb", map_size=1 << 24) as opened, opened.begin(write=True) as entries:
        for number, image in enumerate(IMAGES):
            entries.put(f"key{number}".encode(), png(image))
    return unlabelled(IMAGES)


def tfrecord() -> Expected:
    from tfrecord.writer import TFRecordWriter

    writer = TFRecordWriter("train.tfrecord")
    for image, label in zip(IMAGES, LABELS, strict=True):
        writer.write({"image": (png(image), "byte"), "label": (int(CLASSES[label]), "int")})
    writer.close()
    return named(IMAGES)


def zarr() -> Expected:
    import zarr

    store = zarr.open_group("train.zarr", mode="w")
    store.create_array("images", data=IMAGES)
    store.create_array("labels", data=LABELS)
    return numbered(IMAGES)


def dicom() -> Expected:
    """Stored from 0, with an intercept of -1000: Hounsfield's unit is 8 times the grey, less 1000."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    Path("scans").mkdir()
    for number, image in enumerate(GREY):
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = CTImageStorage
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        file.Rows, file.Columns, file.SamplesPerPixel = 32, 32, 1
        file.PhotometricInterpretation = "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
        file.RescaleSlope, file.RescaleIntercept = 1, -1000
        file.PixelData = (image.astype("<u2") * 8).tobytes()
        file.save_as(f"scans/{number:02}.dcm", enforce_file_format=True)
    window = np.clip(GREY.astype(np.float64) * 8 - 1000, -1000, 1000)
    return unlabelled(np.round((window + 1000) / 2000 * 255).astype(np.uint8))


def nifti() -> Expected:
    import nibabel

    volume = np.moveaxis(GREY, 0, 2).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), "brain.nii.gz")
    white = np.percentile(GREY, 99.5)
    return unlabelled(np.round(np.clip(GREY / white, 0, 1) * 255).astype(np.uint8))


def torch() -> Expected:
    import torch

    torch.save((torch.from_numpy(IMAGES).permute(0, 3, 1, 2), torch.from_numpy(LABELS)), "training.pt")
    return numbered(IMAGES)


def pickles() -> Expected:
    import pickle

    Path("train.pkl").write_bytes(pickle.dumps((IMAGES, LABELS)))
    return numbered(IMAGES)


def csv() -> Expected:
    small = GREY[:, :28, :28]
    header = ",".join(["label", *(f"pixel{number}" for number in range(784))])
    table = np.concatenate([LABELS[:, None], small.reshape(24, -1)], 1)
    np.savetxt("train.csv", table, "%d", ",", header=header, comments="")
    return numbered(small)


def video() -> Expected:
    """FFV1 loses nothing."""
    import av

    with av.open("film.mp4", "w", format="matroska") as film:
        stream = film.add_stream("ffv1", 25, width=32, height=32, pix_fmt="bgr0")
        for image in np.repeat(IMAGES[:4], 25, 0):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        film.mux(stream.encode())
    return unlabelled(IMAGES[:4])


def heic() -> Expected:
    """Of one grey each, which the format keeps within a level or two."""
    import pillow_heif

    Path("photos").mkdir()
    for number in range(4):
        pillow_heif.from_pillow(Image.new("RGB", (64, 64), (60 * number,) * 3)).save(
            f"photos/{number}.heic", quality=-1
        )
    return unlabelled(np.stack([np.full((32, 32), 60 * number, np.uint8) for number in range(4)]))


def mindrecord() -> Expected:
    from mindspore.mindrecord import FileWriter

    writer = FileWriter("train.mindrecord")
    writer.add_schema({"data": {"type": "bytes"}, "label": {"type": "int32"}})
    rows = zip(IMAGES, LABELS, strict=True)
    writer.write_raw_data([{"data": png(image), "label": int(CLASSES[label])} for image, label in rows])
    writer.commit()
    return named(IMAGES)


def recordio() -> Expected:
    from mxnet import recordio

    records = recordio.MXRecordIO("train.rec", "w")
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        header = recordio.IRHeader(0, float(CLASSES[label]), number, 0)
        records.write(recordio.pack(header, png(image)))
    records.close()
    return named(IMAGES)


def ffcv() -> Expected:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    writer = DatasetWriter("train.beton", {"image": RGBImageField(write_mode="raw"), "label": IntField()})
    writer.from_indexed_dataset(list(zip(IMAGES, LABELS.tolist(), strict=True)))
    return numbered(IMAGES)


def digits() -> Expected:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = np.round(loaded.images / 16 * 255).astype(np.uint8)
    return [(image, str(label)) for image, label in zip(images, loaded.target, strict=True)]


def hugging_face() -> Expected:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c", "d"])}
    )
    rows = {"image": [Image.fromarray(image) for image in IMAGES], "label": LABELS}
    datasets.Dataset.from_dict(rows, features).to_parquet("train.parquet")
    return [(image, "abcd"[label]) for image, label in zip(IMAGES, LABELS, strict=True)]


def colours() -> Expected:
    shown = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}
    return [(np.full((32, 32, 3), colour, np.uint8), name) for name, colour in shown.items()]


def shards() -> Expected:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = (loaded.images * 15).astype(np.uint8)
    return [(image, str(label)) for image, label in zip(images, loaded.target, strict=True)]


MAKERS: dict[str, Callable[[], Expected]] = {
    "LMDB": lmdb,
    "TFRecord": tfrecord,
    "Zarr": zarr,
    "DICOM": dicom,
    "NIfTI": nifti,
    "PyTorch tensors": torch,
    "Pickles": pickles,
    "CSV of pixels": csv,
    "Video": video,
    "HEIC": heic,
    "MindRecord": mindrecord,
    "RecordIO": recordio,
    "FFCV": ffcv,
    "Data sets of scikit-learn": digits,
    "A data set of Hugging Face": hugging_face,
    "Anything that Python reads": colours,
    "Sets larger than memory": shards,
}
"""Write in the current folder the file that a section converts, by its own library, and say what is in it."""

ELSEWHERE = {
    "7z, rar, zst": "a command, no Python",
    "Data sets of torchvision": "it downloads",
    "Data sets of Keras": "it downloads",
}
"""Sections that no test runs, and why."""

BEYOND = {"HEIC": 2, "DICOM": 1, "NIfTI": 1}
"""Levels of 255 by which images may differ; the others are equal."""


def test_every_section_is_tried_or_says_why_not():
    assert {*MAKERS, *ELSEWHERE} == set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_complete(section: str):
    assert len(parts(section)) == 2
    assert parts(section)[1].startswith("ddpm inspect data=")


def parts(section: str) -> list[str]:
    """The code blocks of a section: what converts, and what inspects."""
    return re.findall(r"^```\w*\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


def imports(block: str) -> set[str]:
    """The packages that a block imports."""
    found = set()
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("section", MAKERS)
def test_what_a_section_writes_is_read(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    block, command = parts(section)
    for library in sorted(imports(block)):
        pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    expected = MAKERS[section]()
    exec(compile(block, section, "exec"), {"__name__": "__main__"})

    words = shlex.split(command)[2:]
    assert run_here(monkeypatch, "inspect", *words) == 0, capsys.readouterr().err
    data_set = build_data(composed("inspect", *words)).data_set
    train, validation = contents(data_set)
    assert_same([*train, *validation], list(expected), BEYOND.get(section, 0))


def assert_same(found: list, expected: list, within: int) -> None:
    """The same images, each with its class, in any order."""
    shown = [(as_colour(image.transpose(1, 2, 0)), label) for image, label in found]
    wanted = [(as_colour(image), label) for image, label in expected]
    if not within:
        assert Counter((image.tobytes(), label) for image, label in shown) == Counter(
            (image.tobytes(), label) for image, label in wanted
        )
        return
    assert len(shown) == len(wanted)
    for image, label in wanted:
        assert any(label == own and np.abs(other.astype(int) - image).max() <= within for other, own in shown)


def as_colour(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of [H, W, C] or [H, W]."""
    image = image[..., None] if image.ndim == 2 else image
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
