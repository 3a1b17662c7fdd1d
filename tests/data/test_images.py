"""Sets of images: maps are read like arrays, and what identifies a set."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ddpm.data.holdout import split
from ddpm.data.images import DataSet, ImageSet


def numbered(n: int) -> ImageSet:
    """Images [n, 3, 2, 4], none like another."""
    images = np.arange(n * 24).reshape(n, 3, 2, 4) % 251
    return ImageSet(images.astype(np.uint8), np.arange(n) % 5)


def mapped(path: Path, whole: ImageSet) -> ImageSet:
    whole.images.tofile(path)
    return ImageSet(np.memmap(path, np.uint8, "r", shape=whole.images.shape), whole.labels)


def test_a_map_is_read_like_an_array(tmp_path: Path):
    indices = np.random.RandomState(0).randint(0, 50, 77)
    found, expected = mapped(tmp_path / "x", numbered(50)).copy(indices), numbered(50).subset(indices)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert type(found.images) is np.ndarray


@pytest.mark.parametrize("rows", [slice(0, 7), slice(7, None), slice(2, 3)])
def test_a_map_travels_by_the_name_of_its_file_and_so_does_the_middle_of_its_images(
    rows: slice, tmp_path: Path
):
    whole = ImageSet(np.random.RandomState(0).randint(0, 256, (30, 3, 6, 9)).astype(np.uint8), np.arange(30))
    part = mapped(tmp_path / "x", whole).subset(rows)
    for found in (part, part.centre((4, 6)), part.centre((5, 9)), part.centre((1, 1)).subset(slice(0, 1))):
        sent = pickle.dumps(found)
        assert len(sent) < 1000
        there = pickle.loads(sent)
        np.testing.assert_array_equal(there.images, found.images)
        np.testing.assert_array_equal(there.labels, found.labels)
        there.release()
    np.testing.assert_array_equal(part.centre((4, 6)).images, whole.images[rows, :, 1:5, 1:7])
    assert np.shares_memory(part.centre((4, 6)).images, part.images)


def test_vectors_stay_with_their_images(tmp_path: Path):
    """However a set is cut, copied, put in order and sent."""
    np.save(tmp_path / "v.npy", np.random.RandomState(0).rand(300, 2).astype(np.float32))
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    images = mapped(tmp_path / "x", ImageSet(np.arange(300 * 8).reshape(300, 2, 2, 2).astype(np.uint8)))
    whole = replace(images, vectors=vectors, labels=np.arange(300) % 2)
    chosen = np.array([5, 3, 5])
    for part, rows in (
        (whole.subset(chosen), chosen),
        (whole.subset(slice(200, 290)), slice(200, 290)),
        (whole.copy(chosen), chosen),
        (whole.centre((1, 2)), slice(None)),
        (DataSet(whole, whole, ["a", "b"]).with_classes(["b", "a"]).train, slice(None)),
    ):
        np.testing.assert_array_equal(part.vectors, vectors[rows])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).vectors, vectors[rows])
    assert type(whole.copy(chosen).vectors) is np.ndarray
    assert len(pickle.dumps(replace(whole, labels=None))) < 1000  # by the names of files
    for wrong in (vectors[:5], vectors[:, 0], vectors.astype(np.float64)):
        with pytest.raises(ValueError, match="vectors must be float32"):
            replace(whole, vectors=wrong)


def test_facts_are_those_pictures_and_vectors_of_what_is_trained_on():
    pixels = np.random.RandomState(0).randint(0, 256, (9, 3, 2, 2)).astype(np.uint8)
    pixels[4, :1] = pixels[2, :1]  # x_0 is a duplicate, and its condition another
    vectors = np.array([[i, 0.1] for i in range(9)], np.float32)
    whole = ImageSet(pixels, vectors=vectors)
    train, held_out = whole.subset(slice(6)), whole.subset(slice(6, 9))
    data_set = DataSet(train, held_out, condition_channels=2, vector_names=["age", "same"])
    assert data_set.image_shape == (1, 2, 2)
    assert data_set.facts["mean"] == [round(pixels[:, 0].mean() / 255, 6)]
    assert data_set.facts["std"] == [round(pixels[:, 0].std() / 255, 6)]
    assert data_set.facts["duplicates"] == 1
    known = data_set.facts["vector"]
    assert known["names"] == ["age", "same"]
    np.testing.assert_allclose(known["mean"], [2.5, 0.1], rtol=1e-6)
    np.testing.assert_allclose(known["std"], [np.arange(6).std(), 1], rtol=1e-6)
    assert (known["low"][0], known["high"][0]) == (0, 5)
    others = pixels.copy()
    others[0, 2] ^= 1
    changed = [
        replace(data_set, train=replace(train, images=others[:6])),
        replace(data_set, train=replace(train, vectors=vectors[:6] + 1)),
        replace(data_set, condition_channels=1),
    ]
    assert len({one.fingerprint for one in (data_set, *changed)}) == 4


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_what_is_read_of_a_map(tmp_path: Path):
    images = mapped(tmp_path / "x", ImageSet(np.zeros((20_000, 3, 32, 32), np.uint8)))

    def held() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024

    before = held()
    for rows in np.random.RandomState(0).permutation(20_000).reshape(-1, 100):
        images.copy(rows)
    assert held() - before < 35 << 20  # of 61 MB


def test_the_fingerprint_changes_with_a_pixel_a_label_and_a_class():
    a = split(numbered(10), 0.2, None)
    images = a.train.images.copy()
    images[3, 0, 1, 1] += 1
    labels = a.train.labels.copy()
    labels[0] += 1
    others = [
        DataSet(ImageSet(images, a.train.labels), a.validation),
        DataSet(ImageSet(a.train.images, labels), a.validation),
        DataSet(a.train, a.validation, ["x"]),
        DataSet(a.train, a.validation, window=(1, 2)),
        DataSet(a.train, a.validation, window=(1, 3)),
    ]
    assert len({a.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_classes_are_numbered_in_another_order_and_everything_else_stays():
    """As a set whose names were in that order to begin with."""
    names = ["0", "1", "2", "10", "11"]
    natural = split(numbered(20), 0.25, names)
    text = ["0", "1", "10", "11", "2"]
    moved = np.array([text.index(name) for name in names])
    other = natural.with_classes(text)
    assert other.classes == text
    for part, before in ((other.train, natural.train), (other.validation, natural.validation)):
        assert np.array_equal(part.labels, moved[before.labels])
        assert [text[label] for label in part.labels] == [names[label] for label in before.labels]
        assert np.shares_memory(part.images, before.images)
    labels = moved[numbered(20).labels]
    from_the_start = split(ImageSet(numbered(20).images, labels), 0.25, text)
    assert other.fingerprint == from_the_start.fingerprint != natural.fingerprint
    known = replace(natural, known_facts={**natural.facts, "sizes": {"2x4": 20}})
    assert known.with_classes(text).fingerprint == other.fingerprint
    assert known.with_classes(text).facts["sizes"] == {"2x4": 20}
    assert natural.with_classes(names) is natural
    for wrong in (["a", *text[1:]], text[1:], []):
        with pytest.raises(ValueError, match="no classes"):
            natural.with_classes(wrong)


def test_a_split_leaves_something_to_train_on():
    assert len(split(numbered(1), 0.5).train) == 1
    with pytest.raises(ValueError, match="validation_fraction"):
        split(numbered(3), 1.0, None)


def test_images_whose_channels_come_last_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"not uint8 \(5, 8, 8, 3\) \(x\.transpose\(0, 3, 1, 2\) where"):
        ImageSet(np.zeros((5, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"must be uint8 \[N, C, H, W\], not uint8 \(5, 0, 8, 8\)$"):
        ImageSet(np.zeros((5, 0, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="not float64"):
        ImageSet(np.zeros((5, 3, 8, 8), np.float64))


def test_images_without_their_conditions_are_no_copy_and_travel_by_name(tmp_path: Path):
    pixels = np.random.RandomState(0).randint(0, 256, (30, 4, 5, 6)).astype(np.uint8)
    whole = mapped(tmp_path / "x", ImageSet(pixels))
    data_set = DataSet(whole.subset(slice(20)), whole.subset(slice(20, 30)), condition_channels=3)
    alone = data_set.pictures
    assert (alone.image_shape, alone.condition_channels) == ((1, 5, 6), 0)
    assert alone.fingerprint == data_set.fingerprint
    for part, rows in ((alone.train, slice(20)), (alone.validation.centre((3, 2)), slice(20, 30))):
        expected = pixels[rows, :1] if part is alone.train else pixels[rows, :1, 1:4, 2:4]
        np.testing.assert_array_equal(part.images, expected)
        assert np.shares_memory(part.images, whole.images)
        sent = pickle.dumps(part)
        assert len(sent) < 1000
        np.testing.assert_array_equal(pickle.loads(sent).images, expected)
