"""Names of parts: what a word means, which folders are parts, which parts are used."""

import pytest

from ddpm.data.splits import Parts, chosen, chosen_by_name, meaning, parts_among

MEANINGS = {
    "train": "train", "Training": "train", "TRAIN": "train", "train2017": "train", "seg_train": "train",
    "trainLabels": "train", "TrainingSet": "train", "asl_alphabet_train": "train", "训练集": "train",
    "val": "validation", "valid": "validation", "VALIDATION": "validation", "dev_set": "validation",
    "test": "test", "Testing": "test", "t10k": "test", "test_tube": "test", "测试": "test",
    "trainer": None, "contest": None, "latest": None, "train_test": None, "": None, "extra": None,
}  # fmt: skip


@pytest.mark.parametrize("name", MEANINGS)
def test_meaning(name: str):
    assert meaning(name) == MEANINGS[name]


def parts(*names: str) -> dict[str, str]:
    return {name: part if not of else f"{part}:{of}" for name, (part, of) in parts_among(names).items()}


def test_folders_that_are_parts():
    assert parts("train", "test") == {"train": "train", "test": "test"}
    assert parts("train") == {"train": "train"}
    assert parts("train", "extra") == {"train": "train", "extra": "extra"}
    assert parts("train", "test", "masks", "anything") == {
        "train": "train", "test": "test", "masks": "masks", "anything": "anything"
    }  # fmt: skip
    assert parts("seg_train", "seg_test", "seg_pred") == {
        "seg_train": "train", "seg_test": "test", "seg_pred": "seg_pred"
    }  # fmt: skip
    assert parts("train_images", "test") == {"train_images": "train", "test": "test"}
    assert parts("images_train", "images_test", "masks_train", "masks_test") == {
        "images_train": "train", "images_test": "test",
        "masks_train": "masks_train", "masks_test": "masks_test",
    }  # fmt: skip
    assert parts("trainA", "trainB", "testA", "testB") == {
        "trainA": "train:A", "trainB": "train:B", "testA": "test:A", "testB": "test:B"
    }  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [(), ("cat", "dog"), ("train", "car", "bus"), ("train_station", "test_tube"), ("test_tube",), ("extra",),
     ("extra", "pred"), ("train_1", "train_2"), ("猫_train", "狗_test")],
)  # fmt: skip
def test_folders_that_are_none(names: tuple[str, ...]):
    assert parts(*names) == {}


def test_parts_that_are_used():
    sizes = {"train": 5, "validation": 2, "test": 3}
    assert chosen(sizes, None, None, "SET") == Parts(("train",), "validation")
    assert chosen(sizes, None, "none", "SET") == Parts(("train",), None)
    assert chosen(sizes, None, "test", "SET") == Parts(("train",), "test")
    assert chosen(sizes, None, "dev2|test|none", "SET") == Parts(("train",), "test")
    assert chosen({"train": 5}, None, "test|none", "SET") == Parts(("train",), None)
    assert chosen_by_name({"train": 5, "valid": 1}, None, "valid|none", "SET") == Parts(("train",), "valid")
    assert chosen(sizes, "train+val", None, "SET") == Parts(("train", "validation"), "test")
    assert chosen(sizes, "all", None, "SET") == Parts(("train", "validation", "test"), None)
    assert chosen({"train": 5, "test": 3}, None, None, "SET") == Parts(("train",), "test")
    assert chosen({"train": 5, "validation": 0, "test": 3}, None, None, "SET") == Parts(("train",), "test")
    assert chosen({"test": 3}, None, None, "SET") == Parts(("test",), None)
    assert chosen({}, None, None, "SET") == Parts((), None)
    for split, validation_split, message in (
        ("dev2", None, r"data\.split=dev2: there is no such part; there are train, validation, test"),
        ("trian", None, r"data\.split=trian: there is no such part; .*\(did you mean train\?\)$"),
        ("zzz", None, r"data\.split=zzz: there is no such part; there are train, validation, test$"),
        ("test", "test", r"data\.validation_split=test: it is trained on"),
        (None, "nowhere", r"data\.validation_split=nowhere: there is no such part"),
        (None, "dev2|nowhere", r"data\.validation_split=nowhere: there is no such part"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen(sizes, split, validation_split, "SET")
    with pytest.raises(ValueError, match=r"data\.validation_split=val: it holds no images; .*of test, or"):
        chosen({"train": 5, "validation": 0, "test": 3}, None, "val", "SET")
    with pytest.raises(ValueError, match=r"data\.path=SET: its part train holds no images"):
        chosen({"train": 0, "test": 3}, None, None, "SET")
    with pytest.raises(ValueError, match=r"its parts are validation, test, and none is called train"):
        chosen({"validation": 1, "test": 3}, None, None, "SET")


def test_an_empty_part_names_the_key_and_those_that_are_not_empty():
    with pytest.raises(ValueError, match=r"train holds no images; choose by data\.split another of test$"):
        chosen({"train": 0, "validation": 0, "test": 3}, None, None, "PATH")
