"""Small copies of public sets, laid out as they are published: as folder, zip and tar they are the same."""

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from ddpm.data.files.archived import ArchiveFiles
from ddpm.data.files.on_disk import FolderFiles
from ddpm.data.holdout import num_training, scattered
from ddpm.data.images import ImageSet
from ddpm.data.sources.archive import Archive
from ddpm.data.sources.folder import Folder

Contents = Mapping[str, int | str]
"""By name the level of an image, or the text of a file."""


def encoded(level: int, name: str = "x.png") -> bytes:
    buffer = io.BytesIO()
    formats = {"jpg": "JPEG", "jpeg": "JPEG", "ppm": "PPM", "bmp": "BMP", "npy": "PNG"}
    image = Image.new("L", (8, 8), level)
    if name.endswith(".npy"):
        np.save(buffer, np.asarray(image))
    else:
        image.save(buffer, formats.get(name.rpartition(".")[2].lower(), "PNG"))
    return buffer.getvalue()


def written(contents: Contents) -> dict[str, bytes]:
    return {
        name: encoded(one, name) if isinstance(one, int) else one.encode() for name, one in contents.items()
    }


def as_folder(path: Path, contents: Contents) -> Path:
    for name, one in written(contents).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(one)
    return path


def as_zip(path: Path, contents: Contents) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, one in reversed(written(contents).items()):
            archive.writestr(name, one)
    return path


def as_tar(path: Path, contents: Contents) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, one in written(contents).items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(one)
            archive.addfile(member, io.BytesIO(one))
    return path


def levels(*folders: str, n: int = 3, end: str = "png", first: int = 0) -> dict[str, int]:
    """Images of different levels, n in each folder."""
    names = [f"{folder}/{i}.{end}".lstrip("/") for folder in folders for i in range(n)]
    return {name: first + 2 * index for index, name in enumerate(names)}


def shown(part: ImageSet, classes: list[str] | None) -> dict[int, str | None]:
    """Class by level."""
    of = [None] * len(part) if part.labels is None else [classes[label] for label in part.labels]
    return dict(zip(part.images[:, 0, 0, 0].tolist(), of, strict=True))


def table(header: str, rows: Mapping[str, str]) -> str:
    return "\n".join([header, *(f"{name},{label}" for name, label in rows.items())])


WNIDS = ["n01443537", "n01629819"]
IDS = [f"{i}" for i in range(6)]
DX = ["mel", "nv"]
FROGS = dict(zip(IDS, ["frog", "truck"] * 3, strict=True))

# name: contents; the classes of train by folder or image; of the part to validate on, or None for a share
PUBLIC: dict[str, tuple[Contents, list[str], list[str] | None]] = {
    # the data set in a folder of this project's makers: CIFAR-10 as pictures, train and test on top
    "CIFAR-10 as pictures": (
        levels(*(f"{part}/{name}" for part in ("train", "test") for name in ("airplane", "cat"))),
        ["airplane", "cat"], ["airplane", "cat"],
    ),
    "Intel scenes (Kaggle)": (
        {**levels("seg_train/seg_train/forest", "seg_train/seg_train/sea"),
         **levels("seg_test/seg_test/forest", "seg_test/seg_test/sea", first=50),
         **levels("seg_pred/seg_pred", first=100)},
        ["forest", "sea"], ["forest", "sea"],
    ),
    "Tiny ImageNet": (
        {**levels("tiny-imagenet-200/train/n01443537/images", "tiny-imagenet-200/train/n01629819/images"),
         **levels("tiny-imagenet-200/val/images", n=4, first=50),
         **levels("tiny-imagenet-200/test/images", first=100),
         "tiny-imagenet-200/val/val_annotations.txt": "".join(
             f"{i}.png\t{WNIDS[i % 2]}\t0\t0\t9\t9\n" for i in range(4)),
         "tiny-imagenet-200/wnids.txt": "\n".join(WNIDS)},
        WNIDS, WNIDS,
    ),
    "ASL alphabet (Kaggle)": (
        {**levels("asl_alphabet_train/asl_alphabet_train/A", "asl_alphabet_train/asl_alphabet_train/B"),
         **levels("asl_alphabet_test/asl_alphabet_test", first=50)},
        ["A", "B"], None,
    ),
    "CIFAR-10 (Kaggle)": (
        {**levels("train", n=6), **levels("test", n=4, first=50), "trainLabels.csv": table("id,label", FROGS),
         "sampleSubmission.csv": table("id,label", dict.fromkeys(IDS[:4], "cat"))},
        ["frog", "truck"], None,
    ),
    "HAM10000": (
        {**levels("HAM10000_images_part_1"), **{f"HAM10000_images_part_2/{i}.png": 50 + i for i in (3, 4, 5)},
         "HAM10000_metadata.csv": "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
         + "".join(f"HAM_{i // 2},{i},{DX[i % 2]},histo,{40 + i // 3},male,back\n" for i in range(6))},
        ["mel", "nv"], None,
    ),
    "ISIC 2018 (one column a class)": (
        {**levels("ISIC2018_Task3_Training_Input", n=4),
         "ISIC2018_Task3_Training_GroundTruth.csv": "image,MEL,NV\n0,1.0,0.0\n1,0.0,1.0\n2,1.0,0.0\n3,0,1"},
        ["MEL", "NV"], None,
    ),
    "Roboflow (COCO)": (
        {f"{part}/{name}": level for part, first in (("train", 0), ("valid", 50))
         for name, level in levels("", n=2, first=first).items()}
        | {f"{part}/_annotations.coco.json": json.dumps({
            "images": [{"id": i, "file_name": f"{i}.png"} for i in range(2)],
            "annotations": [{"image_id": i, "category_id": i + 1} for i in range(2)],
            "categories": [{"id": i, "name": one} for i, one in enumerate(("parking", "empty", "full"))]})
            for part in ("train", "valid")} | {"README.roboflow.txt": "words"},
        ["empty", "full"], ["empty", "full"],
    ),
    "dogImages.zip (Udacity)": (
        {**levels(*(f"dogImages/{part}/{name}" for part in ("train", "valid", "test")
                    for name in ("001.Affenpinscher", "010.Akita", "002.Afghan")))},
        ["001.Affenpinscher", "002.Afghan", "010.Akita"], ["001.Affenpinscher", "002.Afghan", "010.Akita"],
    ),
    "PetImages (Microsoft's cats and dogs)": (
        {**levels("PetImages/Cat", "PetImages/Dog"), "PetImages/Cat/Thumbs.db": "x",
         "PetImages/Dog/Thumbs.db": "x", "MSR-LA - 3467.docx": "x", "readme[1].txt": "x"},
        ["Cat", "Dog"], None,
    ),
    "EDM's zip": (
        {**{f"{i // 3:05}/img{i:08}.png": i for i in range(9)},
         "dataset.json": json.dumps({"labels": [[f"{i // 3:05}/img{i:08}.png", i % 2] for i in range(9)]})},
        ["0", "1"], None,
    ),
    "EDM's zip of arrays": (
        {**{f"{i // 3:05}/img{i:08}.npy": i for i in range(9)},
         "dataset.json": json.dumps({"labels": [[f"{i // 3:05}/img{i:08}.npy", i % 2] for i in range(9)]})},
        ["0", "1"], None,
    ),
    "GTSRB": (
        {**levels("GTSRB/Final_Training/Images/00000", "GTSRB/Final_Training/Images/00014", end="ppm"),
         "GTSRB/Final_Training/Images/00000/GT-00000.csv": "Filename;Width\n0.ppm;8\n"},
        ["00000", "00014"], None,
    ),
    "horse2zebra": (
        {**levels("horse2zebra/trainA", "horse2zebra/trainB"),
         **levels("horse2zebra/testA", "horse2zebra/testB", first=50)},
        ["A", "B"], ["A", "B"],
    ),
    "five folders and a stray": (
        {**levels(*"abcde"), "cover.png": 99}, list("abcde"), None,
    ),
    "numbers": (levels("0", "1", "2", "10", "11"), ["0", "1", "2", "10", "11"], None),
    "a Mac's zip": (
        {**levels("data/CAT", "data/DOG"), "__MACOSX/data/CAT/._0.png": "x", "data/.DS_Store": "x"},
        ["CAT", "DOG"], None,
    ),
}  # fmt: skip
OWN = {"five folders and a stray", "numbers", "a Mac's zip"}
"""Layouts that are of no public set."""


def test_the_page_names_them():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").partition("\n## Public sets\n")[2]
    named = re.findall(r"^\| ([^|]+) \|", page.partition("\n## ")[0], re.MULTILINE)
    assert set(named) - {"set", "---"} == set(PUBLIC) - OWN


@pytest.mark.parametrize("name", PUBLIC)
def test_public_layout(name: str, tmp_path: Path):
    contents, classes, validation = PUBLIC[name]
    found = [
        Folder(as_folder(tmp_path / "set", contents), image_size=8).read(),
        Archive(as_zip(tmp_path / "set.zip", contents), image_size=8).read(),
        Archive(as_tar(tmp_path / "set.tar.gz", contents), image_size=8).read(),
    ]
    for one in found:
        assert one.classes == classes
        assert set(shown(one.train, one.classes).values()) == set(classes)
        assert {reason for _, reason in one.skipped} <= {"it lies beside the folders of images"}
        held_out = set(shown(one.validation, one.classes).values())
        assert held_out == set(validation) if validation else held_out <= set(classes)
        assert one.fingerprint == found[0].fingerprint
        assert one.understood == found[0].understood
        np.testing.assert_array_equal(one.train.images, found[0].train.images)
        np.testing.assert_array_equal(one.train.labels, found[0].train.labels)


def test_what_is_told_is_two_lines(tmp_path: Path):
    contents, _, _ = PUBLIC["Intel scenes (Kaggle)"]
    assert Folder(as_folder(tmp_path, contents), image_size=8).read().understood == [
        "images: 6 to train on (the folder seg_train/; the folder seg_pred/ is not used), 6 held out "
        "(the folder seg_test/; there is no part for validation)",
        "classes: 2 (the folders): forest, sea",
    ]
    contents, _, _ = PUBLIC["CIFAR-10 (Kaggle)"]
    assert Folder(as_folder(tmp_path / "b", contents), image_size=8).read().understood == [
        "images: 5 to train on (the folder train/), 1 held out (a share: the folder test/ has no labels)",
        "classes: 2 (trainLabels.csv): frog, truck",
    ]


def test_labels_are_right_image_by_image(tmp_path: Path):
    contents, _, _ = PUBLIC["EDM's zip"]
    data = Archive(as_zip(tmp_path / "a.zip", contents), image_size=8, validation_fraction=0).read()
    assert shown(data.train, data.classes) == {i: str(i % 2) for i in range(9)}
    contents, _, _ = PUBLIC["Tiny ImageNet"]
    data = Archive(as_zip(tmp_path / "b.zip", contents), image_size=8).read()
    assert shown(data.validation, data.classes) == {50 + 2 * i: WNIDS[i % 2] for i in range(4)}
    contents, _, _ = PUBLIC["HAM10000"]
    data = Archive(as_zip(tmp_path / "c.zip", contents), image_size=8, validation_fraction=0).read()
    assert shown(data.train, data.classes) == {0: "mel", 2: "nv", 4: "mel", 53: "nv", 54: "mel", 55: "nv"}


PLAIN = {
    "classes": levels("b", "a", "10", "9", n=5),
    "no classes": levels("", n=20),
    "with what is no image": {**levels("a", "b", n=5), "README": "x", "a/notes.txt": "x", "c/list.csv": "x"},
    "with a stray": {**levels("a", "b", n=10), "cover.png": 99},
    "with damage": {**levels("a", "b", n=10), "a/broken.png": "words", "b/empty.jpg": ""},
}


@pytest.mark.parametrize("case", PLAIN)
def test_the_same_images_are_held_out_as_ever(case: str, tmp_path: Path):
    """So that runs of before go on: the order is that of all names, a share of it is cut off its end."""
    contents = PLAIN[case]
    names = sorted(contents)
    order = np.argsort(scattered(len(names)))
    kept = [
        contents[names[i]] for i in order if isinstance(contents[names[i]], int) and names[i] != "cover.png"
    ]
    cut = num_training(len(kept), 0.3)
    for source, path in (
        (Folder, as_folder(tmp_path / "set", contents)),
        (Archive, as_zip(tmp_path / "set.zip", contents)),
        (Archive, as_tar(tmp_path / "set.tar.gz", contents)),
    ):
        data = source(path, image_size=8, validation_fraction=0.3).read()
        assert data.train.images[:, 0, 0, 0].tolist() == kept[:cut]
        assert data.validation.images[:, 0, 0, 0].tolist() == kept[cut:]


def test_parts_keep_the_order_of_their_names(tmp_path: Path):
    contents = levels("train/b", "train/a", "test/a", "test/b")
    data = Folder(as_folder(tmp_path, contents), image_size=8).read()
    assert data.train.images[:, 0, 0, 0].tolist() == [
        contents[name] for name in sorted(contents) if "train" in name
    ]
    assert data.validation.images[:, 0, 0, 0].tolist() == [
        contents[name] for name in sorted(contents) if "test" in name
    ]
    both = Folder(tmp_path, image_size=8, split="train+test", validation_fraction=0).read()
    assert sorted(both.train.images[:, 0, 0, 0].tolist()) == sorted(contents.values())
    swapped = Folder(tmp_path, image_size=8, split="test", validation_split="train").read()
    assert (len(swapped.train), len(swapped.validation)) == (6, 6)
    assert swapped.train.images[:, 0, 0, 0].tolist() == data.validation.images[:, 0, 0, 0].tolist()


def test_images_of_parts_that_are_not_used_are_not_read(tmp_path: Path):
    contents = {**levels("train/a", "train/b"), "test/a/x.png": "damaged", "test/b/x.png": "damaged"}
    data = Folder(as_folder(tmp_path, contents), image_size=8, validation_split="none").read()
    assert not data.skipped
    with pytest.raises(ValueError, match=r"data\.on_error=fail"):
        Folder(tmp_path, image_size=8, on_error="fail").read()


def test_strays_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    Folder(as_folder(tmp_path, PUBLIC["five folders and a stray"][0]), image_size=8).read()
    assert f"left out {tmp_path}/cover.png: it lies beside the folders of images" in caplog.text


def test_states(tmp_path: Path):
    contents = levels("a", "b")
    folder = as_folder(tmp_path / "set", contents)
    before = FolderFiles(folder)
    (folder / "a" / "0.png").write_bytes(encoded(200))
    after = dict(zip(FolderFiles(folder).names, FolderFiles(folder).states, strict=True))
    changed = [name for name, state in zip(before.names, before.states, strict=True) if after[name] != state]
    assert changed == ["a/0.png"]
    with ExitStack() as stack:
        packed = stack.enter_context(as_zip(tmp_path / "a.zip", contents).open("rb"))
        zipped = ArchiveFiles("a.zip", packed, stack)
        again = stack.enter_context(as_zip(tmp_path / "b.zip", {**contents, "a/0.png": 200}).open("rb"))
        other = ArchiveFiles("b.zip", again, stack)
        pairs = zip(zipped.names, zipped.states, other.states, strict=True)
        assert [name for name, one, two in pairs if one != two] == ["a/0.png"]
        tarred = stack.enter_context(as_tar(tmp_path / "a.tar.gz", contents).open("rb"))
        assert ArchiveFiles("a.tar.gz", tarred, stack).states is None


def test_captions_are_kept_beside_the_images(tmp_path: Path):
    contents = {**levels("", n=4), **{f"{i}.txt": f"number {i}\n" for i in range(3)}}
    data = Archive(as_zip(tmp_path / "a.zip", contents), image_size=8, validation_fraction=0.3).read()
    of = dict(zip(np.concatenate([p.images for p in (data.train, data.validation)])[:, 0, 0, 0].tolist(),
                  data.captions, strict=True))  # fmt: skip
    assert of == {0: "number 0", 2: "number 1", 4: "number 2", 6: None}
    assert "captions: kept beside the images; nothing uses them yet" in data.understood


def test_mistakes(tmp_path: Path):
    path = as_folder(tmp_path, levels("train/a", "train/b", "test/a", "test/c"))
    (path / "val").mkdir()
    for settings, message in (
        (
            {},
            r"data\.path=.*: the folder test/ holds classes that the folder train/ lacks: c; hold out",
        ),
        ({"split": "val"}, r"data\.path=.*: its part validation holds no images"),
        ({"validation_split": "val"}, r"data\.validation_split=val: it holds no images"),
        ({"split": "nowhere"}, r"data\.split=nowhere: there is no such part; there are .*test"),
        ({"labels": "nowhere.csv"}, r"data\.labels=nowhere\.csv: there is no such file"),
        ({"class_depth": 0}, r"data\.class_depth=0 must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Folder(path, image_size=8, **settings).read()
    assert Folder(path, image_size=8, labels="none").read().classes is None
    assert Folder(path, image_size=8, validation_split="none").read().classes == ["a", "b"]


def test_class_depth(tmp_path: Path):
    path = as_folder(tmp_path, levels("animals/cat", "animals/dog", "cars/bus"))
    assert Folder(path, image_size=8).read().classes == ["animals/cat", "animals/dog", "cars/bus"]
    assert Folder(path, image_size=8, class_depth=1).read().classes == ["animals", "cars"]
    mvtec = levels(
        "bottle/train/good", "cable/train/good", "bottle/test/good", "bottle/test/broken", "cable/test/good"
    )
    path = as_folder(tmp_path / "b", mvtec)
    with pytest.raises(
        ValueError, match=r"folder \*/test/ holds classes .*: bottle/broken; .*data\.class_depth=1"
    ):
        Folder(path, image_size=8).read()
    data = Folder(path, image_size=8, class_depth=1).read()
    assert data.classes == ["bottle", "cable"]
    assert (len(data.train), len(data.validation)) == (6, 9)


def test_a_share_of_a_part_depends_on_that_part_alone(tmp_path: Path):
    contents = levels("train/b", "train/a", "test/a", "test/b")
    data = Folder(
        as_folder(tmp_path, contents), image_size=8, validation_split="none", validation_fraction=0.5
    )
    names = sorted(name for name in contents if "train" in name)
    expected = [contents[names[i]] for i in np.argsort(scattered(len(names)))]
    assert [*data.read().train.images[:, 0, 0, 0], *data.read().validation.images[:, 0, 0, 0]] == expected
