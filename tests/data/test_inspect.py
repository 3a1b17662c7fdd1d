"""What is said about a data set, and about the cache."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpm.app import cache, inspect
from ddpm.app.build import build_data
from ddpm.app.run_directory import Place
from ddpm.errors import UsageError


def folder(path: Path) -> Path:
    for i in range(10):
        (path / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 12), (20 * (i % 9), 0, 255)).save(path / "ab"[i % 2] / f"{i}.png")
    (path / "a" / "bad.png").write_text("words")
    return path


def config(target: str, **settings: object) -> dict:
    return {"seed": 0, "data": {"_target_": f"ddpm.data.sources.{target}", **settings}}


def inspected(settings: dict, directory: Path) -> int:
    return inspect.prepare(settings, Place(directory))()


def test_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = folder(tmp_path / "images")
    settings = config("folder.Folder", path=str(path), image_size=8, validation_fraction=0.2)
    assert inspected(settings, tmp_path / "out") == 0
    said = dict(
        line.split(maxsplit=1)
        for line in capsys.readouterr().out.replace("size before", "size_before").splitlines()
    )
    assert said["images"] == "8 to train on, 2 held out"
    assert said["size"] == "8x8, colour"
    assert said["size_before"] == "12x9 10"
    assert said["duplicates"] == "1"  # 0.png and 9.png
    assert said["classes"] == "2: a 5, b 5"
    assert "1.0000" in said["mean"]
    assert "skipped.txt" in said["left"]
    assert "bad.png" in (tmp_path / "out" / "skipped.txt").read_text()
    sheet = np.asarray(Image.open(tmp_path / "out" / "contact_sheet.png"))
    assert sheet.shape == (2 + 3 * 66, 2 + 3 * 66, 3)
    assert sheet[3, 3].tolist()[2] == 255


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
        assert f"images         {8 - held_out} to train on, {held_out} held out" in said
        assert f"shards         {of}" in said
        assert (out / "contact_sheet.png").exists() == (held_out > 0)
    assert "contact sheet  no images are held out" in said


def test_the_contact_sheet_shows_images_from_all_over_the_set(tmp_path: Path):
    settings = config("digits.Digits")
    data = build_data(settings)
    shown = inspect.some_of(data, 40)
    assert sorted(set(shown.labels.tolist())) == list(range(10))
    assert (np.diff(shown.labels) >= 0).all()
    places = [
        np.flatnonzero((data.data_set.train.images == image).all((1, 2, 3)))[0] for image in shown.images
    ]
    assert len(set(places)) == 40
    assert min(places) < 40
    assert max(places) > 1437 - 40
    assert len(inspect.some_of(data, 5000)) == 1437


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
