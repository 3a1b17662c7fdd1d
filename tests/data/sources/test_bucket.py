"""Images behind a URL: the same as in the folder or archive there, by fsspec's store in memory."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from ddpm.data import bounds
from ddpm.data.files.bucket import BucketFiles
from ddpm.data.sources.archive import Archive
from ddpm.data.sources.folder import Folder


def encoded(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), level).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    **{f"set/{part}/{name}/{i}.png": encoded(10 * i + (name == "dog")) for part in ("train", "test")
       for name in ("cat", "dog") for i in range(3)},
    "set/cover.png": encoded(99),
    "set/.hidden/x.png": encoded(98),
}  # fmt: skip


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    for name, contents in FILES.items():
        memory.pipe(f"/bucket/{name}", contents)
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def test_a_folder(tmp_path: Path, store: fsspec.AbstractFileSystem):
    for name, contents in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    there = Folder("memory://bucket/set", image_size=8).read()
    here = Folder(tmp_path / "set", image_size=8).read()
    assert there.classes == here.classes == ["cat", "dog"]
    assert there.fingerprint == here.fingerprint
    assert there.understood == here.understood
    np.testing.assert_array_equal(there.train.images, here.train.images)
    assert there.train.images[:, 0, 0, 0].tolist() == [0, 10, 20, 1, 11, 21]
    assert len(there.validation) == 6


def test_an_archive(store: fsspec.AbstractFileSystem):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, contents in FILES.items():
            archive.writestr(name, contents)
    store.pipe("/bucket/set.zip", buffer.getvalue())
    packed = Archive("memory://bucket/set.zip", image_size=8).read()
    assert packed.fingerprint == Folder("memory://bucket/set", image_size=8).read().fingerprint


def test_what_changes_there_is_prepared_again(store: fsspec.AbstractFileSystem):
    before = BucketFiles("memory://bucket/set")
    assert before.states == BucketFiles("memory://bucket/set/").states
    first = Folder("memory://bucket/set", image_size=8).read().fingerprint
    store.pipe("/bucket/set/train/cat/0.png", encoded(77))
    after = BucketFiles("memory://bucket/set")
    assert [a == b for a, b in zip(before.states, after.states, strict=True)].count(False) == 1
    assert Folder("memory://bucket/set", image_size=8).read().fingerprint != first


def test_one_that_cannot_be_read_is_named(store: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch):
    read = type(store).cat_file

    def cat_file(self: fsspec.AbstractFileSystem, path: str, *args: object, **kwargs: object) -> bytes:
        if path.endswith("dog/1.png"):
            raise OSError("the store is tired")
        return read(self, path, *args, **kwargs)

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    skipped = [
        pair for pair in Folder("memory://bucket/set", image_size=8).read().skipped if "cover" not in pair[0]
    ]
    assert [name for name, _ in skipped] == [
        f"memory://bucket/set/{part}/dog/1.png" for part in ("test", "train")
    ]
    assert skipped[0][1] == "the store is tired"


def test_names_that_are_patterns_and_files_that_are_too_large(
    store: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
):
    for number, name in enumerate(("a[1].png", "a1.png", "b*.png", "b?.png")):
        store.pipe(f"/bucket/patterns/{name}", encoded(number))
    store.pipe("/bucket/patterns/large.png", bytes(5000))
    monkeypatch.setattr(bounds, "MOST_BYTES", 4999)
    found = Folder("memory://bucket/patterns", image_size=None, validation_fraction=0).read()
    assert len(found.train) == len({image.tobytes() for image in found.train.images}) == 4
    assert list(found.skipped) == [
        ("memory://bucket/patterns/large.png", "it has 5,000 bytes; at most 4,999 are read")
    ]


@pytest.mark.parametrize(
    ("source", "url", "message"),
    [
        (Folder, "memory://bucket/nowhere", "there are no files; check the spelling"),
        (Folder, "memory://bucket/set/cover.png", "is a file; read a zip or tar file by data=archive"),
        (Folder, "nosuch://bucket/set", r"could not be listed \(Protocol not known: nosuch\)"),
        (Archive, "memory://bucket/nowhere.zip", "could not be opened"),
        (Archive, "memory://bucket/set/cover.png", "is no zip or tar file, or damaged"),
    ],
)
def test_mistakes(store: fsspec.AbstractFileSystem, source: type, url: str, message: str):
    with pytest.raises(ValueError, match=rf"data\.path={url}:? {message}"):
        source(url, image_size=8).read()
