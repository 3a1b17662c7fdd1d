"""Zip and tar: the same images as in the folder that was packed, and nothing else."""

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm.data.pixels.decoding import Decoded, decode_or_reason
from ddpm.data.pixels.shaping import Shaping
from ddpm.data.sources.archive import Archive
from ddpm.data.sources.folder import Folder


def encoded(level: int, file_format: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, 1, 2)).save(buffer, file_format)
    return buffer.getvalue()


FILES = {
    "cat/2.png": encoded(1),
    "cat/10.jpg": encoded(2, "JPEG"),
    "cat/deep/down/b.png": encoded(3),
    "dog/a.png": encoded(4),
    "dog/A.png": encoded(5),
    "owl-x/a.png": encoded(6),
    ".hidden/a.png": encoded(7),
    "README": b"words",
}


def pack(path: Path, files: dict[str, bytes] = FILES) -> Path:
    """By the file's name a zip, a tar, or a compressed tar."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, contents in files.items():
                archive.writestr(name, contents)
        return path
    with tarfile.open(path, "w:" + ("" if path.suffix == ".tar" else path.suffix[1:])) as archive:
        for name, contents in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return path


KINDS = ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"]


def levels(data: Archive) -> set[int]:
    return {
        int(level)
        for part in (data.read().train, data.read().validation)
        for level in part.images[:, 0, 0, 0]
    }


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_holds_what_the_folder_does(tmp_path: Path, kind: str):
    for name, contents in FILES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(contents)
    backwards = dict(reversed(FILES.items()))
    packed = Archive(pack(tmp_path / kind, backwards), image_size=8, validation_fraction=0.3)
    folder = Folder(tmp_path / "folder", image_size=8, validation_fraction=0.3)
    assert packed.read().classes == folder.read().classes == ["cat", "dog", "owl-x"]
    np.testing.assert_array_equal(packed.read().train.images, folder.read().train.images)
    np.testing.assert_array_equal(packed.read().train.labels, folder.read().train.labels)
    assert packed.read().fingerprint == folder.read().fingerprint
    assert not packed.read().skipped


@pytest.mark.parametrize("kind", KINDS[:2])
def test_names_that_lead_out_are_not_followed(tmp_path: Path, kind: str):
    """Nothing is written, and their images are refused by name."""
    (tmp_path / "in").mkdir()
    bad = ["../up.png", "cat/../../up.png", "/root.png"]
    path = pack(tmp_path / "in" / kind, {"cat/a.png": encoded(1), **{name: encoded(9) for name in bad}})
    before = sorted(tmp_path.rglob("*"))
    data = Archive(path, image_size=8)
    assert levels(data) == {1}
    assert [reason for _, reason in data.read().skipped] == ["its name leads out of the archive"] * 3
    assert "../up.png" in next(iter(data.read().skipped))[0]
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match=r"data\.on_error=fail: .*\.\./up\.png cannot be read .*leads out"):
        Archive(path, image_size=8, on_error="fail").read()


def test_links_and_devices_are_not_followed(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        (tmp_path / "x.png").write_bytes(encoded(1))
        archive.add(tmp_path / "x.png", "a.png")
        for kind, name in ((tarfile.SYMTYPE, "link.png"), (tarfile.CHRTYPE, "device.png")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "x.png")
            archive.addfile(member)
    data = Archive(tmp_path / "a.tar", image_size=8)
    assert len(data.read().train) == 1
    assert [reason for _, reason in data.read().skipped] == ["a link or a device, not a file"] * 2


def test_members_that_cannot_be_read_are_named(tmp_path: Path):
    files = {"a/1.png": encoded(1), "a/2.png": b"", "a/3.png": b"words", "a/4.png": encoded(2)[:45]}
    path = pack(tmp_path / "a.zip", files)
    data = Archive(path, image_size=8)
    assert levels(data) == {1}
    assert [name for name, _ in data.read().skipped] == [f"{path}/a/{i}.png" for i in (2, 3, 4)]
    contents = bytearray(path.read_bytes())
    start = len("PK..") + 26 + len("a/1.png")
    contents[start : start + 10] = bytes(10)
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"data\.path=.*a\.zip: none of the 4 files in it can be read"):
        Archive(path, image_size=8, cache_dir=tmp_path / "another").read()


def test_a_member_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ddpm.data.bounds.MOST_BYTES", 10_000)
    path = pack(tmp_path / "a.zip", {"a.png": encoded(1), "b.png": bytes(10_001)})
    assert list(Archive(path, image_size=8).read().skipped) == [
        (f"{path}/b.png", "it unpacks to 10,001 bytes; at most 10,000 are read")
    ]


def test_locked_members_are_named(tmp_path: Path):
    path = pack(tmp_path / "a.zip", {"a.png": encoded(1), "b.png": encoded(2)})
    contents = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        contents[contents.rindex(mark) + offset] |= 1  # as an encrypting program would mark it
    path.write_bytes(contents)
    [(name, reason)] = Archive(path, image_size=8).read().skipped
    assert name.endswith("b.png")
    assert "encrypted" in reason


@pytest.mark.parametrize("kind", KINDS)
def test_archives_that_break_off_are_refused(tmp_path: Path, kind: str):
    path = pack(tmp_path / kind, {f"{i}.png": encoded(i) for i in range(40)})
    whole = path.read_bytes()
    lengths = [0, 10, len(whole) // 3, len(whole) // 2, len(whole) * 2 // 3]
    if kind == "a.tar":
        with tarfile.open(path) as archive:
            lengths.append(archive.getmembers()[3].offset)  # where it looks whole
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"data\.path=.*{kind} is no zip or tar file, or damaged"):
            Archive(path, image_size=8).read()


def test_a_tar_with_damage_in_its_middle_is_refused(tmp_path: Path):
    path = pack(tmp_path / "a.tar")
    with tarfile.open(path) as archive:
        start = archive.getmembers()[3].offset
    contents = bytearray(path.read_bytes())
    contents[start : start + 100] = b"x" * 100
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"breaks off after 3 members"):
        Archive(path, image_size=8).read()


def test_nothing_in_it(tmp_path: Path):
    for kind in KINDS[:3]:
        with pytest.raises(ValueError, match=r"data\.path=.*: it holds no files"):
            Archive(pack(tmp_path / kind, {}), image_size=8).read()


WHOLE = {kind: None for kind in ("a.zip", "a.tar", "a.tar.gz")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    cut=st.none() | st.integers(0, 4000),
    changes=st.lists(st.tuples(st.integers(0, 12_000), st.binary(min_size=1, max_size=12)), max_size=5),
)
def test_any_archive_gives_images_or_one_of_the_stated_errors(
    tmp_path: Path, kind: str, cut: int | None, changes: list[tuple[int, bytes]]
):
    if WHOLE[kind] is None:
        small = {name: contents for name, contents in FILES.items() if name.startswith("cat")}
        WHOLE[kind] = pack(tmp_path / kind, small).read_bytes()
    contents = bytearray(WHOLE[kind])
    for place, change in changes:
        place %= len(contents)
        contents[place : place + len(change)] = change
    path = tmp_path / kind
    path.write_bytes(contents[:cut])
    data = Archive(path, image_size=8, cache_dir=tempfile.mkdtemp(dir=tmp_path))
    message = ""
    try:
        shape = data.read().train.image_shape
    except ValueError as error:
        message = str(error)
    if message:
        assert message.startswith("data.path=")
        assert "\n" not in message
    else:
        assert shape[1:] == (8, 8)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=200, deadline=None)
@given(
    file_format=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"]),
    cut=st.none() | st.integers(0, 1000),
    changes=st.lists(st.tuples(st.integers(0, 1000), st.binary(min_size=1, max_size=8)), max_size=6),
)
def test_any_bytes_give_an_image_or_a_reason(
    file_format: str, cut: int | None, changes: list[tuple[int, bytes]]
):
    contents = bytearray(encoded(9, file_format, (16, 16)))
    for place, change in changes:
        place %= len(contents)
        contents[place : place + len(change)] = change
    found = decode_or_reason(bytes(contents[:cut]), Shaping((8, 8), 3))
    if isinstance(found, Decoded):
        assert found.pixels.shape == (3, 8, 8)
    else:
        assert found
        assert "\n" not in found


def test_what_unpacks_to_far_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ddpm.data.bounds.MOST_BYTES", 1_000_000)
    files = {f"{i}.bmp": bytes(900_000) for i in range(40)}
    for kind in ("a.zip", "a.tar.gz", "a.tar.xz"):
        path = pack(tmp_path / kind, files)
        with pytest.raises(ValueError, match=rf"data\.path=.*{kind} unpacks to more than 200 times its size"):
            Archive(path, image_size=8).read()
    assert len(Archive(pack(tmp_path / "b.tar", files | FILES), image_size=8).read().train)


def test_an_encrypted_archive_is_said_to_be(tmp_path: Path):
    path = pack(tmp_path / "a.zip", {"a.png": encoded(1), "b.png": encoded(2)})
    contents = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := contents.find(mark, at + 1)) >= 0:
            contents[at + offset] |= 1
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"data\.path=.*a\.zip is encrypted; unpack it with its password"):
        Archive(path, image_size=8).read()


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.7z", b"7z\xbc\xaf\x27\x1c\x00\x04rest", r"is a 7z file.*`7z x .*data=folder"),
        ("a.rar", b"Rar!\x1a\x07\x01\x00rest", r"is a rar file.*`7z x .*data=folder"),
        ("a.zip.001", b"PK\x03\x04rest", r"is one of several files that an archive was cut into; unpack"),
        ("train.z01", b"PK\x03\x04rest", r"is one of several files"),
        ("a.part1.rar", b"Rar!\x1a\x07\x01\x00rest", r"is one of several files"),
        ("a.zip", b"words", r"is no zip or tar file, or damaged"),
    ],
)
def test_other_kinds_of_archives(tmp_path: Path, name: str, contents: bytes, message: str):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(ValueError, match=rf"data\.path=.*{name} {message}") as refused:
        Archive(tmp_path / name, image_size=8).read()
    assert "\n" not in str(refused.value)


def test_an_archive_in_an_archive_and_one_of_arrays(tmp_path: Path):
    inner = pack(tmp_path / "inner.zip").read_bytes()
    with pytest.raises(ValueError, match=r"data\.path=.*is a tar file of zip files; unpack it, and name one"):
        Archive(pack(tmp_path / "outer.tar", {"inner.zip": inner}), image_size=8).read()
    batches = {f"cifar-10-batches-py/{name}": b"x" for name in ("data_batch_1", "test_batch", "batches.meta")}
    with pytest.raises(ValueError, match=r"data\.path=.* CIFAR's batches; read it by data=arrays"):
        Archive(pack(tmp_path / "cifar.tar.gz", batches), image_size=8).read()


def test_names_written_by_old_windows_programs(tmp_path: Path):
    path = pack(
        tmp_path / "a.zip", {f"{name}\\{i}.png": encoded(i) for name in ("cat", "dog") for i in range(2)}
    )
    contents = path.read_bytes()
    assert b"cat\\0.png" in contents
    assert Archive(path, image_size=8).read().classes == ["cat", "dog"]


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_name_the_last_counts_as_after_unpacking(tmp_path: Path, kind: str):
    path = pack(tmp_path / kind, {"a.png": encoded(10), "b.png": encoded(20)})
    newer = encoded(30)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a.png", newer)
    else:
        with tarfile.open(path, "a") as tar:
            member = tarfile.TarInfo("./a.png")
            member.size = len(newer)
            tar.addfile(member, io.BytesIO(newer))
    assert levels(Archive(path, image_size=8)) == {20, 30}


class _Unmarked(zipfile.ZipInfo):
    """A member whose name is written as it is in some encoding, without saying which."""

    encoding = "gb18030"

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's own
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


def unmarked(path: Path, names: list[str], encoding: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for level, name in enumerate(names):
            info = _Unmarked(name)
            info.encoding = encoding
            archive.writestr(info, encoded(level))
    return path


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [
        ("gb18030", ["狗", "猫", "誠"]),
        ("utf-8", ["狗", "猫"]),
        ("cp437", ["crème", "Füße", "über"]),
    ],
)
def test_classes_of_a_zip_that_does_not_say_the_encoding_of_its_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str, classes: list[str]
):
    path = unmarked(tmp_path / "a.zip", [f"{name}/{i}.png" for name in classes for i in range(2)], encoding)
    data = Archive(path, image_size=8, validation_fraction=0.25).read()
    assert sorted(data.classes) == sorted(classes)
    assert not data.skipped
    said = [record.getMessage() for record in caplog.records if "GB18030" in record.getMessage()]
    assert len(said) == (encoding == "gb18030")


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_classes_of_a_tar_in_the_encoding_of_all_its_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str, kind: int
):
    classes = ["狗", "模", "猫"]  # the second alone is UTF-8 of another letter
    with tarfile.open(tmp_path / "a.tar", "w", format=kind, encoding=encoding) as tar:
        for level, name in enumerate(f"{name}/{i}.png" for name in classes for i in range(2)):
            member, contents = tarfile.TarInfo(name), encoded(level)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
    data = Archive(tmp_path / "a.tar", image_size=8, validation_fraction=0.25).read()
    assert sorted(data.classes) == sorted(classes)
    assert not data.skipped
    is_unsaid = encoding == "gb18030" and kind == tarfile.GNU_FORMAT
    assert any("GB18030" in record.getMessage() for record in caplog.records) == is_unsaid


def test_names_in_a_tar_that_are_utf_8_stay_so_among_others_that_are_not(tmp_path: Path):
    names = {"狗": "gb18030", "模": "gb18030", "猫": "gb18030", "汽车": "utf-8"}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
        for level, (name, encoding) in enumerate(names.items()):
            written = name.encode(encoding).decode("utf-8", "surrogateescape")
            member, contents = tarfile.TarInfo(f"{written}/1.png"), encoded(level)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
    data = Archive(tmp_path / "a.tar", image_size=8, validation_fraction=0.25).read()
    assert sorted(data.classes) == sorted(names)
