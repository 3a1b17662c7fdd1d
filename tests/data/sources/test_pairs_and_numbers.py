"""What sources read beside each image: another image, or numbers."""

import logging
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.data.conditions.paired import Paired
from ddpm.data.conditions.reading import reading
from ddpm.data.conditions.vector import Vector
from ddpm.data.images import DataSet
from ddpm.data.pixels import decoding
from ddpm.data.sources.archive import Archive
from ddpm.data.sources.arrays import Arrays
from ddpm.data.sources.digits import Digits
from ddpm.data.sources.folder import Folder


def save(path: Path, level: int | tuple[int, int, int], size: tuple[int, int] = (4, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(level, int) else "RGB", size, level).save(path)
    return path


def pairs(folder: Path, n: int = 6) -> Folder:
    """x_0 number i is i, and its condition (100 + i, 0, 200), in the classes a and b."""
    for i in range(n):
        name = f"{'ab'[i % 2]}/{i}.png"
        save(folder / "A" / name, i)
        save(folder / "B" / name, (100 + i, 0, 200))
    return Folder(folder / "A", image_size=4, validation_fraction=0, condition=Paired(folder / "B"))


def first(data_set: DataSet) -> list[list[int]]:
    """The first value of every channel of every image to train on, in order."""
    return sorted(data_set.train.images[:, :, 0, 0].tolist())


def expected(*numbers: int) -> list[list[int]]:
    return [[i, 100 + i, 0, 200] for i in numbers]


def test_pairs_of_two_folders_are_one_set_with_the_classes_of_the_first(tmp_path: Path):
    data_set = pairs(tmp_path).read()
    assert (data_set.image_shape, data_set.condition_channels) == ((1, 4, 4), 3)
    assert first(data_set) == expected(*range(6))
    assert data_set.classes == ["a", "b"]
    assert data_set.train.labels.tolist() == (data_set.train.images[:, 0, 0, 0] % 2).tolist()
    assert any(line.startswith("condition: 3 channels of the image") for line in data_set.understood)
    grey = replace(pairs(tmp_path), condition=Paired(tmp_path / "B", channels=1), split=None).read()
    assert grey.condition_channels == 1
    assert grey.fingerprint != data_set.fingerprint


def test_a_change_on_either_side_is_read_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = pairs(tmp_path)
    source.read()
    read = []
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda one, *rest: read.append(one) or decode(one, *rest))
    assert first(source.read()) == expected(*range(6))
    assert read == []
    save(tmp_path / "B" / "a" / "0.png", (7, 8, 9))
    assert first(source.read()) == sorted([[0, 7, 8, 9], *expected(1, 2, 3, 4, 5)])
    save(tmp_path / "A" / "b" / "1.png", 50)
    assert first(source.read()) == sorted([[0, 7, 8, 9], [50, 101, 0, 200], *expected(2, 3, 4, 5)])
    assert [file.relative_to(tmp_path).as_posix() for file in read] == ["B/a/0.png", "A/b/1.png"]


def test_what_has_no_partner_and_what_cannot_be_read_leaves_its_pair_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    source = pairs(tmp_path)
    (tmp_path / "B" / "a" / "0.png").unlink()
    (tmp_path / "A" / "b" / "1.png").write_bytes(b"words")
    (tmp_path / "B" / "a" / "2.png").write_bytes(b"words")
    save(tmp_path / "B" / "c" / "x.png", 1)
    with caplog.at_level(logging.WARNING):
        data_set = source.read()
    assert first(data_set) == expected(3, 4, 5)
    reasons = {Path(name).relative_to(tmp_path).as_posix(): reason for name, reason in data_set.skipped}
    assert reasons.keys() == {"A/a/0.png", "A/b/1.png", "B/a/2.png", "B/c/x.png"}
    assert "partner" in reasons["A/a/0.png"]
    assert "partner" in reasons["B/c/x.png"]
    assert "1 image of data.condition.path=" in caplog.text
    (tmp_path / "A" / "b" / "1.png").unlink()
    (tmp_path / "B" / "a" / "2.png").unlink()
    assert first(source.read()) == expected(3, 4, 5)
    with pytest.raises(ValueError, match=r"on_error=fail: 3 pairs .* no partner has 2 images of data\.path="):
        replace(source, on_error="fail").read()  # whatever is prepared


def test_parts_on_both_sides_and_one_without_any_pair(tmp_path: Path):
    for part, numbers in (("train", (0, 1)), ("val", (2,))):
        for i in numbers:
            save(tmp_path / "A" / part / f"{i}.png", i)
            save(tmp_path / "B" / part / f"{i}.png", (100 + i, 0, 200))
    source = Folder(tmp_path / "A", image_size=4, condition=Paired(tmp_path / "B"))
    data_set = source.read()
    assert first(data_set) == expected(0, 1)
    assert data_set.validation.images[:, :, 0, 0].tolist() == expected(2)
    (tmp_path / "B" / "val" / "2.png").rename(tmp_path / "B" / "val" / "3.png")
    with pytest.raises(ValueError, match=r"data\.validation_split: no image of this part has a partner"):
        source.read()


def test_pairs_that_nobody_means_are_refused(tmp_path: Path):
    source = pairs(tmp_path)
    for condition, said in (
        (Paired(tmp_path / "A"), "is the folder of data.path"),
        (Paired(tmp_path / "nowhere"), "data.condition.path=.*no such"),
        (Paired(save(tmp_path / "C" / "y.png", 0).parent), "0 pairs of images.*must have the same"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(source, condition=condition).read()
    with pytest.raises(ValueError, match="lies in data"):
        Folder(tmp_path, image_size=4, condition=Paired(tmp_path / "B")).read()
    with pytest.raises(ValueError, match="edges: names an array"):
        replace(source, condition=Paired(key="edges"))
    with pytest.raises(ValueError, match="Digits reads nothing beside"):
        reading(Digits(), Paired(tmp_path / "B"))
    for wrong in ({}, {"path": "B", "side": "left"}, {"side": "top"}, {"key": "x", "channels": 0}):
        with pytest.raises(ValueError, match=r"data\.condition"):
            Paired(**wrong)


def test_sizes_that_differ_are_brought_to_one_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = pairs(tmp_path, 3)
    save(tmp_path / "B" / "a" / "0.png", (100, 0, 200), (16, 8))
    assert first(source.read()) == expected(0, 1, 2)
    assert "1 of 3 pairs differ in aspect" in caplog.text
    assert "is 4x4, and" in caplog.text
    for i in (1, 2):
        save(tmp_path / "B" / "ab"[i % 2] / f"{i}.png", (100 + i, 0, 200), (16, 8))
    with pytest.raises(ValueError, match=r"image_size is not set, and the images are 4x4, but those of"):
        replace(source, image_size=None).read()


def test_both_images_side_by_side_in_one_picture_also_in_archives(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(3):
            whole = Image.new("RGB", (9, 4), (i, i, i))
            whole.paste((100 + i, 0, 200), (5, 0, 9, 4))
            whole.save(tmp_path / f"{i}.png")
            archive.write(tmp_path / f"{i}.png", f"{i}.png")
    for side, cut in (("right", slice(None)), ("left", [1, 2, 3, 0])):
        source = Archive(tmp_path / "a.zip", image_size=4, validation_fraction=0, condition=Paired(side=side))
        data_set = source.read()
        assert data_set.condition_channels == (3 if side == "right" else 1)
        assert first(data_set) == sorted(np.array(expected(0, 1, 2))[:, cut].tolist())


def test_an_archive_in_another_order_than_its_partner(tmp_path: Path):
    pairs(tmp_path)
    for name, order in (("A", 1), ("B", -1)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for file in sorted((tmp_path / name).rglob("*.png"))[::order]:
                archive.write(file, file.relative_to(tmp_path / name))
    condition = Paired(tmp_path / "B.zip")
    source = Archive(tmp_path / "A.zip", image_size=4, validation_fraction=0, condition=condition)
    assert first(source.read()) == expected(*range(6))


LEVELS = np.arange(12, dtype=np.uint8)[:, None, None].repeat(5, 1).repeat(5, 2)


def arrays(path: Path, **more: np.ndarray) -> Path:
    labels = np.arange(12) % 2
    np.savez(path, x_train=LEVELS, x_test=LEVELS[:3], y_train=labels, y_test=labels[:3], **more)
    return path


def test_an_array_of_images_or_numbers_beside_another(tmp_path: Path):
    path = arrays(
        tmp_path / "x.npz",
        edges_train=(255 - LEVELS) / 255,
        edges_test=LEVELS[:3] / 255,
        age_train=np.arange(12),
        age_test=np.arange(3),
        pose_train=np.arange(24).reshape(12, 2) / 2,
        pose_test=np.zeros((3, 2)),
    )
    paired = Arrays(path, condition=Paired(key="edges_train", value_range=[0, 1])).read()
    assert first(paired) == [[i, 255 - i] for i in range(12)]
    assert paired.validation.images[:, :, 0, 0].tolist() == [[i, i] for i in range(3)]
    assert paired.classes == ["0", "1"]
    with pytest.raises(ValueError, match=r"data\.condition\.value_range is not set"):
        Arrays(path, condition=Paired(key="edges_train")).read()
    age = Arrays(path, condition=Vector("age_train")).read()
    np.testing.assert_array_equal(age.train.vectors, np.arange(12, dtype=np.float32)[:, None])
    assert age.vector_names == ["age_train"]
    pose = Arrays(path, condition=Vector("pose_train")).read()
    np.testing.assert_array_equal(pose.train.vectors[3], [3, 3.5])
    assert isinstance(pose.train.vectors, np.memmap)
    assert pose.vector_names == ["pose_train[0]", "pose_train[1]"]


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path):
    bad = np.ones((12, 2))
    bad[7, 1] = np.inf
    path = arrays(tmp_path / "x.npz", few=LEVELS[:7], bad=bad, words=np.array(["a"] * 12))
    for condition, said in (
        (Paired(key="few"), "must hold one image for each of the 12"),
        (Vector("few"), r"must be numbers \[N\] or \[N, D\]"),
        (Vector("bad"), "row 7, column 1 of bad is inf, which is not finite"),
        (Vector("words"), "words .* holds no numbers"),
        (Vector("none"), "data.condition.key=none: .* has no such array"),
    ):
        with pytest.raises(ValueError, match=said):
            Arrays(path, validation_split="none", condition=condition).read()
    with pytest.raises(ValueError, match="says where files are"):
        Arrays(path, condition=Vector(columns=["age"]))


def table(folder: Path, *rows: str, head: str = "file_name,age,height,kind") -> None:
    (folder / "metadata.csv").write_text("\n".join([head, *rows]) + "\n")


def test_columns_of_a_table_are_numbers_of_each_image_and_no_classes(tmp_path: Path):
    for i in range(6):
        save(tmp_path / f"{i}.png", i)
    table(tmp_path, *(f"{i}.png,{i % 3},{i / 2},{'xy'[i % 2]}" for i in reversed(range(6))))
    condition = Vector(columns=["height", "age"])
    source = Folder(tmp_path, image_size=4, validation_fraction=0.3, condition=condition)
    data_set = source.read()
    levels = data_set.train.images[:, 0, 0, 0].astype(np.float32)
    np.testing.assert_array_equal(data_set.train.vectors, np.stack([levels / 2, levels % 3], 1))
    assert len(data_set.validation.vectors) == 2
    assert data_set.vector_names == ["height", "age"]
    assert data_set.classes == ["x", "y"]
    assert "condition: 2 numbers of each image, height, age of metadata.csv" in data_set.understood


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["0.png,1", "1.png,old"], r"metadata\.csv, 1\.png: age is old, which is no number"),
        (["0.png,1", "1.png,nan"], r"1\.png: age is nan, which is not finite"),
        (["0.png,1", "1.png,1e99"], "not finite"),
        (["0.png,1", "1.png,"], r"1\.png: age is empty"),
        (["0.png,1", "2.png,1"], r"metadata\.csv has no row for 1 image of 2, first 1\.png"),
        (["0.png,1", "1.png,2", "1.png,3"], r"twice gives 1\.png different numbers"),
    ],
)
def test_a_table_that_lacks_a_number_is_refused_by_file_image_and_column(
    rows: list[str], said: str, tmp_path: Path
):
    for i in range(2):
        save(tmp_path / f"{i}.png", i)
    table(tmp_path, *rows, head="file_name,age")
    with pytest.raises(ValueError, match=said):
        Folder(tmp_path, image_size=4, condition=Vector(columns="age")).read()


def test_columns_that_no_table_has(tmp_path: Path):
    save(tmp_path / "0.png", 0)
    source = Folder(tmp_path, image_size=4, condition=Vector(columns=["age"]))
    with pytest.raises(ValueError, match=r"there is no table of such columns.*file_name, age and a row"):
        source.read()
    table(tmp_path, "0.png,1", head="file_name,height")
    with pytest.raises(ValueError, match=r"no table has these columns.*metadata\.csv has file_name, height"):
        source.read()
    for wrong in ({}, {"key": "x", "columns": ["y"]}, {"columns": []}, {"columns": ["a", "a"]}):
        with pytest.raises(ValueError, match=r"data\.condition"):
            Vector(**wrong)
