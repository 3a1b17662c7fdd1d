"""Which shards are trained on and which are held out, by their names and folders."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from written_shards import encoded, numbered, numbers, read, write_parquet, write_tar

from ddpm.data.prepared.cache import WITHOUT_SOURCE, Cache, needless


def write(folder: Path, names: dict[str, list[int]]) -> Path:
    for name, held in names.items():
        if name.endswith(".parquet"):
            write_parquet(folder / name, image=encoded(held))
        else:
            write_tar(folder / name, numbered(held))
    return folder


LAYOUTS = [
    (["train-000.tar", "val-000.tar", "test-000.tar"], [0], [1], "1 shard of train", "1 shard of validation"),
    (["train/0.tar", "train/1.tar", "test/0.tar"], [0, 1], [2], "2 shards of train",
     "1 shard of test; there is none of validation"),
    (["imagenet-validation-07.tar", "imagenet-train-0000.tar"], [1], [0], "1 shard of train",
     "1 shard of validation"),
    (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
      "data/test-00000-of-00001.parquet"], [0, 1], [2], "2 shards of train",
     "1 shard of test; there is none of validation"),
    (["default/train/0000.parquet", "default/dev/0000.parquet"], [0], [1], "1 shard of train",
     "1 shard of validation"),
    (["cc3m-train-0.tar", "cc12m-train-0.tar", "cc3m-val-0.tar"], [0, 1], [2], "2 shards of train",
     "1 shard of validation"),
    (["train-0.tar", "train_small-0.tar", "extra-0.tar"], [0], [], "1 shard of train", "none"),
    (["TRAIN-0.TAR", "TEST-0.TAR"], [0], [1], "1 shard of train",
     "1 shard of test; there is none of validation"),
    (["a-0.tar", "b-0.tar"], [0, 1], [], "2 shards", "none"),
    (["test-0.tar", "test-1.tar"], [0, 1], [], "2 shards of test", "none"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "train", "validation", "of_train", "of_validation"), LAYOUTS)
def test_parts_by_name(
    names: list[str],
    train: list[int],
    validation: list[int],
    of_train: str,
    of_validation: str,
    tmp_path: Path,
):
    held = {name: [10 * index + digit for digit in range(3)] for index, name in enumerate(names)}
    found = read(write(tmp_path / "set", held), validation_size=100 if validation else 0)
    of_shards = [
        sorted(number for index in part for number in held[names[index]]) for part in (train, validation)
    ]
    assert [sorted(part) for part in numbers(found)] == of_shards
    assert found.understood == [
        f"images: {len(of_shards[0])} to train on ({of_train}), "
        f"{len(of_shards[1])} held out ({of_validation})",
        "classes: none (no image has a label)",
    ]


HELD = {
    "train-0.tar": [1, 2],
    "train_small-0.tar": [3],
    "val-0.tar": [4],
    "test-0.tar": [5],
    "more-0.tar": [6],
}


@pytest.mark.parametrize(
    ("settings", "train", "validation"),
    [
        ({"split": "train+more"}, [6, 1, 2], [4]),
        ({"split": "train_small", "validation_split": "test"}, [3], [5]),
        ({"split": "training", "validation_split": "valid"}, [1, 2], [4]),
        ({"split": "all"}, [6, 5, 1, 2, 3, 4], []),
        ({"split": "dev+test", "validation_split": "none"}, [5, 4], []),
        ({"validation_split": "none", "validation_size": 1}, [2], [1]),
    ],
)
def test_parts_can_be_chosen(
    settings: dict[str, Any], train: list[int], validation: list[int], tmp_path: Path
):
    found = read(write(tmp_path, HELD), **{"validation_size": 100 if validation else 0, **settings})
    assert numbers(found) == (train, validation)


def test_parts_that_are_not_there(tmp_path: Path):
    write(tmp_path / "named", HELD)
    write(tmp_path / "plain", {"a-0.tar": [1]})
    for folder, settings, message in (
        (
            "named",
            {"split": "extra"},
            r"data\.split=extra: there is no such part; there are train, validation, ",
        ),
        ("named", {"validation_split": "train"}, r"data\.validation_split=train: it is trained on"),
        (
            "plain",
            {"split": "train"},
            r"data\.split=train: no name of the shards at .*plain says a part; .*a-\*",
        ),
        ("plain", {"validation_split": "val"}, r"data\.validation_split=val: no name of the shards"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / folder, **settings)
    write(tmp_path / "other", {"big-train-0.tar": [1], "train_b-0.tar": [2], "x-0.tar": [3]})
    assert numbers(read(tmp_path / "other"))[0] == [1, 2]


def test_shards_to_validate_on_change_nothing_about_training(tmp_path: Path):
    write(tmp_path, {"train-0.tar": [1, 2, 3], "train-1.tar": [4, 5], "val-0.tar": [6]})
    alone, both = read(tmp_path / "train-*.tar", cache_dir=tmp_path / "c"), read(tmp_path)
    orders = [found.train.order(4, seed=0).shuffled_shards(0) for found in (alone, both)]
    assert [order.tolist() for order in orders[0]] == [order.tolist() for order in orders[1]]
    assert trained(alone) == trained(both)
    assert alone.fingerprint != both.fingerprint


def trained(found: Any) -> list[str]:
    return [path.rsplit("/", 1)[-1] for path in found.train.shards.paths]


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [([4] * 3, 100, 12), ([4] * 30, 120, 120), ([4] * 30, 30, 30), ([9, *[1] * 29], 15, 20), ([4] * 3, 0, 0)],
)
def test_of_a_part_to_validate_on_as_many_are_held_out_as_are_asked_for(
    counts: list[int], size: int, expected: int, tmp_path: Path
):
    write_tar(tmp_path / "train-000.tar", numbered([200]))
    for shard, count in enumerate(counts):
        write_tar(tmp_path / f"val-{shard:03}.tar", numbered(range(count)))
    found = read(tmp_path, validation_size=size)
    assert (numbers(found)[0], len(found.validation)) == ([200], expected)


def test_only_names_below_the_path_say_a_part(tmp_path: Path):
    found = read(write(tmp_path / "test" / "shards", {"a-0.tar": [1], "b-0.tar": [2]}))
    assert numbers(found)[0] == [1, 2]
    assert found.understood[0].startswith("images: 2 to train on (2 shards)")
    pattern = read(tmp_path / "test" / "*" / "*.tar")
    assert pattern.understood == found.understood


def test_the_parts_of_a_bucket(tmp_path: Path):
    import fsspec

    memory = fsspec.filesystem("memory")
    for name, held in HELD.items():
        memory.pipe_file(f"/bucket/set/{name}", write_tar(tmp_path / name, numbered(held)).read_bytes())
    found = read("memory://bucket/set", validation_size=9)
    assert numbers(found) == ([1, 2], [4])


def test_counts_of_shards_that_grew_are_no_longer_needed(tmp_path: Path):
    write(tmp_path / "set", {"train-0.tar": [1], "val-0.tar": [2]})
    read(tmp_path / "set")
    write(tmp_path / "set", {"train-1.tar": [3]})
    read(tmp_path / "set")
    [entry] = Cache().entries()
    assert entry.about["counts"] == [1, 1, 1]
    assert not Cache().is_used(entry)
    assert needless([entry]) == {}
    shutil.rmtree(tmp_path / "set")
    assert needless([entry]) == {entry.path: WITHOUT_SOURCE}
