"""Rows of parquet shards, however their columns are called and typed."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from written_shards import encoded, numbers, png, read, trained_on, write_parquet

from ddpm.data import bounds


@pytest.mark.parametrize(
    ("label", "classes", "labels"),
    [
        (["10", "9"], ["9", "10"], ["10", "9"]),
        ([10, 9], ["9", "10"], ["10", "9"]),
        ([True, False], ["False", "True"], ["True", "False"]),
        ([1.0, 0.0], ["0", "1"], ["1", "0"]),
        ([[3], [4]], ["3", "4"], ["3", "4"]),
        ([[0, 1], [1, 0]], ["0", "1"], ["1", "0"]),
    ],
)
def test_labels_of_every_kind(label: list[Any], classes: list[str], labels: list[str], tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", image=encoded([1, 2]), label=label, caption=["a", "b"])
    found = read(tmp_path)
    assert (found.classes, trained_on(found)) == (classes, list(zip([1, 2], labels, strict=True)))
    assert found.understood[1:] == [
        f"classes: 2 (the column label): {', '.join(classes)}",
        "captions: the column caption; nothing uses them yet",
    ]


def test_a_column_called_label_need_not_hold_classes(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", image=encoded([1, 2]), label=[[1, 2], [3]])
    found = read(tmp_path)
    assert trained_on(found) == [(1, None), (2, None)]
    assert found.understood[1] == (
        "classes: none (the column label is none of classes: it holds several values an image)"
    )
    with pytest.raises(ValueError, match=r"data\.label_column=label must hold whole numbers or words"):
        read(tmp_path, label_column="label")


def test_labels_that_are_missing(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", image=encoded([1, 2, 3]), label=[0, None, 1])
    with pytest.raises(ValueError, match=r"some samples of the shards have a label and some .* \(1 of 3\)"):
        read(tmp_path)
    assert len(read(tmp_path, label_column="none").train) == 3
    write_parquet(tmp_path / "a.parquet", image=encoded([1]), label=pa.array([None], pa.int64()))
    assert read(tmp_path).classes is None


def test_any_column_of_class_labels(tmp_path: Path):
    features = datasets.Features(image=datasets.Image(), species=datasets.ClassLabel(names=["owl", "cat"]))
    rows = {"image": encoded([1, 2]), "species": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    assert trained_on(read(tmp_path)) == [(1, "cat"), (2, "owl")]


def test_images_of_every_kind(tmp_path: Path):
    write_parquet(tmp_path / "a" / "a.parquet", key=[b"0", b"1"], jpg=[png(1), png(2)])
    write_parquet(tmp_path / "b" / "b.parquet", images=[encoded([1, 9]), encoded([2])])
    arrays = [np.full((4, 4, 3), level, np.uint8).tolist() for level in (1, 2)]
    kind = pa.list_(pa.list_(pa.list_(pa.uint8())))
    write_parquet(tmp_path / "c" / "c.parquet", box=[[[1.0]], [[2.0]]], pixels=pa.array(arrays, kind))
    features = datasets.Features(image=datasets.Array3D((3, 4, 4), "uint8"))
    chw = {"image": np.array(arrays, np.uint8).transpose(0, 3, 1, 2)}
    (tmp_path / "d").mkdir()
    datasets.Dataset.from_dict(chw, features=features).to_parquet(tmp_path / "d" / "d.parquet")
    for name in "abcd":
        assert numbers(read(tmp_path / name))[0] == [1, 2]


def test_columns_that_differ_between_shards(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", image=encoded([1]), label=[0])
    for columns, message in (
        (
            {"img": encoded([2])},
            r"data\.image_column: .*b\.parquet has the column img where .*a\.parquet has the",
        ),
        ({"image": encoded([2])}, r"some samples of the shards have a label and some have none \(1 of 2\)"),
        (
            {"image": encoded([2]), "class": [0]},
            r"data\.label_column: .*b\.parquet has the column class where",
        ),
        ({"words": ["a"]}, r"data\.image_column=null: .*b\.parquet has no column of images; it has words"),
    ):
        write_parquet(tmp_path / "b.parquet", **columns)
        with pytest.raises(ValueError, match=message) as refusal:
            read(tmp_path)
        assert "\n" not in str(refusal.value)


def test_classes_that_are_named_otherwise_in_another_shard(tmp_path: Path):
    for name, names in (("a", ["cat", "dog"]), ("b", ["dog", "cat"])):
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
        rows = {"image": encoded([1]), "label": [0]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(
        ValueError, match=r"b\.parquet has the classes dog, cat where .*a\.parquet has the classes cat, dog;"
    ):
        read(tmp_path)


def test_a_shard_without_rows(tmp_path: Path):
    write_parquet(tmp_path / "a.parquet", words=pa.array([], pa.string()))
    with pytest.raises(ValueError, match=r"data\.path=.*: the 1 shard there hold no rows"):
        read(tmp_path)
    write_parquet(tmp_path / "b.parquet", image=encoded([1, 2]))
    assert numbers(read(tmp_path))[0] == [1, 2]


def test_a_file_that_unpacks_to_very_much_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bounds, "MOST_BYTES", 1 << 16)
    table = pa.table({"image": [{"bytes": bytes(1 << 20) + bytes([n]), "path": None} for n in range(9)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 15
    with pytest.raises(ValueError, match=r"data\.path: .*a\.parquet of .* bytes unpacks to 9,4.*or more"):
        read(tmp_path)


def test_images_are_decoded_as_they_are_shaped(tmp_path: Path):
    """A part that is cut out anew each time is cut from an image that is kept a little larger."""
    rng = np.random.RandomState(0)
    features = datasets.Features(image=datasets.Array3D((20, 30, 3), "uint8"))
    rows = {"image": rng.randint(0, 256, (3, 20, 30, 3)).astype(np.uint8)}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    found = read(tmp_path, image_size=14, crop="random", validation_size=1)
    [sample, *_] = found.train.shards.read(0, 0)
    assert sample.decoded(found.train.shaping).pixels.shape == (3, 16, 16)
    assert found.validation.image_shape == (3, 16, 16)
    assert found.train.image_shape == (3, 14, 14)
