import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.data.skipped import write_list
from ddpm.data.sources.folder import Folder


def save(path: Path, level: int | tuple[int, int, int] = 0, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(level, int) else "RGB", size, level).save(path)
    return path


def levels(folder: Folder) -> list[int]:
    """The first value of every image, none being held out."""
    return sorted(folder.read().train.images[:, 0, 0, 0].tolist())


def test_folders_are_classes(tmp_path: Path):
    save(tmp_path / "dog" / "a.png", 10)
    save(tmp_path / "cat" / "deep" / "down" / "b.png", 20)
    save(tmp_path / "cat" / "c.png", 30)
    (tmp_path / "README").write_text("a file beside the classes is no image, so it does not count")
    (tmp_path / "empty").mkdir()
    data_set = Folder(tmp_path, image_size=8, validation_fraction=0).read()
    assert data_set.classes == ["cat", "dog"]
    assert data_set.train.labels.dtype == np.int64
    shown = dict(zip(data_set.train.images[:, 0, 0, 0].tolist(), data_set.train.labels.tolist(), strict=True))
    assert shown == {10: 1, 20: 0, 30: 0}


def test_one_image_outside_them_leaves_no_classes(tmp_path: Path):
    save(tmp_path / "cat" / "a.png")
    save(tmp_path / "b.png")
    data_set = Folder(tmp_path, image_size=8).read()
    assert data_set.classes is None
    assert data_set.train.labels is None
    assert data_set.validation.labels is None


def test_which_are_held_out_depends_on_paths_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ["a/2.png", "a-b/1.png", "a/10.png", "B.png", "a.png"]
    for name in names:
        save(tmp_path / name, sorted(names).index(name))
    order = Folder(tmp_path, image_size=8, validation_fraction=0).read().train.images[:, 0, 0, 0].tolist()
    assert order == np.random.RandomState(0).permutation(5).tolist()
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: nullcontext(list(listed(path))[::-1]))
    again = Folder(tmp_path, image_size=8, validation_fraction=0, cache_dir=tmp_path / ".cache")
    assert again.read().train.images[:, 0, 0, 0].tolist() == order


@pytest.mark.parametrize(("part", "key"), [("train", "split"), ("test", "validation_split")])
def test_a_part_of_which_nothing_can_be_read(tmp_path: Path, own_cache: Path, part: str, key: str):
    for name in ("train", "test"):
        save(tmp_path / name / "a.png")
    (tmp_path / part / "a.png").write_bytes(b"words")
    with pytest.raises(
        ValueError, match=rf"^data\.{key}: none of the images of the folder {part}/ can .*choose"
    ):
        Folder(tmp_path, image_size=8).read()
    assert list(own_cache.glob("*-*")) == []


def test_a_share_is_held_out(tmp_path: Path):
    for i in range(20):
        save(tmp_path / f"{i:02}.png", i)
    data_set = Folder(tmp_path, image_size=[4, 6], validation_fraction=0.2).read()
    assert data_set.train.images.shape == (16, 1, 4, 6)
    assert data_set.validation.images.shape == (4, 1, 4, 6)
    assert data_set.train.image_shape == (1, 4, 6)
    assert (
        data_set.fingerprint
        == Folder(tmp_path, image_size=[4, 6], validation_fraction=0.2).read().fingerprint
    )


def test_channels(tmp_path: Path):
    save(tmp_path / "grey.png", 7)
    assert Folder(tmp_path, image_size=8).read().train.image_shape == (1, 8, 8)
    assert Folder(tmp_path, image_size=8, channels=3).read().train.image_shape == (3, 8, 8)
    save(tmp_path / "red.png", (255, 0, 0))
    assert Folder(tmp_path, image_size=8).read().train.image_shape == (3, 8, 8)
    assert Folder(tmp_path, image_size=8, channels=1).read().train.image_shape == (1, 8, 8)


def test_hidden_files_and_folders_are_ignored(tmp_path: Path):
    save(tmp_path / "seen.png", 1)
    for hidden in (".a.png", ".thumbnails/b.png", "x/.cache/c.png"):
        save(tmp_path / hidden, 2)
    folder = Folder(tmp_path, image_size=8)
    assert levels(folder) == [1]
    assert not folder.read().skipped


def test_a_hidden_folder_above_does_not_matter(tmp_path: Path):
    save(tmp_path / ".hidden" / "a.png", 3)
    assert levels(Folder(tmp_path / ".hidden", image_size=8)) == [3]


def test_what_is_no_image_is_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    save(tmp_path / "good.png", 1)
    (tmp_path / "empty.png").touch()
    (tmp_path / "words.jpg").write_text("words")
    whole = save(tmp_path / "cut.png", 2, (64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    folder = Folder(tmp_path, image_size=8)
    assert levels(folder) == [1]
    bad = [str(tmp_path / name) for name in ("cut.png", "dangling.png", "empty.png", "words.jpg")]
    assert [path for path, _ in folder.read().skipped] == bad
    for path, reason in folder.read().skipped:
        assert f"skipped {path}: {reason}" in caplog.text
    assert "skipped 4 of 5 files" in caplog.text


def test_an_image_too_large_to_unpack_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "a.png", 1)
    save(tmp_path / "bomb.png", 2, (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # refused at twice as many
    folder = Folder(tmp_path, image_size=8)
    assert levels(folder) == [1]
    [(path, reason)] = folder.read().skipped
    assert path == str(tmp_path / "bomb.png")
    assert "exceeds limit" in reason


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    save(tmp_path / "elsewhere" / "a.png", 4)
    save(tmp_path / "images" / "one" / "b.png", 5)
    (tmp_path / "images" / "two").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "one" / "up").symlink_to(tmp_path / "images")
    (tmp_path / "elsewhere" / "across").symlink_to(tmp_path / "images" / "one")
    folder = Folder(tmp_path / "images", image_size=8, validation_fraction=0)
    assert set(levels(folder)) == {4, 5}
    assert len(folder.read().train) < 10
    assert folder.read().classes == ["one", "two"]


def test_a_link_that_leads_to_itself_is_listed(tmp_path: Path):
    save(tmp_path / "cat" / "a.png", 4)
    for link in (tmp_path / "loop", tmp_path / "cat" / "loop"):
        link.symlink_to("loop")
    folder = Folder(tmp_path, image_size=8)
    assert levels(folder) == [4]
    assert [path for path, _ in folder.read().skipped] == [
        str(tmp_path / "cat" / "loop"),
        str(tmp_path / "loop"),
    ]
    assert "symbolic links" in dict(folder.read().skipped)[str(tmp_path / "loop")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_not_opened(tmp_path: Path):
    save(tmp_path / "a.png", 6)
    os.mkfifo(tmp_path / "pipe.png")
    assert levels(Folder(tmp_path, image_size=8)) == [6]


def test_home_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "mine" / "a.png", 9)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert levels(Folder("~/mine", image_size=8)) == [9]
    monkeypatch.chdir(tmp_path)
    assert levels(Folder("mine", image_size=8)) == [9]


def test_constructing_reads_nothing(tmp_path: Path):
    folder = Folder(tmp_path / "nowhere", image_size=8)
    with pytest.raises(ValueError, match=r"data\.path=.*nowhere: there is no such folder"):
        folder.read()


def test_a_relative_path_that_is_wrong_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"data\.path=typo: there is no such folder in .*{tmp_path.name}"):
        Folder("typo", image_size=8).read()


def test_a_path_that_holds_no_images(tmp_path: Path):
    with pytest.raises(ValueError, match=r"data\.path=.*holds no files"):
        Folder(tmp_path, image_size=8).read()
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(ValueError, match=r"data\.path=.*none of the 1 files in it can be read"):
        Folder(tmp_path, image_size=8).read()
    with pytest.raises(ValueError, match=r"data\.path=.*notes\.txt is a file"):
        Folder(tmp_path / "notes.txt", image_size=8).read()


def test_settings_that_cannot_be_are_refused_at_once(tmp_path: Path):
    with pytest.raises(ValueError, match=r"data\.image_size=0 "):
        Folder(tmp_path, image_size=0)
    with pytest.raises(ValueError, match=r"data\.channels=0 "):
        Folder(tmp_path, image_size=8, channels=0)
    with pytest.raises(ValueError, match=r"data\.validation_fraction=1 "):
        Folder(tmp_path, image_size=8, validation_fraction=1)
    with pytest.raises(ValueError, match=r"data\.on_error=stop "):
        Folder(tmp_path, image_size=8, on_error="stop")


def test_a_link_out_of_the_folder_is_read_and_nothing_is_written_there(tmp_path: Path):
    outside = save(tmp_path / "outside" / "secret.png", 5)
    save(tmp_path / "images" / "a.png", 4)
    (tmp_path / "images" / "link.png").symlink_to(outside)
    before = sorted(tmp_path.rglob("*"))
    assert set(levels(Folder(tmp_path / "images", image_size=8, validation_fraction=0))) == {4, 5}
    assert sorted(tmp_path.rglob("*")) == before


def test_files_that_differ_only_in_case_are_two(tmp_path: Path):
    save(tmp_path / "cat" / "a.png", 1)
    if (tmp_path / "cat" / "A.PNG").exists():
        pytest.skip("this file system does not tell them apart")
    save(tmp_path / "cat" / "A.PNG", 2)
    save(tmp_path / "Cat" / "a.png", 3)
    data_set = Folder(tmp_path, image_size=8, validation_fraction=0).read()
    assert data_set.classes == ["Cat", "cat"]
    found = zip(data_set.train.images[:, 0, 0, 0].tolist(), data_set.train.labels.tolist(), strict=True)
    assert sorted(found) == [(1, 1), (2, 1), (3, 0)]


@pytest.mark.parametrize("in_it", [[], ["b.png"]])
def test_a_class_without_a_readable_image_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, in_it: list[str]
):
    save(tmp_path / "cat" / "a.png", 1)
    save(tmp_path / "owl" / "a.png", 2)
    for folder in ("dog", ".hidden"):
        (tmp_path / folder).mkdir()
    for name in in_it:
        (tmp_path / "dog" / name).write_text("words")
    assert Folder(tmp_path, image_size=8).read().classes == ["cat", "owl"]
    assert f"{tmp_path}/dog holds no image that can be read: it is no class" in caplog.text
    assert ".hidden" not in caplog.text


def test_failing_names_the_file(tmp_path: Path):
    save(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_text("words")
    with pytest.raises(
        ValueError, match=rf"data\.on_error=fail: {tmp_path}/b\.png cannot be read \(not an ima"
    ):
        Folder(tmp_path, image_size=8, on_error="fail").read()


def test_what_was_left_out_is_listed_in_a_file(tmp_path: Path):
    save(tmp_path / "images" / "a.png", 1)
    write_list(Folder(tmp_path / "images", image_size=8).read().skipped, tmp_path)
    assert not (tmp_path / "skipped.txt").exists()
    (tmp_path / "images" / "b\udcff.png").touch()
    write_list(Folder(tmp_path / "images", image_size=8).read().skipped, tmp_path)
    assert (tmp_path / "skipped.txt").read_text() == rf"{tmp_path}/images/b\udcff.png: it is empty" + "\n"


def test_what_runs_wrote_where_a_person_stands_is_not_read(tmp_path: Path):
    for name in ("cat/a.png", "dog/b.png", "logs/cat/c.png", "logs/train/owl/d.png"):
        save(tmp_path / name)
    before = Folder(tmp_path, image_size=4).read()
    assert before.classes == [
        "cat",
        "dog",
        "logs/cat",
        "logs/train/owl",
    ]  # somebody's own
    (tmp_path / "logs/train/owl/d.png").unlink()
    (tmp_path / "logs/train/owl").rmdir()
    for run in ("train/2026-11-26_07-22-16_folder", "inspect/2026-11-26_07-22-17_x", "train/multirun/x"):
        save(tmp_path / "logs" / run / "samples/step_00000001.png")
    assert Folder(tmp_path, image_size=4).read().classes == ["cat", "dog", "logs/cat"]
