"""Layouts as people have them: parts, classes and what is left out, by the names of files alone."""

import pytest
from laid_out import CATS_DOGS, by_class, images, laid_out, under

TWO = {"cat": 2, "dog": 2}
LAYOUTS = {
    "folders are classes": (CATS_DOGS, [TWO, None]),
    "no folders": (images(""), [{None: 2}, None]),
    "one folder alone is no class": (images("photos"), [{None: 2}, None]),
    "a wrapper": (under("PetImages"), [TWO, None]),
    "wrappers": (under("a/b/c"), [TWO, None]),
    "parts": (under("train", "test"), [TWO, TWO]),
    "parts in a wrapper": (under("data/Training", "data/Testing"), [TWO, TWO]),
    "one part": (under("train"), [TWO, None]),
    "validation before test": (under("train", "valid", "test"), [TWO, TWO]),
    "a common rest": (under("seg_train", "seg_test", "seg_pred"), [TWO, TWO]),
    "the part's name again": (under("seg_train/seg_train", "seg_test/seg_test"), [TWO, TWO]),
    "years": (under("train2017", "val2017"), [TWO, TWO]),
    "sets": (under("training_set", "test_set"), [TWO, TWO]),
    "a neutral word in one": (under("train_images", "test"), [TWO, TWO]),
    "wrappers within parts": (under("train/images", "val/images"), [TWO, TWO]),
    "class folders of these names": (images("train", "car", "bus"), [{"train": 2, "car": 2, "bus": 2}, None]),
    "other rests": (images("train_station", "test_tube"), [{"train_station": 2, "test_tube": 2}, None]),
    "both at once": (images("trainA", "trainB", "testA", "testB"), [{"A": 2, "B": 2}] * 2),
    "parts below classes": (under("cat", "dog", names=images("train", "test")), [TWO, TWO]),
    "nested classes": (images("animals/cat", "animals/dog", "cars/bus"), [
        {"animals/cat": 2, "animals/dog": 2, "cars/bus": 2}, None
    ]),
    "a class with folders in it": (["cat/a.png", "cat/x/y/b.png", *images("dog")], [TWO, None]),
    "the same folder in each class": (images("cat/images", "dog/images"), [TWO, None]),
    "numbers as classes": (images("0", "1", "10"), [{"0": 2, "1": 2, "10": 2}, None]),
    "strays": ([*images("a", "b", "c", "d", "e"), "cover.png"], [dict.fromkeys("abcde", 2), None]),
    "too many to be strays": ([*CATS_DOGS, "1.png", "2.png"], [{None: 6}, None]),
    "strays beside parts": ([*under("train", "test"), "cover.png"], [TWO, TWO]),
    "a stray beside a wrapper": ([*under("data"), "cover.png"], [TWO, None]),
    "EDM's pieces": ([f"{i // 3:05}/img{i:08}.png" for i in range(9)], [{None: 9}, None]),
    "FFHQ's pieces": ([f"{i // 1000:02}000/{i:05}.png" for i in range(3000)], [{None: 3000}, None]),
    "GTSRB's classes": (images("00000", "00001", "00014", end="ppm"), [
        {"00000": 2, "00001": 2, "00014": 2}, None
    ]),
    "numbers of classes in names": (
        ["0001/0001001.png", "0001/0001002.png", "0002/0002001.png", "0002/0002002.png"],
        [{"0001": 2, "0002": 2}, None],
    ),
    "pieces by name": (images("batch_1", "batch_2"), [{None: 4}, None]),
    "no labels to validate with": ([*under("train"), *images("test")], [TWO, None]),
    "one unknown class to validate with": ([*under("train"), *images("test/unknown")], [TWO, None]),
    "no classes in either": ([*images("train"), *images("test")], [{None: 2}] * 2),
    "what is no image": ([*CATS_DOGS, "notes/a.txt", "labels.md", "x/Thumbs.db"], [TWO, None]),
    "what a Mac leaves": ([*CATS_DOGS, *under("__MACOSX")], [TWO, None]),
    "no suffix at all": (["cat/a", "cat/b", "dog/a", "dog/b"], [TWO, None]),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
def test_layout(case: str):
    names, expected = LAYOUTS[case]
    assert by_class(names) == expected
    assert by_class(names[::-1]) == expected


def test_parts_of_other_classes_are_refused():
    names = [*under("train"), *images("test/cat", "test/cow")]
    with pytest.raises(
        ValueError,
        match=r"data\.path=SET: the folder test/ holds classes that .*train/ lacks: cow; .*data\.val",
    ):
        laid_out(names)
    assert by_class([*under("train"), *images("test/cat")]) == [TWO, {"cat": 2}]
    assert by_class(names, validation_split="none") == [TWO, None]
    assert by_class(names, labels="none") == [{None: 4}] * 2


def test_a_part_without_images_is_refused():
    for there in ((), ("train", "test", "val")):
        with pytest.raises(ValueError, match=r"data\.(path|split)=.*val"):
            laid_out(under("train", "test"), there, split="val")
    assert by_class(under("train", "test"), ["val"]) == [TWO, TWO]
    with pytest.raises(ValueError, match=r"data\.split=train: there is no such part; there are none"):
        laid_out(CATS_DOGS, split="train")


def test_a_part_to_validate_on_that_is_empty_is_mentioned():
    _, found = laid_out(under("train", "test"), ("train", "test", "val"))
    assert found.understood[1] == "the folder test/; the part validation holds no images"
    _, found = laid_out(under("train"), ("train", "val"))
    assert found.understood[1] == "a share; the part validation holds no images"
    _, found = laid_out(under("train", "val"), ("train", "test", "val"))
    assert found.understood[1] == "the folder val/"


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [
        ("images", "masks"),
        ("JPEGImages", "SegmentationClass"),
        ("img", "gt"),
        ("train/images", "train/masks"),
        ("set/images/train", "set/labels/train"),
    ],
)
def test_masks_beside_images_are_left_out(pictures: str, masks: str):
    names = images(f"{pictures}/cat", f"{pictures}/dog", f"{masks}/cat", f"{masks}/dog")
    names, found = laid_out(names)
    assert {names[i] for i in found.left_out} == {name for name in names if name.startswith(f"{masks}/")}
    assert by_class(names) == [TWO, None]


def test_folders_called_as_masks_may_be_classes():
    assert by_class(images("mask/a", "mask/b", "no_mask/a")) == [
        {"mask/a": 2, "mask/b": 2, "no_mask/a": 2},
        None,
    ]
    assert by_class(images("labels", "cat")) == [{"labels": 2, "cat": 2}, None]
