"""What people see of the cache, and what they can have removed."""

import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm import __main__
from ddpm.app.cache import parse_limit
from ddpm.data.prepared.cache import Cache, size_in_words
from ddpm.data.settings import ImageSettings
from ddpm.data.sources.digits import Digits
from ddpm.data.sources.folder import Folder
from ddpm.evaluation.extractors import classifier_network
from ddpm.evaluation.extractors.classifier import Classifier
from ddpm.evaluation.quality.reference import of_data
from ddpm.runtime.sharing import Sharing


def ddpm(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["ddpm", *words])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def images(path: Path, n: int = 12) -> Path:
    path.mkdir()
    for i in range(n):
        Image.fromarray(np.full((9, 9, 3), [i * 20, 0, 9], np.uint8)).save(path / f"{i}.png")
    return path


def aged(path: Path, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(path / "about.json", (then, then))


def test_what_is_kept_is_listed(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    used = Folder(images(tmp_path / "used"), image_size=8).read()
    Folder(images(tmp_path / "gone", 3), image_size=8).read()
    (tmp_path / "gone").rename(tmp_path / "moved")
    old = Cache().get("old", "ab" * 32, lambda directory: {"format": 1})
    old.release()
    assert ddpm(monkeypatch, "cache", "list") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    sizes = [entry.size for entry in Cache().entries()]
    assert head == f"{own_cache}: {sum(sizes) / 1000:.1f} kB in 3 entries"
    said = {re.split(r"  +", line.strip())[2].split("-")[0]: re.split(r"  +", line.strip()) for line in lines}
    for entry in Cache().entries():
        used_at = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        assert said[entry.path.name.split("-")[0]][1] == used_at
    assert said["used"][3:] == ["12 images of 8x8x3", f"from {tmp_path / 'used'}", "in use"]
    assert said["gone"][3:] == ["3 images of 8x8x3", f"from {tmp_path / 'gone'}", "without a source"]
    assert said["old"][3:] == ["counts of shards", "of an older version"]
    assert len(used.train) == 10


def test_classifiers_and_features_are_listed_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(classifier_network, "STEPS", 2)
    data, extractor = Digits().read(), Classifier()
    extractor.prepare(data, "cpu")
    of_data(data, "validation", extractor, Sharing(tmp_path), Cache())
    assert ddpm(monkeypatch, "cache", "list") == 0
    _, *lines = capsys.readouterr().out.splitlines()
    right = round(100 * extractor.accuracy)
    said = {re.split(r"  +", line.strip(), maxsplit=3)[3] for line in lines}
    assert said == {
        f"classifier of 10 classes, {right} % right",
        "features of 360 images (validation) by classifier",
    }


def test_pruning_removes_what_nobody_needs_and_then_the_least_recently_used(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("gone", "long ago", "lately"):
        Folder(images(tmp_path / name), image_size=8).read()
    entries = {entry.about["name"]: entry for entry in Cache().entries()}
    aged(entries["long ago"].path, 3)
    aged(entries["lately"].path, 2)
    (tmp_path / "gone").rename(tmp_path / "moved")
    (own_cache / f"x-{'0' * 16}.abcdefgh.building").mkdir()
    (own_cache / f"x-{'0' * 16}.abcdefgh.building" / "half").write_bytes(bytes(123))
    assert ddpm(monkeypatch, "cache", "prune") == 0
    removed, leftovers, end = capsys.readouterr().out.splitlines()
    gone = entries["gone"]
    assert removed == f"removed {gone.path.name} ({size_in_words(gone.size)}, without a source)"
    assert leftovers == "removed what killed builds left (123 bytes)"
    left = size_in_words(sum(entry.size for entry in Cache().entries()))
    assert end == f"{own_cache}: {size_in_words(gone.size + 123)} freed, {left} left; the limit is 100.0 GB"
    assert ddpm(monkeypatch, "cache", "prune", f"{entries['lately'].size}B", "--dir", str(own_cache)) == 0
    removed, end = capsys.readouterr().out.splitlines()
    assert removed.startswith(f"removed {entries['long ago'].path.name} (")
    assert removed.endswith(", the least recently used)")
    data_set = Folder(tmp_path / "lately", image_size=8).read()
    assert ddpm(monkeypatch, "cache", "prune", "0") == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "what is left is in use, or not yours to remove, and stays"
    del data_set
    assert ddpm(monkeypatch, "cache", "prune", "0") == 0
    assert Cache().entries() == []


def test_clearing_spares_what_is_in_use_and_says_so(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    data_set = Folder(images(tmp_path / "used"), image_size=8).read()
    Folder(images(tmp_path / "unused"), image_size=8).read()
    assert ddpm(monkeypatch, "cache", "clear") == 0
    (entry,) = Cache().entries()
    said, end = capsys.readouterr().out.splitlines()
    assert said == f"{entry.path.name} is in use, and stays"
    assert end.startswith(f"{own_cache}: ")
    assert len(data_set.train) == 10


@pytest.mark.parametrize(
    ("text", "gigabytes"),
    [
        ("20", 20),
        ("20GB", 20),
        ("500 MB", 0.5),
        ("1.5tb", 1500),
        ("0", 0),
        (".5", 0.5),
        ("3kB", 3e-6),
        ("7B", 7e-9),
    ],
)
def test_limits(text: str, gigabytes: float):
    assert parse_limit(text) == pytest.approx(gigabytes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prune", "many"], "LIMIT many: must be a number of GB, or a size such as 500MB"),
        (["prune", "20 apples"], "LIMIT 20 apples: must be"),
        (["prune", "nan"], "LIMIT nan: must be"),
        (["prune", "-3"], "LIMIT -3: must be"),
        (["list", "20"], "unrecognized arguments: 20"),
        (["clear", "20"], "unrecognized arguments: 20"),
        (["sing"], "invalid choice"),
        ([], "ACTION"),
        (["prune", "--dir", __file__], f"--dir {__file__}: is no directory"),
    ],
)
def test_mistakes(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert ddpm(monkeypatch, "cache", *words) == 2
    assert message in capsys.readouterr().err


def test_about_is_for_people_too(tmp_path: Path):
    Folder(images(tmp_path / "mine"), image_size=[8, 6], split="all").read()
    (entry,) = Cache().entries()
    about = json.loads((entry.path / "about.json").read_text())
    assert about["source"] == str(tmp_path / "mine")
    assert about["identity"]["folder"] == str(tmp_path / "mine")
    assert about["settings"]["size"] == [8, 6]
    assert about["settings"]["split"] == "all"
    assert ImageSettings.cache_limit == 100
