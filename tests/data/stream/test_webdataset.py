"""Samples of tar shards: which files are one, where their labels stand, and what no shard may be."""

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from written_shards import numbered, numbers, png, read, trained_on, write_tar

from ddpm.data import bounds
from ddpm.data.stream import webdataset

WORDS = {
    "words": [b"b10", b"b9\n", b"a"],
    "numbers": [b"10", b"9", b"-1"],
    "both": [b"10", b"9", b"a"],
}


@pytest.mark.parametrize("kind", WORDS)
def test_classes_are_in_natural_order(kind: str, tmp_path: Path):
    write_tar(tmp_path / "a.tar", numbered([1, 2, 3], cls=WORDS[kind]))
    found = read(tmp_path)
    said = [word.decode().strip() for word in WORDS[kind]]
    ordered = {"words": ["a", "b9", "b10"], "numbers": ["-1", "9", "10"], "both": ["9", "10", "a"]}[kind]
    assert found.classes == ordered
    assert trained_on(found) == list(zip([1, 2, 3], said, strict=True))
    assert found.understood[1] == f"classes: {len(said)} (.cls files): {', '.join(ordered)}"


@pytest.mark.parametrize("encoding", ["gbk", "utf-8"])
def test_chinese_labels_are_read_in_the_encoding_of_all(encoding: str, tmp_path: Path):
    names = ["狗", "模", "猫"]  # the second alone is UTF-8 of another letter
    write_tar(tmp_path / "a.tar", numbered([1, 2, 3], cls=[f"{name}\n".encode(encoding) for name in names]))
    found = read(tmp_path)
    assert trained_on(found) == list(zip([1, 2, 3], names, strict=True))
    assert ("GB18030" in " ".join(found.understood)) == (encoding == "gbk")


def test_labels_that_are_utf_8_stay_so_among_others_that_are_not(tmp_path: Path):
    words = ["狗".encode("gbk"), "猫".encode("gbk"), "汽车".encode()]
    write_tar(tmp_path / "a.tar", numbered([1, 2, 3], cls=words))
    assert trained_on(read(tmp_path)) == [(1, "狗"), (2, "猫"), (3, "汽车")]
    write_tar(tmp_path / "b.tar", numbered([4, 5], cls=["汽车".encode("gbk"), "狗".encode("gbk")]))
    with pytest.raises(ValueError, match="the label 汽车 in one encoding and some in another"):
        read(tmp_path)


def test_chinese_words_beside_images_are_read(tmp_path: Path):
    said = [json.dumps({"label": name}, ensure_ascii=False).encode("gbk") for name in ("猫", "狗")]
    write_tar(tmp_path / "json" / "a.tar", numbered([1, 2], json=said))
    assert trained_on(read(tmp_path / "json")) == [(1, "猫"), (2, "狗")]
    write_tar(tmp_path / "named" / "a.tar", numbered([1, 2], cls=[b"1", b"0"]))
    (tmp_path / "named" / "classnames.txt").write_bytes("猫\n狗\n".encode("gbk"))
    assert trained_on(read(tmp_path / "named")) == [(1, "狗"), (2, "猫")]


def test_a_label_in_two_encodings_is_refused(tmp_path: Path):
    words = ["über".encode("latin-1"), "über".encode()]
    write_tar(tmp_path / "a.tar", numbered([1, 2], cls=words))
    with pytest.raises(ValueError, match="the label über in one encoding and some in another"):
        read(tmp_path)


JSON: dict[str, tuple[list[Any], list[str | None] | None, str]] = {
    "words": ([{"label": "b"}, {"label": "a"}], ["b", "a"],
              "classes: 2 (the key label of .json files): a, b"),
    "one-hot": ([{"label": [0, 1]}, {"label": [1, 0]}], ["1", "0"],
                "classes: 2 (the key label of .json files): 0, 1"),
    "another key": ([{"category": 3}, {"category": 3.0}], ["3", "3"],
                    "classes: 1 (the key category of .json files): 3"),
    "no label": ([{"caption": "a"}, {"width": 3}], None, "classes: none (no image has a label)"),
    "several": ([{"label": [3, 4]}, {"label": [5]}], None,
                "classes: none (the labels are none of classes: it holds several values an image)"),
    "no object": ([[1], "a"], None, "classes: none (no image has a label)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", JSON)
def test_labels_in_json(kind: str, tmp_path: Path):
    said, labels, understood = JSON[kind]
    write_tar(tmp_path / "a.tar", numbered([1, 2], json=[json.dumps(one).encode() for one in said]))
    found = read(tmp_path)
    assert [label for _, label in trained_on(found)] == (labels or [None, None])
    assert found.understood[1] == understood


def test_where_labels_stand_can_be_said(tmp_path: Path):
    members = numbered(
        [1, 2],
        cls=[b"0", b"1"],
        txt=[b"a cat", b"a dog"],
        json=[b'{"label": 5, "kind": "x"}', b'{"label": 5, "kind": "y"}'],
    )
    write_tar(tmp_path / "a.tar", members)
    for label_column, labels in (
        (None, ["0", "1"]),
        ("cls", ["0", "1"]),
        ("label", ["5", "5"]),
        ("kind", ["x", "y"]),
        ("txt", ["a cat", "a dog"]),
        ("none", [None, None]),
    ):
        found = read(tmp_path, label_column=label_column)
        assert [label for _, label in trained_on(found)] == labels
        assert found.understood[2] == "captions: .txt files; nothing uses them yet"
    with pytest.raises(
        ValueError, match=r"data\.label_column=colour: no image of the shards has such a label"
    ):
        read(tmp_path, label_column="colour")


def test_labels_that_are_missing_are_counted(tmp_path: Path):
    members = numbered([1, 2, 3], cls=[b"0", b" ", b"1"])
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(
        ValueError, match=r"data\.label_column=cls: some samples .* have none \(1 of 3\); .*label_column=none"
    ):
        read(tmp_path)
    assert len(read(tmp_path, label_column="none").train) == 3


def test_labels_that_are_none_of_classes_are_refused_where_they_are_asked_for(tmp_path: Path):
    write_tar(tmp_path / "a.tar", numbered([1], json=[b'{"label": 0.5}']))
    with pytest.raises(
        ValueError, match=r"data\.label_column=label must say one class .*\(0001 of .*a\.tar: 0\.5 is neither"
    ):
        read(tmp_path, label_column="label")


def test_shards_to_validate_on_that_hold_other_classes(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", numbered([1, 2], cls=[b"cat", b"dog"]))
    write_tar(tmp_path / "val-0.tar", numbered([3], cls=[b"owl"]))
    with pytest.raises(
        ValueError, match=r"data\.validation_split: no image to train on is of the classes owl"
    ):
        read(tmp_path)
    assert read(tmp_path, validation_split="none").classes == ["cat", "dog"]


@pytest.mark.parametrize("below", ["", "/train", "/*/*.tar"])
def test_classnames_txt_names_the_classes(below: str, tmp_path: Path):
    """The data sets of CLIP_benchmark lie so: train/0.tar, test/0.tar, and this file beside the two."""
    write_tar(tmp_path / "set" / "train" / "0.tar", numbered([1, 2], cls=[b"2", b"0"]))
    (tmp_path / "set" / "train" / "nshards.txt").write_text("1")
    names = tmp_path / "set" / "classnames.txt"
    names.write_text("great tit\nold owl\n猫\n", encoding="utf-8")
    found = read(tmp_path / f"set{below}")
    assert found.classes == ["great tit", "old owl", "猫"]
    assert trained_on(found) == [(1, "猫"), (2, "great tit")]
    assert found.understood[1].startswith("classes: 3 (.cls files, named by classnames.txt): great tit")
    names.write_text("great tit\nold owl\n")
    with pytest.raises(ValueError, match=r"classnames\.txt names 2 classes, and the shards hold the label 2"):
        read(tmp_path / f"set{below}")


def test_words_need_no_names(tmp_path: Path):
    write_tar(tmp_path / "a.tar", numbered([1], cls=[b"owl"]))
    (tmp_path / "classnames.txt").write_text("cat")
    assert read(tmp_path).classes == ["owl"]


SAMPLES = {
    "folders": {"a/b.c/1.png": 1, "a/b.c/1.cls": b"x", "./d/1.png": 2, "./d/1.cls": b"y"},
    "input and output": {"s1.input.png": 1, "s1.output.cls": b"x", "s2.input.png": 2, "s2.output.cls": b"y"},
    "large letters": {"1.PNG": 1, "1.CLS": b"x", "2.Png": 2, "2.Cls": b"y"},
    "files of a Mac": {"._1.png": b"\0", "1.png": 1, "1.cls": b"x", "__MACOSX/1.png": b"\0", "2.png": 2,
                       "2.cls": b"y"},
    "files beside": {"README": b"words", ".hidden.png": b"words", "1.png": 1, "1.cls": b"x", "2.png": 2,
                     "2.cls": b"y"},
    "several images": {"1.mask.png": b"words", "1.image.png": 1, "1.cls": b"x", "2.seg.png": b"words",
                       "2.png": 2, "2.cls": b"y"},
}  # fmt: skip


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_what_is_one_sample(kind: str, mode: str, tmp_path: Path):
    members = {name: png(held) if isinstance(held, int) else held for name, held in SAMPLES[kind].items()}
    suffix = "tar" if mode == "w" else "tgz"
    write_tar(tmp_path / f"a.{suffix}", members, mode)
    found = read(tmp_path)
    assert trained_on(found) == [(1, "x"), (2, "y")]
    told = "samples of several images: that whose suffix comes first in the alphabet is taken"
    assert (told in found.understood) == (kind == "several images")


@pytest.mark.parametrize("order", ["images first", "one comes late"])
def test_files_of_a_sample_that_lie_apart_are_named(order: str, tmp_path: Path):
    """As tar packs a folder without --sort=name (webdataset's issues 140 and 258)."""
    members = numbered([1, 2], cls=[b"0", b"1"])
    names = sorted(members, key=lambda name: (name.endswith("cls"), name))
    if order == "one comes late":
        names = ["0002.png", "0001.png", "0001.cls", "0002.cls"]
    write_tar(tmp_path / "a.tar", {name: members[name] for name in names})
    with pytest.raises(
        ValueError, match=r"a\.tar: the files of the sample 000\d do not lie together; .*--sort=name"
    ):
        read(tmp_path)


def test_a_member_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tar(tmp_path / "a.tar", {"1.png": png(1), "2.png": bytes(5000), "3.png": png(3)})
    monkeypatch.setattr(bounds, "MOST_BYTES", 4000)
    found = read(tmp_path)
    samples = list(found.train.shards.read(0, 0))
    assert samples[1].image == "it unpacks to 5,000 bytes; at most 4,000 are read"
    assert [isinstance(sample.image, bytes) for sample in samples] == [True, False, True]


@pytest.mark.parametrize("kind", ["large file", "large header", "many files"])
def test_a_gzip_bomb_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bounds, "MOST_BYTES", 1 << 16)
    zeros = bytes(3 << 20)
    if kind == "large header":
        member = tarfile.TarInfo("1.png")
        member.pax_headers = {"comment": "0" * len(zeros)}
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            archive.addfile(member)
    else:
        pieces = 1 if kind == "large file" else 64
        each = zeros[: len(zeros) // pieces]
        write_tar(tmp_path / "a.tar.gz", {f"{n:02}.png": each for n in range(pieces)}, "w:gz")
    with pytest.raises(ValueError, match=r"data\.path: .*a\.tar\.gz.* unpacks to") as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_what_is_compressed_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tar(tmp_path / "a.tgz", {f"{n:03}.{suffix}": png(n) if suffix == "png" else b"1" + bytes(20_000)
                                   for n in range(40) for suffix in ("cls", "png")}, "w:gz")  # fmt: skip
    rewound = []
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda self: rewound.append(self))
    with (tmp_path / "a.tgz").open("rb") as file:
        assert webdataset.count("a.tgz", file, None).rows == 40
        file.seek(0)
        assert len(list(webdataset.rows("a.tgz", file, 3, None))) == 37
    assert rewound == []


def test_what_is_no_shard(tmp_path: Path):
    write_tar(tmp_path / "whole.tgz", numbered(range(40)), "w:gz")
    whole = (tmp_path / "whole.tgz").read_bytes()
    (tmp_path / "whole.tgz").unlink()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for name, contents, message in (
        ("a.tar", b"PK words", r"a\.tar is damaged"),
        ("a.tgz", whole[: len(whole) // 2], r"a\.tgz (is damaged|breaks off)"),
        ("a.tgz", b"", r"a\.tgz is damaged"),
        ("a.tar", pointer, r"a\.tar is a pointer of Git LFS"),
        ("a.tar", bytes(10240), r"the 1 shard there hold no rows"),
    ):
        file = tmp_path / name
        file.write_bytes(contents)
        with pytest.raises(ValueError, match=message) as refusal:
            read(tmp_path)
        assert str(refusal.value).startswith("data.path")
        assert "\n" not in str(refusal.value)
        file.unlink()


def test_an_empty_shard_among_others(tmp_path: Path):
    write_tar(tmp_path / "a.tar", {})
    write_tar(tmp_path / "b.tar", numbered([1, 2]))
    assert numbers(read(tmp_path, validation_size=1)) == ([2], [1])


def test_a_tar_file_that_is_compressed_though_not_called_so(tmp_path: Path):
    write_tar(tmp_path / "a.tar", numbered([1, 2], cls=[b"0", b"1"]), "w:gz")
    assert trained_on(read(tmp_path)) == [(1, "0"), (2, "1")]
