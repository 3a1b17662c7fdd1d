"""What is said about a data set, and about the cache."""

import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpm.app import cache, inspect
from ddpm.app.build import build_data
from ddpm.app.run_directory import Place
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.sampling.contact_sheet import contact_sheet


def folder(path: Path) -> Path:
    for i in range(10):
        (path / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 12), (20 * (i % 9), 0, 255)).save(path / "ab"[i % 2] / f"{i}.png")
    (path / "a" / "bad.png").write_text("words")
    return path


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What was printed, by its titles."""
    return {line[:15].strip(): line[15:] for line in capsys.readouterr().out.splitlines()}


def config(target: str, **settings: object) -> dict:
    return {"seed": 0, "data": {"_target_": f"ddpm.data.sources.{target}", **settings}}


def inspected(settings: dict, directory: Path) -> int:
    return inspect.prepare(settings, Place(directory))()


def test_pairs_and_numbers_are_told_and_pairs_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for i in range(4):
        for side, level in (("A", i), ("B", 200 + i)):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.new("L", (8, 8), level).save(tmp_path / side / f"{i}.png")
    (tmp_path / "A" / "metadata.csv").write_text("file_name,age\n0.png,1\n1.png,3\n2.png,1\n3.png,3\n")
    (tmp_path / "B" / "3.png").unlink()
    settings = config("folder.Folder", path=str(tmp_path / "A"), image_size=8, validation_fraction=0)
    kinds = "ddpm.data.conditions"
    pairs = {"_target_": f"{kinds}.paired.Paired", "path": str(tmp_path / "B")}
    assert inspected({**settings, "data": {**settings["data"], "condition": pairs}}, tmp_path / "pairs") == 0
    said = rows(capsys)
    assert said["condition"].startswith("1 channel of the image of the same path or name in")
    assert said["condition"].endswith("B; 1 image without one left out")
    assert said["size"] == "8x8, grey"
    sheet = np.asarray(Image.open(tmp_path / "pairs" / "contact_sheet.png"))
    assert {0, 1, 2, 200, 201, 202} <= set(sheet[..., 0].ravel().tolist())
    numbers = {"_target_": f"{kinds}.vector.Vector", "columns": ["age"]}
    assert inspected({**settings, "data": {**settings["data"], "condition": numbers}}, tmp_path / "age") == 0
    said = rows(capsys)
    assert said["condition"] == "1 number of each image, age of metadata.csv"
    assert said["numbers"] == "age: 1 to 3, mean 2, deviation 1"
    with pytest.raises(UsageError, match="Digits reads nothing beside its images; data=folder"):
        inspected(config("digits.Digits", condition=pairs), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = folder(tmp_path / "images")
    settings = config("folder.Folder", path=str(path), image_size=8, validation_fraction=0.2)
    assert inspected(settings, tmp_path / "out") == 0
    said = rows(capsys)
    assert said["images"] == "8 to train on, 2 held out (a share of 0.2)"
    assert said["size"] == "8x8, colour"
    assert (said["height before"], said["width before"]) == ("12, of all images", "9, of all images")
    assert said["mode before"] == "RGB: 10"
    assert said["duplicates"] == "1"  # 0.png and 9.png
    assert re.fullmatch(r"2\b.*: a, b", said["classes"])
    counts = re.fullmatch(r"a: (\d) \+ (\d), b: (\d) \+ (\d) \(to train on \+ held out\)", said["by class"])
    of_a, held_of_a, of_b, held_of_b = map(int, counts.groups())
    assert (of_a + held_of_a, of_b + held_of_b, of_a + of_b) == (5, 5, 8)
    assert "1.0000" in said["mean"]
    assert said["left out"] == f"1, listed in {tmp_path / 'out' / 'skipped.txt'}"
    assert "bad.png" in (tmp_path / "out" / "skipped.txt").read_text()
    sheet = np.asarray(Image.open(tmp_path / "out" / "contact_sheet.png"))
    assert np.array_equal(sheet, contact_sheet(build_data(settings).data_set))


def test_it_is_said_where_most_are_enlarged(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for size, enlarged in ((9, False), (13, True)):  # of 12x9, high and wide
        settings = config("folder.Folder", path=str(folder(tmp_path / f"{size}")), image_size=size)
        inspected(settings, tmp_path / "out")
        assert ("most were smaller and are enlarged" in rows(capsys)["size"]) is enlarged


def test_originals_of_many_sizes_in_a_few_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "images").mkdir()
    for i in range(100):
        Image.new("L", (20, 101 + i)).save(tmp_path / "images" / f"{i}.png")
    settings = config("folder.Folder", path=str(tmp_path / "images"), image_size=8, crop="random")
    inspected(settings, tmp_path / "out")
    said = rows(capsys)
    assert said["height before"] == "least 101, 5 % 105, median 150, 95 % 195, most 200"
    assert said["width before"] == "20, of all images"
    assert said["aspect before"] == "least 0.1, 5 % 0.102, median 0.132, 95 % 0.189, most 0.198"
    assert said["size"] == "8x8, grey, in training another part of each image every time"
    assert said["classes"].startswith("none")
    assert "by class" not in said
    assert "left out" not in said


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    inspected(config("digits.Digits"), tmp_path)
    said = capsys.readouterr().out
    assert "1,437 to train on, 360 held out" in said
    assert "8x8, grey" in said
    assert not (tmp_path / "skipped.txt").exists()


def test_a_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 12), (255, 0, 0)).save(buffer, "PNG")
    rows = {"image": [{"bytes": buffer.getvalue(), "path": None}] * 8, "label": ["a", "b"] * 4}
    (tmp_path / "shards").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "shards" / "a.parquet")
    settings = config("shard_stream.ShardStream", path=str(tmp_path / "shards"), image_size=8)
    for held_out, of in ((4, "1; the figures above are those of the held-out images"), (0, "1")):
        out = tmp_path / str(held_out)
        settings["data"]["validation_size"] = held_out
        assert inspected(settings, out) == 0
        said = capsys.readouterr().out.splitlines()
        [images] = [line for line in said if line.startswith("images ")]
        assert re.match(rf"images         {8 - held_out} to train on.*, {held_out} held out", images)
        assert f"shards         {of}" in said
        assert any(re.match(r"classes        2\b.*: a, b$", line) for line in said)
        counted = f"by class       a: {held_out // 2}, b: {held_out // 2} (held out)"
        assert (counted in said) == (held_out > 0)
        assert (out / "contact_sheet.png").exists() == (held_out > 0)
    assert "contact sheet  no images are held out" in said


class Told:
    """A source that says what it understood, has captions and names in another script."""

    def read(self) -> DataSet:
        images = ImageSet(np.zeros((30, 1, 8, 8), np.uint8), np.arange(30))
        classes = [f"海船{i}" for i in range(30)]
        sentences = ("images: 30 to train on (train), 0 held out (nothing)", "classes: 30 (the folders)",
                     "captions: kept", "of two: the first", "and so on")  # fmt: skip
        facts = {"values": [0.0, 15.0], "limits": [0.0, 65535.0]}
        return DataSet(images, images.subset(slice(0)), classes, captions=["x", None, "y"],
                       understood=sentences, known_facts=facts, known_fingerprint="f")  # fmt: skip


def test_what_a_source_understood_is_said_in_its_words():
    found = inspect.described(ImageDataModule(Told()))
    assert found["images"] == "30 to train on (train), 0 held out (nothing)"
    assert found["classes"] == "30 (the folders)"
    assert found["captions"] == "2, kept"
    assert found["note"] == "of two: the first; and so on"
    assert found["by class"].startswith("海船0: 1, 海船1: 1")
    assert found["by class"].endswith("海船19: 1 and 10 others (to train on)")
    assert found["values before"] == "0 to 15, in a range from 0 to 65535"


def test_mistakes_are_told_as_such(tmp_path: Path):
    with pytest.raises(UsageError, match=r"data\.path=.*nowhere: there is no such folder"):
        inspected(config("folder.Folder", path=str(tmp_path / "nowhere"), image_size=8), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_cache_is_listed_and_cleared(tmp_path: Path, capsys: pytest.CaptureFixture[str], own_cache: Path):
    cache.list_entries()
    inspected(config("folder.Folder", path=str(folder(tmp_path / "images")), image_size=64), tmp_path / "out")
    capsys.readouterr()
    cache.list_entries()
    head, entry = capsys.readouterr().out.splitlines()
    (prepared,) = cache.Cache().entries()
    assert prepared.size > 10 * 3 * 64 * 64
    assert head == f"{own_cache}: {cache.size_in_words(prepared.size)} in 1 entries"
    assert "10 images of 64x64x3" in entry
    assert "images-" in entry
    cache.clear()
    assert "freed" in capsys.readouterr().out
    cache.list_entries()
    assert capsys.readouterr().out == f"{own_cache}: 0 bytes in 0 entries\n"
