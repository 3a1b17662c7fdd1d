import io
import runpy
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, composed, first_everyday
from huggingface_hub.errors import RepositoryNotFoundError
from PIL import Image

from ddpm.app.build import build_data
from ddpm.data import columns, splits
from ddpm.data.pixels.decoding import CHUNK, THREADS, decode_all
from ddpm.data.sources.hub import Hub
from ddpm.data.sources.hub import __file__ as hub_file

NAMES = ["cat", "dog", "owl"]
LAYOUTS = ["data", "plain_text", "flat", "images", "saved"]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """No test asks the network for anything, nor writes to anybody's cache; what would be asked is listed."""
    questions = []

    def refuse(*args: object, **kwargs: object) -> None:
        questions.append((args[1:], kwargs))
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return questions


def png(level: int, side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (level, 1, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def part(levels: list[int], names: list[str] | None = NAMES) -> datasets.Dataset:
    """Images of these levels of red; image i is of class i mod 3."""
    features = {
        "number": datasets.Value("int64"),
        "img": datasets.Image(),
        "fine_label": datasets.ClassLabel(names=names) if names else datasets.Value("int64"),
    }
    columns = {
        "number": levels,
        "img": [{"bytes": png(level), "path": None} for level in levels],
        "fine_label": [i % 3 for i in range(len(levels))],
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def write(folder: Path, layout: str) -> Path:
    """The same data set, six images to train on and three to test, in any of the layouts."""
    parts = datasets.DatasetDict(train=part([10, 11, 12, 13, 14, 15]), test=part([20, 21, 22]))
    if layout == "saved":
        parts.save_to_disk(folder)
    elif layout == "images":
        for name, images in parts.items():
            for row in images.cast_column("img", datasets.Image(decode=False)):
                path = folder / name / NAMES[row["fine_label"]] / f"{row['number']}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(row["img"]["bytes"])
    else:
        files = folder if layout == "flat" else folder / layout
        files.mkdir(parents=True)
        for name, images in parts.items():
            images.to_parquet(files / f"{name}-00000-of-00001.parquet")
    return folder


def write_plain(folder: Path, **columns: list) -> Path:
    """Parquet by another hand, which says nowhere what is an image and what a class."""
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "anything.parquet")
    return folder


def encoded(levels: list[int]) -> list[dict[str, object]]:
    return [{"bytes": png(level), "path": f"{level}.png"} for level in levels]


def reds(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_on_disk_is_read_alike(layout: str, tmp_path: Path):
    data_set = Hub("any/name", path=write(tmp_path / "set", layout)).read()
    assert data_set.train.images.shape == (6, 3, 4, 4)
    assert data_set.train.labels.dtype == np.int64
    assert data_set.classes == NAMES
    labels = {red: i % 3 for part in ([10, 11, 12, 13, 14, 15], [20, 21, 22]) for i, red in enumerate(part)}
    for found, expected in ((data_set.train, range(10, 16)), (data_set.validation, range(20, 23))):
        assert sorted(reds(found.images)) == list(expected)
        assert [labels[red] for red in reds(found.images)] == found.labels.tolist()
        np.testing.assert_array_equal(found.images[:, 1:, 3, 3], [[1, 2]] * len(found))


@pytest.mark.parametrize("layout", ["data", "images"])
def test_reading_from_disk_leaves_nothing_but_the_prepared_images(
    layout: str, tmp_path: Path, own_cache: Path
):
    path = write(tmp_path / "set", layout)
    before = sorted(tmp_path.rglob("*"))
    Hub("any/name", path=path).read()
    assert sorted(tmp_path.rglob("*")) == before
    [entry] = own_cache.glob("any-name-*")
    assert sorted(file.name for file in entry.iterdir()) == ["about.json", "images.u8", "labels.npy"]


def test_rows_keep_their_order(tmp_path: Path):
    data_set = Hub("any/name", path=write(tmp_path / "set", "data")).read()
    assert reds(data_set.train.images) == [10, 11, 12, 13, 14, 15]


def test_one_part_saved_alone_is_the_one_to_train_on(tmp_path: Path):
    part(list(range(10))).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match="load_from_disk"):
        datasets.load_dataset(str(tmp_path / "set"))  # which is why the source looks for such folders itself
    hub = Hub("any/name", path=tmp_path / "set", validation_fraction=0.3)
    assert len(hub.read().train) == 7
    assert len(hub.read().validation) == 3


def test_without_the_validation_split_a_share_is_held_out(tmp_path: Path):
    path = write(tmp_path / "set", "data")
    data_set = Hub("any/name", path=path, validation_split="none", validation_fraction=0.5).read()
    assert len(data_set.train) == 3
    assert sorted(reds(data_set.train.images) + reds(data_set.validation.images)) == list(range(10, 16))


def test_splits_can_be_named(tmp_path: Path):
    path = write(tmp_path / "set", "data")
    data_set = Hub("any/name", path=path, split="test", validation_split="train").read()
    assert (len(data_set.train), len(data_set.validation)) == (3, 6)
    with pytest.raises(ValueError, match=r"data\.split=extra: there is no such part; there are train, test"):
        Hub("any/name", path=path, split="extra").read()


def test_images_and_labels_of_parquet_that_says_nothing_about_them(tmp_path: Path):
    path = write_plain(tmp_path / "set", other=[0, 0, 0, 0], x=encoded([1, 2, 3, 4]), label=[7, 3, 7, 5])
    data_set = Hub("any/name", path=path, validation_fraction=0).read()
    assert data_set.classes == ["3", "5", "7"]
    assert dict(zip(reds(data_set.train.images), data_set.train.labels.tolist(), strict=True)) == {
        1: 2,
        2: 0,
        3: 2,
        4: 1,
    }


def test_columns_can_be_named(tmp_path: Path):
    path = write_plain(
        tmp_path / "set", a=encoded([1]), b=encoded([2]), c=[png(3)], label=[0], kind=["round"]
    )
    for column, red in (("a", 1), ("b", 2), ("c", 3), (None, 1)):
        assert reds(Hub("any/name", path=path, image_column=column).read().train.images) == [red]
    assert Hub("any/name", path=path, label_column="kind").read().classes == ["round"]


def test_labels_are_optional(tmp_path: Path):
    data_set = Hub("any/name", path=write_plain(tmp_path / "set", image=encoded([1, 2]))).read()
    assert data_set.classes is None
    assert data_set.train.labels is None


def test_wrong_columns_are_named(tmp_path: Path):
    path = write(tmp_path / "set", "data")
    for settings, message in (
        ({"image_column": "foto"}, r"data\.image_column=foto: .* number, img, fine_label"),
        ({"label_column": "kind"}, r"data\.label_column=kind: .* number, img, fine_label"),
        ({"image_column": "number"}, r"data\.image_column=number: none of its 6 rows is an image"),
        ({"label_column": "img"}, r"data\.label_column=img must hold"),
    ):
        with pytest.raises(ValueError, match=message):
            Hub("any/name", path=path, **settings).read()
    with pytest.raises(
        ValueError, match=r"data\.image_column=null: no column of images; the columns are words"
    ):
        Hub("any/name", path=write_plain(tmp_path / "other", words=["a"])).read()


def saved(folder: Path, label: datasets.Features | Any, **labels: list) -> Path:
    """Parts of one image for each label, of levels 0, 1, ... in all."""
    features = datasets.Features(image=datasets.Image(), label=label)
    parts, level = {}, 0
    for name, values in labels.items():
        levels = range(level, level + len(values))
        rows = {"image": [{"bytes": png(red), "path": None} for red in levels], "label": values}
        parts[name] = datasets.Dataset.from_dict(rows, features=features)
        level += len(values)
    datasets.DatasetDict(parts).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("secret", [-1, None])
def test_labels_that_are_kept_secret_are_refused(secret: int | None, tmp_path: Path):
    path = saved(tmp_path / "set", datasets.ClassLabel(names=NAMES), train=[0, 1], test=[secret, secret])
    with pytest.raises(
        ValueError, match=r"data\.label_column=label: some images have no label \(2 of 2 in test\)"
    ):
        Hub(path=path).read()
    assert Hub(path=path, validation_split="none").read().classes == NAMES
    assert Hub(path=path, label_column="none").read().classes is None


def test_a_part_without_labels_has_no_classes(tmp_path: Path):
    """STL-10 has a part called unlabeled, where every label is -1."""
    path = saved(tmp_path / "set", datasets.ClassLabel(names=NAMES), train=[0], test=[1], unlabeled=[-1, -1])
    found = Hub(path=path, split="unlabeled").read()
    assert (len(found.train), found.classes, found.train.labels) == (2, None, None)
    assert found.understood[1] == "classes: none (no image has one in the column label)"
    with pytest.raises(ValueError, match=r"some images have no label \(2 of 2 in unlabeled\)"):
        Hub(path=path, split="train+unlabeled").read()
    with pytest.raises(ValueError, match=r"some images have no label"):
        Hub(path=path, split="unlabeled", label_column="label").read()


LABELS = {
    "words": (datasets.Value("string"), ["b10", "b9", "a"], ["a", "b9", "b10"]),
    "numbers as words": (datasets.Value("string"), ["10", "9", "1"], ["1", "9", "10"]),
    "numbers": (datasets.Value("int16"), [10, 9, -1], ["-1", "9", "10"]),
    "whole floats": (datasets.Value("float32"), [10.0, 9.0, 2.0], ["2", "9", "10"]),
    "truth values": (datasets.Value("bool"), [True, False, False], ["False", "True"]),
    "lists of one": (datasets.List(datasets.Value("int64")), [[3], [2], [2]], ["2", "3"]),
    "one-hot": (datasets.List(datasets.Value("float32")), [[0, 0, 1], [1, 0, 0], [0, 1, 0]], ["0", "1", "2"]),
    "names": (datasets.ClassLabel(names=["z", "b", "a"]), [0, 1, 2], ["z", "b", "a"]),
    "lists of one name": (datasets.List(datasets.ClassLabel(names=["z", "b"])), [[0], [1], [1]], ["z", "b"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind(kind: str, tmp_path: Path):
    feature, values, classes = LABELS[kind]
    path = saved(tmp_path / "set", feature, train=values, test=values)
    found = Hub(path=path).read()
    assert found.classes == classes
    assert found.understood[1] == f"classes: {len(classes)} (the column label): {', '.join(classes)}"
    said = [value.index(1) if kind == "one-hot" else value for value in values]
    said = [value[0] if isinstance(value, list) else value for value in said]
    if isinstance(said[0], float):
        said = [int(value) for value in said]
    said = [classes[value] for value in said] if "name" in kind else [str(value) for value in said]
    for part in (found.train, found.validation):
        assert [classes[label] for label in part.labels] == said


@pytest.mark.parametrize(
    ("feature", "values", "reason"),
    [
        (datasets.Value("float32"), [0.5, 1.5], "0.5 is neither a whole number nor a word"),
        (datasets.List(datasets.Value("int64")), [[1, 2], [3]], "it holds several values an image"),
    ],
)
def test_a_column_called_label_need_not_hold_classes(feature: Any, values: list, reason: str, tmp_path: Path):
    path = saved(tmp_path / "set", feature, train=values)
    found = Hub(path=path).read()
    assert found.understood[1] == f"classes: none (the column label is none of classes: {reason})"
    with pytest.raises(ValueError, match=r"data\.label_column=label must hold whole numbers or words"):
        Hub(path=path, label_column="label").read()


def test_a_label_that_is_an_image_is_no_class(tmp_path: Path):
    """Data sets for segmentation call the masks so."""
    path = write_plain(tmp_path / "set", pixel_values=encoded([1, 2]), label=encoded([3, 4]))
    found = Hub(path=path, validation_fraction=0).read()
    assert sorted(reds(found.train.images)) == [1, 2]
    assert found.understood[1] == "classes: none (there is no column of labels)"


def test_parts_of_other_classes_are_refused(tmp_path: Path):
    path = saved(tmp_path / "words", datasets.Value("string"), train=["a", "b"], test=["a", "c"])
    with pytest.raises(
        ValueError, match=r"data\.validation_split=test: no image to train on is of its classes c;"
    ):
        Hub(path=path).read()
    assert Hub(path=path, validation_split="none").read().classes == ["a", "b"]
    assert Hub(path=path, split="train+test").read().classes == ["a", "b", "c"]
    path = saved(tmp_path / "few_shot", datasets.ClassLabel(names=NAMES), train=[0, 1], test=[2])
    with pytest.raises(ValueError, match=r"no image to train on is of its classes 2;"):
        Hub(path=path).read()
    parts = datasets.DatasetDict(train=part([1]), test=part([2], ["owl", "cat"]))
    parts.save_to_disk(tmp_path / "names")
    with pytest.raises(
        ValueError, match=r"the classes of test \(owl, cat\) are others than those of train \(cat, dog, owl\)"
    ):
        Hub(path=tmp_path / "names").read()


PARTS = {"train": [0, 1, 2], "train_small": [0], "dev": [0], "test": [2, 1]}


@pytest.mark.parametrize(
    ("settings", "train", "validation", "understood"),
    [
        ({}, [0, 1, 2], [4], "the split train), 1 held out (the split dev)"),
        ({"split": "training"}, [0, 1, 2], [4], "the split train), 1 held out (the split dev)"),
        ({"split": "train_small"}, [3], [4], "the split train_small), 1 held out (the split dev)"),
        ({"split": "dev+train", "validation_split": "test"}, [4, 0, 1, 2], [5, 6],
         "the splits dev and train), 2 held out (the split test)"),
        ({"split": "val+train"}, [4, 0, 1, 2], [5, 6],
         "the splits dev and train), 2 held out (the split test; there is none for validation)"),
        ({"split": "all", "validation_fraction": 0}, list(range(7)), [],
         "the splits train and train_small and dev and test), 0 held out (a share of 0)"),
        ({"split": "test", "validation_split": "none", "validation_fraction": 0}, [5, 6], [],
         "the split test), 0 held out (a share of 0)"),
    ],
)  # fmt: skip
def test_parts_are_chosen_by_name(
    settings: dict[str, Any], train: list[int], validation: list[int], understood: str, tmp_path: Path
):
    path = saved(tmp_path / "set", datasets.ClassLabel(names=NAMES), **PARTS)
    found = Hub(path=path, **settings).read()
    in_order = reds(found.train.images) if validation else sorted(reds(found.train.images))
    assert (in_order, reds(found.validation.images)) == (train, validation)
    assert found.understood[0] == f"images: {len(train)} to train on ({understood}"


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        ("train training val", None, (("train",), "val")),
        ("train training val", "training", (("training",), "val")),
        ("train_sft test_sft", None, (("train_sft",), "test_sft")),
        ("train_sft test_sft", "train_sft", (("train_sft",), "test_sft")),
        ("train dev_clean dev_other test", None, (("train",), "test")),
        ("train dev_clean dev_other test", "dev_other+train", (("dev_other", "train"), "test")),
        ("photos", None, (("photos",), None)),
    ],
)
def test_parts_go_by_their_own_names_too(names: str, split: str | None, expected: tuple):
    sizes = dict.fromkeys(names.split(), 1)
    assert splits.chosen_by_name(sizes, split, None, "somewhere") == expected
    with pytest.raises(ValueError, match=r"data\.validation_split=eval: there is no such part"):
        splits.chosen_by_name({"a": 1}, None, "eval", "somewhere")


def test_images_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    count = 1000
    rows = {"image": [{"bytes": png(n % 256), "path": None} for n in range(count)]}
    features = datasets.Features(image=datasets.Image())
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    taken, most = [0], [0]
    images = columns.images

    def counting(column: Any) -> Iterator[Any]:
        taken[0] += len(column)
        yield from images(column)

    def decoded_slowly(found: Iterator[Any], shaping: Any) -> Iterator[Any]:
        for shown, image in enumerate(decode_all(found, shaping), 1):
            most[0] = max(most[0], taken[0] - shown)
            yield image

    monkeypatch.setattr(columns, "images", counting)
    monkeypatch.setattr("ddpm.data.sources.hub.decode_all", decoded_slowly)
    found = Hub(path=tmp_path / "set", validation_fraction=0).read()
    assert taken == [count]
    assert sorted(reds(found.train.images)) == sorted(n % 256 for n in range(count))
    assert most[0] < 2 * (2 * THREADS + 2) * CHUNK < count


def test_sizes(tmp_path: Path):
    rows = [{"bytes": png(1, side), "path": None} for side in (4, 6)]
    path = write_plain(tmp_path / "set", image=rows)
    with pytest.raises(ValueError, match=r"data\.image_size is not set"):
        Hub("any/name", path=path).read()
    assert Hub("any/name", image_size=[3, 5], path=path).read().train.image_shape == (3, 3, 5)


def test_both_parts_have_the_same_channels(tmp_path: Path):
    grey = io.BytesIO()
    Image.new("L", (4, 4), 9).save(grey, "PNG")
    features = datasets.Features(image=datasets.Image())
    train, test = (
        datasets.Dataset.from_dict({"image": [{"bytes": source, "path": None}]}, features=features)
        for source in (grey.getvalue(), png(8))
    )
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "set")
    data_set = Hub("any/name", path=tmp_path / "set").read()
    assert data_set.train.images.shape == data_set.validation.images.shape == (1, 3, 4, 4)
    assert Hub("any/name", path=tmp_path / "set", channels=1).read().train.image_shape == (1, 4, 4)


def test_rows_that_are_no_image_are_left_out_with_their_labels(tmp_path: Path):
    rows = encoded([1, 2, 3, 4])
    rows[1] = {"bytes": b"words", "path": None}
    rows[2] = None
    path = write_plain(tmp_path / "set", x=rows, label=[5, 6, 7, 8])
    hub = Hub("any/name", path=path, validation_fraction=0)
    shown = dict(zip(reds(hub.read().train.images), hub.read().train.labels.tolist(), strict=True))
    assert shown == {1: 0, 4: 3}
    assert [name for name, _ in hub.read().skipped] == ["row 1 of train", "row 2 of train"]


def test_parts_are_cut_where_they_were_joined(tmp_path: Path):
    parts = datasets.DatasetDict(train=part([1, 2, 3]), test=part([4, 5]))
    features = parts["train"].features
    rows = parts["train"].cast_column("img", datasets.Image(decode=False)).to_list()
    rows[0]["img"] = {"bytes": b"words", "path": None}
    parts["train"] = datasets.Dataset.from_list(rows, features=features)
    parts.save_to_disk(tmp_path / "set")
    data_set = Hub("any/name", path=tmp_path / "set").read()
    assert (reds(data_set.train.images), data_set.train.labels.tolist()) == ([2, 3], [1, 2])
    assert (reds(data_set.validation.images), data_set.validation.labels.tolist()) == ([4, 5], [0, 1])


def test_a_folder_called_like_a_file_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "csv", "flat")
    monkeypatch.chdir(tmp_path)
    assert len(Hub("any/name", path="csv").read().train) == 6


def test_datasets_does_not_see_files_in_a_folder_with_brackets(tmp_path: Path):
    path = write(tmp_path / "cifar[10]", "data")
    with pytest.raises(ValueError, match=r"data\.path=.*doesn't contain any data files.*rename the folder"):
        Hub("any/name", path=path).read()


def test_constructing_reads_nothing(tmp_path: Path):
    hub = Hub("any/name", path=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"data\.path=.*nowhere: there is no such folder"):
        hub.read()


def test_a_path_that_holds_no_data_set(tmp_path: Path):
    with pytest.raises(ValueError, match=r"data\.path=.*no data set could be read"):
        Hub("any/name", path=tmp_path).read()
    (tmp_path / "train.parquet").write_bytes(b"words")
    with pytest.raises(ValueError, match=r"data\.path=.*no data set could be read.*Parquet"):
        Hub("any/name", path=tmp_path).read()


def test_settings_that_cannot_be_are_refused_at_once():
    with pytest.raises(ValueError, match=r"data\.image_size=0 "):
        Hub("any/name", image_size=0)
    with pytest.raises(ValueError, match=r"data\.channels=2 "):
        Hub("any/name", channels=2)


def test_without_a_network_one_question_is_asked(asked: list[object]):
    with pytest.raises(
        ValueError,
        match=r"data\.name=any/name could not be fetched .*Name or service not known.*data\.path=FOLDER",
    ):
        Hub("any/name").read()
    assert asked == [(("any/name",), {"timeout": 10.0})]
    assert not datasets.config.HF_HUB_OFFLINE


def test_without_a_network_the_cache_serves(tmp_path: Path):
    datasets.load_dataset(str(write(tmp_path / "images", "data")))
    (tmp_path / "cache" / "images").rename(tmp_path / "cache" / "some___images")
    assert len(Hub("some/images").read().train) == 6


def test_a_folder_of_the_same_name_is_not_taken_for_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "any" / "name", "data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data\.name=any/name could not be fetched"):
        Hub("any/name").read()


def test_names_that_the_hub_does_not_know(monkeypatch: pytest.MonkeyPatch):
    def unknown(*args: object, **kwargs: object) -> None:
        raise RepositoryNotFoundError("404", response=MagicMock())

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unknown)
    with pytest.raises(ValueError, match=r"data\.name=any/nam: the hub has no such data set.*data\.path="):
        Hub("any/nam").read()
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"data\.name=a/b/c is no name of the hub"):
        Hub("a/b/c").read()


def test_with_a_network_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch):
    loaded = []

    def load(name: str, subset: str | None) -> datasets.DatasetDict:
        loaded.append((name, datasets.config.HF_HUB_OFFLINE))
        return datasets.DatasetDict(train=part([1, 2, 3]), test=part([4]))

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **kwargs: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert reds(Hub("any/name").read().train.images) == [1, 2, 3]
    assert loaded == [("hf://datasets/any/name", False)]


def test_datasets_is_imported_by_reading_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "datasets", None)  # now importing it fails
    again = runpy.run_path(hub_file)["Hub"](
        "any/name", path=write_plain(tmp_path / "set", image=encoded([1]))
    )
    with pytest.raises(ImportError):
        again.read()


def written_from(pixels: Image.Image, folder: Path, names: list[str], metadata: str | None) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels.save(folder / name)
    if metadata is not None:
        for part in {Path(name).parts[0] for name in names}:
            rows = [f"{Path(name).relative_to(part)},{metadata}" for name in names if name.startswith(part)]
            (folder / part / "metadata.csv").write_text("\n".join(["file_name,label", *rows]) + "\n")
    return folder


def settings_of(preset: str) -> dict[str, Any]:
    return composed("train", f"data={preset}", "++data.name=any/name", "++data.subset=null")["data"]


OTHERS = ("archive", "arrays", "digits", "folder", "latents", "npz", "stream")
PRESETS = sorted(path.stem for path in (ROOT / "conf/data").glob("*.yaml") if path.stem not in OTHERS)


@pytest.mark.parametrize("preset", first_everyday(PRESETS))
@pytest.mark.parametrize("layout", ["image/label", "img/fine_label/coarse_label", "folders", "metadata.csv"])
def test_the_presets_read_every_layout_of_the_hub_from_disk(preset: str, layout: str, tmp_path: Path):
    """Through the same yaml that downloads; only `path` is given."""
    settings = settings_of(preset)
    train, test = "train", "test"
    pixels = Image.new("RGB", (32, 32), (200, 100, 0))
    if layout in ("folders", "metadata.csv"):
        inner = ("cat/", "dog/") if layout == "folders" else ("", "")
        names = [f"{split}/{inner[i % 2]}{i}.png" for split, n in ((train, 6), (test, 2)) for i in range(n)]
        written_from(pixels, tmp_path / "set", names, None if layout == "folders" else "3")
        if settings.get("label_column"):
            settings["label_column"] = "label"
    else:
        image, *labels = layout.split("/")
        buffer = io.BytesIO()
        pixels.save(buffer, "PNG")
        features = {image: datasets.Image(), **{name: datasets.ClassLabel(names=NAMES) for name in labels}}
        parts = {}
        for split, n in ((train, 6), (test, 2)):
            columns = {name: [i % 3 for i in range(n)] for name in labels}
            columns[image] = [{"bytes": buffer.getvalue(), "path": None}] * n
            parts[split] = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        (tmp_path / "set" / "data").mkdir(parents=True)
        for split, part_ in parts.items():
            part_.to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
        if settings.get("label_column") and "label" in labels:
            settings["label_column"] = "label"
    settings["path"] = str(tmp_path / "set")
    data_set = build_data({"seed": 0, "data": settings}).data_set
    assert (len(data_set.train), len(data_set.validation)) == (6, 2)
    assert data_set.train.images[0, :, 0, 0].tolist() == [200, 100, 0]
    assert data_set.classes == {"folders": ["cat", "dog"], "metadata.csv": ["3"]}.get(layout, NAMES)
    size = settings["image_size"] or 32
    assert data_set.train.image_shape == (3, size, size)


def test_the_coarse_labels_can_be_chosen(tmp_path: Path):
    features = {
        name: datasets.ClassLabel(names=names)
        for name, names in (("fine_label", NAMES), ("coarse_label", ["pet", "bird"]))
    }
    columns = {"img": encoded([1, 2]), "fine_label": [0, 2], "coarse_label": [0, 1]}
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(
        columns, features=datasets.Features(img=datasets.Image(), **features)
    ).to_parquet(tmp_path / "set" / "train.parquet")
    for label_column, classes in ((None, NAMES), ("coarse_label", ["pet", "bird"])):
        data = Hub("any/name", path=tmp_path / "set", label_column=label_column)
        assert data.read().classes == classes


def test_a_second_run_from_disk_opens_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "set", "data")
    before = Hub("any/name", path=path).read()
    assert before.classes == NAMES
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert Hub("any/name", path=path).read().fingerprint == before.fingerprint


def described(path: Path, **settings: Any) -> tuple[list[int], list[str] | None, list[str]]:
    """Levels of red to train on, in order of their rows, classes, and what was understood beside parts."""
    found = Hub(path=path, validation_split="none", validation_fraction=0, **settings).read()
    return sorted(reds(found.train.images)), found.classes, [*found.understood[1:]]


NONE = "classes: none (there is no column of labels)"


@pytest.mark.parametrize("layout", ["HWC", "CHW", "HW", "lists", "whole numbers"])
def test_images_that_are_arrays(layout: str, tmp_path: Path):
    pixels = np.random.RandomState(0).randint(0, 256, (40, 5, 6, 3), np.uint8)
    pixels[:, 0, 0, 0] = range(40)
    feature: Any = {
        "HWC": datasets.Array3D((5, 6, 3), "uint8"),
        "CHW": datasets.Array3D((3, 5, 6), "uint8"),
        "HW": datasets.Array2D((5, 6), "uint8"),
        "lists": datasets.List(datasets.List(datasets.List(datasets.Value("uint8")))),
        "whole numbers": datasets.Array3D((5, 6, 3), "int64"),
    }[layout]
    if layout == "HW":
        pixels = pixels[..., :1].repeat(1, -1)
    stored = {"CHW": pixels.transpose(0, 3, 1, 2), "HW": pixels[..., 0]}.get(layout, pixels)
    rows = {"boxes": [[[0.5, 1.0]]] * 40, "img": stored.tolist()}
    features = datasets.Features(boxes=datasets.List(datasets.List(datasets.Value("float32"))), img=feature)
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    if layout == "whole numbers":
        with pytest.raises(ValueError, match=r"data\.image_column=img: none of its 40 rows is an image"):
            Hub(path=tmp_path / "set").read()
        return
    found = Hub(path=tmp_path / "set", validation_fraction=0).read()
    order = np.argsort(found.train.images[:, 0, 0, 0])
    np.testing.assert_array_equal(found.train.images[order], pixels.transpose(0, 3, 1, 2))


def test_rows_of_numbers_that_are_no_images(tmp_path: Path):
    rows = [[[[9, 9], [9, 9]]] * 2, [[[1], [2, 3]]], None, [[[7]], [[8]]], [[[None]]], [[[1]], None], []]
    path = write_plain(tmp_path / "set", img=pa.array(rows, pa.list_(pa.list_(pa.list_(pa.uint8())))))
    found = Hub(path=path, validation_fraction=0).read()
    assert found.train.images.tolist() == [[[[7], [8]]]]
    assert [reason for _, reason in found.skipped] == [
        "an array of shape [2, 2, 2] is no image",
        "its rows differ in length",
        "there is no image in this row",
        "some of its numbers are missing",
        "its rows differ in length",
        "some of its numbers are missing",
    ]


def test_columns_of_bytes_and_of_lists_of_images(tmp_path: Path):
    path = write_plain(tmp_path / "bytes", key=[b"0", b"1"], jpg=[png(1), png(2)])
    assert described(path) == ([1, 2], None, [NONE])
    path = write_plain(
        tmp_path / "lists", images=[encoded([1, 9]), encoded([2]), []], caption=["a", "b", "c"]
    )
    found = Hub(path=path, validation_fraction=0).read()
    assert sorted(reds(found.train.images)) == [1, 2]
    assert [name for name, _ in found.skipped] == ["row 2 of train"]


@pytest.mark.parametrize(
    ("column", "values", "captions"),
    [
        ("text", ["one", None], ["one", None]),
        ("Caption", ["one", "two"], ["one", "two"]),
        ("sentences", [["one", "1"], []], ["one", None]),
        ("words", ["one", "two"], None),
    ],
)
def test_captions_are_kept_with_their_images(
    column: str, values: list, captions: list | None, tmp_path: Path
):
    rows = [*encoded([1]), {"bytes": b"words", "path": None}, *encoded([2])]
    path = write_plain(tmp_path / "set", image=rows, **{column: [values[0], values[0], values[1]]})
    found = Hub(path=path, validation_fraction=0).read()
    kept = (
        None if found.captions is None else dict(zip(reds(found.train.images), found.captions, strict=True))
    )
    assert kept == (None if captions is None else dict(zip([1, 2], captions, strict=True)))
    assert (found.understood[2:] != []) == (captions is not None)


def test_folders_of_parts_are_no_classes(tmp_path: Path):
    """`datasets` takes them for classes where nothing lies between them and the images (its issue 7880)."""
    for name, level in (("train/a", 1), ("train/b", 2), ("test/c", 3)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(png(level))
    found = Hub(path=tmp_path).read()
    assert (reds(found.train.images), reds(found.validation.images)) == ([1, 2], [3])
    assert found.understood[1] == "classes: none (test and train are parts)"


def test_what_img2dataset_writes(tmp_path: Path):
    """Parquet of plain bytes, where what could not be fetched is empty."""
    path = write_plain(
        tmp_path / "set",
        url=["http://a", "http://b", "http://c"],
        caption=["a", "b", "c"],
        status=["success", "failed_to_download", "success"],
        jpg=[png(1), None, png(3)],
    )
    found = Hub(path=path, validation_fraction=0).read()
    assert dict(zip(reds(found.train.images), found.captions, strict=True)) == {1: "a", 3: "c"}
    assert found.understood[1:] == [NONE, "captions: kept beside the images; nothing uses them yet"]
    path = write_plain(tmp_path / "addresses", url=["http://a"], caption=["a"])
    with pytest.raises(ValueError, match=r"no column of images; .*url says where .* img2dataset downloads"):
        Hub(path=path).read()


def test_tar_files_of_the_hub(tmp_path: Path):
    for name, levels in (("train", [1, 2]), ("val", [3])):
        with tarfile.open(tmp_path / f"{name}-000.tar", "w") as archive:
            for level in levels:
                for suffix, contents in (
                    ("png", png(level)),
                    ("cls", b"%d" % (level % 2)),
                    ("txt", b"words"),
                ):
                    member = tarfile.TarInfo(f"{level:03}.{suffix}")
                    member.size = len(contents)
                    archive.addfile(member, io.BytesIO(contents))
    found = Hub(path=tmp_path).read()
    assert (reds(found.train.images), reds(found.validation.images)) == ([1, 2], [3])
    assert (found.classes, found.train.labels.tolist()) == (["0", "1"], [1, 0])
    assert found.captions == ["words"] * 3


def test_arrow_files(tmp_path: Path):
    datasets.load_dataset(str(write(tmp_path / "images", "data")), cache_dir=str(tmp_path / "hf"))
    [train, test] = sorted(tmp_path.glob("hf/**/*.arrow"), reverse=True)
    assert (train.name, test.name) == ("images-train.arrow", "images-test.arrow")
    found = Hub(path=train.parent).read()
    assert (len(found.train), len(found.validation), found.classes) == (6, 3, NAMES)


def test_parts_that_were_saved_one_by_one(tmp_path: Path):
    part([1, 2]).save_to_disk(tmp_path / "train")
    part([3]).save_to_disk(tmp_path / "valid")
    found = Hub(path=tmp_path).read()
    assert (reds(found.train.images), reds(found.validation.images)) == ([1, 2], [3])
    assert found.understood[0] == "images: 2 to train on (the split train), 1 held out (the split valid)"


def test_files_that_git_has_not_fetched(tmp_path: Path):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    (tmp_path / "train-00000-of-00001.parquet").write_text(pointer)
    with pytest.raises(
        ValueError, match=r"train-00000-of-00001.parquet is a pointer of Git LFS.* git lfs pull"
    ):
        Hub(path=tmp_path).read()


def test_a_folder_needs_no_name(tmp_path: Path, own_cache: Path):
    Hub(path=write(tmp_path / "my set", "data")).read()
    assert len(list(own_cache.glob("my-set-*"))) == 1
    with pytest.raises(
        ValueError, match=r"data\.name is missing: .*data\.name=OWNER/NAME.*data\.path=FOLDER"
    ):
        Hub()
