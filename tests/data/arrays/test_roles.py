"""Which array is what: names that people use, and random sets of them against the rules of the docs page."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.data.arrays.held import Held
from ddpm.data.arrays.roles import Part, roles, tokens

IMAGE_WORDS = ("x", "X", "images", "image", "imgs", "img", "data", "samples", "pixels", "inputs")
LABEL_WORDS = ("y", "Y", "labels", "label", "targets", "target", "ans", "cls", "classes")
PART_WORDS = {
    "train": ("train", "training", "Train", "tr", "trn"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "Test", "testing", "te", "t10k"),
}
STYLES = ("{role}_{part}", "{part}_{role}", "{part}-{role}-idx", "{part}_set_{role}", "{part}/{role}",
          "a/{part}_32x32/{role}", "split_{part}_{role}/{role}")  # fmt: skip


def held(name: str, shape: Sequence[int], dtype: str = "u1") -> Held:
    """An array that must not be read."""

    def read() -> np.ndarray:
        raise AssertionError(f"{name} was read")

    return Held(name, tuple(shape), np.dtype(dtype), read)


def named(part: Part) -> tuple[list[str], list[str] | None]:
    images = [one.held.name for one in part.images]
    return images, None if part.labels is None else [one.name for one in part.labels]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x_train", ["x", "train"]),
        ("XTrain", ["x", "train"]),
        ("Xtrain", ["train", "x"]),
        ("trainY", ["train", "y"]),
        ("trainlabels", ["train", "labels"]),
        ("testX", ["test", "x"]),
        ("trainv", ["train", "v"]),
        ("X_tr", ["x", "tr"]),
        ("train_32x32", ["train"]),
        ("train-images-idx3-ubyte", ["train", "images", "idx", "3", "ubyte"]),
        ("t10k-labels-idx1-ubyte", ["t10k", "labels", "idx", "1", "ubyte"]),
        ("training", ["training"]),
        ("extra", ["extra"]),
        ("display", ["display"]),
    ],
)
def test_words(name: str, words: list[str]):
    assert sorted(tokens(name)) == sorted(words)


class Set(NamedTuple):
    """Arrays, and what they mean."""

    arrays: list[Held]
    meant: dict[str, tuple[list[str], list[str] | None]]


@st.composite
def sets(draw: st.DrawFn) -> Set:
    """Parts, each with images and perhaps labels, named in one style, among arrays that are neither."""
    style = draw(st.sampled_from(STYLES))
    image_word, label_word = draw(st.sampled_from(IMAGE_WORDS)), draw(st.sampled_from(LABEL_WORDS))
    parts = draw(st.sets(st.sampled_from(sorted(PART_WORDS)), min_size=1))
    has_labels, pieces = draw(st.booleans()), draw(st.integers(1, 3))
    image_shape = draw(st.sampled_from([(8, 9), (8, 9, 3), (3, 8, 9), (8, 9, 1), (7, 7, 4), (64,), (192,)]))
    label_shape, label_type = draw(st.sampled_from([((), "i8"), ((1,), "u1"), ((10,), "f4"), ((), "U5")]))
    arrays, meant = [], {}
    for part in parts:
        word = draw(st.sampled_from(PART_WORDS[part]))
        images, labels = [], []
        for piece in range(1, pieces + 1):
            count = draw(
                st.integers(11, 90).filter(lambda n: n not in (16, 25, 36, 49, 64, 81, 12, 27, 48, 75))
            )
            end = f"_{piece}" if pieces > 1 else ""
            images.append(held(style.format(role=image_word, part=word) + end, (count, *image_shape)))
            labels.append(
                held(style.format(role=label_word, part=word) + end, (count, *label_shape), label_type)
            )
        arrays += images + (labels if has_labels else [])
        meant[part] = [one.name for one in images], [one.name for one in labels] if has_labels else None
    others = [held("mean", (8, 9, 3), "f4"), held("num_images", ()), held("notes", (5,), "U9"),
              held("weights", (3, 3, 3, 3, 3), "f4")]  # fmt: skip
    arrays += draw(st.lists(st.sampled_from(others), unique_by=lambda one: one.name))
    return Set(draw(st.permutations(arrays)), meant)


@settings(max_examples=300, deadline=None)
@given(sets())
def test_names_say_what_is_what(drawn: Set):
    found = roles(drawn.arrays, "F")
    assert {part: named(held) for part, held in found.parts.items()} == drawn.meant
    used = {name for images, labels in drawn.meant.values() for name in (*images, *(labels or ()))}
    spare = {one.name for one in drawn.arrays} - used
    assert {name for name, _ in found.unused} | {one.name for one in found.names} == spare


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.text(st.sampled_from("xXyYtrainesvl_/-0123 图"), min_size=1, max_size=12)
        | st.sampled_from(
            ["arr_0", "arr_1", "labels", "images", "x_train", "y_train", "classes", "label_names"]
        ),
        st.tuples(
            st.lists(st.sampled_from([0, 1, 2, 3, 4, 9, 10, 64]), max_size=5),
            st.sampled_from(["u1", "i8", "f4", "?", "c8", "U3", "S2", "M8[s]", "V4"]),
        ),
        max_size=6,
    ),
    st.none() | st.sampled_from(["x", "labels", "none", "arr_0", "*", "["]),
    st.none() | st.sampled_from(["y", "labels", "none", "arr_1", "*"]),
)
def test_any_arrays_give_an_answer_or_a_message(
    drawn: dict[str, tuple[list[int], str]], image_key: str | None, label_key: str | None
):
    arrays = [held(name, shape, dtype) for name, (shape, dtype) in drawn.items()]
    said = ""
    try:
        parts = roles(arrays, "F", image_key, label_key).parts
    except ValueError as error:
        parts, said = {}, str(error)
    keys = ("data.path=F: ", f"data.image_key={image_key}: ", f"data.label_key={label_key}: ")
    assert bool(parts) != (said.startswith(keys) and "\n" not in said)
    for part in parts.values():
        assert part.count > 0
        assert all(one.held.dtype.kind in "biuf" for one in part.images)


@pytest.mark.parametrize(
    ("arrays", "meant"),
    [
        # an array without a part is that to train on where none other is
        ({"x": (20, 8, 8), "y": (20,), "x_test": (9, 8, 8), "y_test": (9,)},
         {"train": (["x"], ["y"]), "test": (["x_test"], ["y_test"])}),
        # names of arrays say it better than shapes
        ({"images": (20, 8, 8, 3), "masks": (20, 8, 8), "y": (20,)}, {"train": (["images"], ["y"])}),
        ({"a": (20, 8, 8, 3), "b": (20,)}, {"train": (["a"], ["b"])}),
        ({"images": (20, 8, 8, 3), "ids": (20,)}, {"train": (["images"], None)}),
        ({"data": (20, 64), "x": (20, 8, 8)}, {"train": (["x"], None)}),
        # the number of labels says where images are counted
        ({"X": (8, 8, 3, 20), "y": (20, 1)}, {"train": (["X"], ["y"])}),
        ({"X": (8, 9, 20), "y": (1, 20)}, {"train": (["X"], ["y"])}),
        ({"data": (64, 20), "label": (1, 20)}, {"train": (["data"], ["label"])}),
        # pieces are put together in natural order
        ({"b_10/x": (3, 8, 8), "b_9/x": (4, 8, 8), "b_10/y": (3,), "b_9/y": (4,)},
         {"train": (["b_9/x", "b_10/x"], ["b_9/y", "b_10/y"])}),
        ({"x_1": (3, 8, 8), "x_2": (4, 8, 8), "labels": (7,)}, {"train": (["x_1", "x_2"], ["labels"])}),
        # labels whose other words are those of the images
        ({"a_x": (20, 8, 8), "a_y": (20,), "b_y": (20,)}, {"train": (["a_x"], ["a_y"])}),
        ({"data": (20, 8, 8), "coarse_labels": (20,), "fine_labels": (20,)},
         {"train": (["data"], ["fine_labels"])}),
        # an innermost part wins
        ({"train_and_test/x_train": (20, 8, 8), "train_and_test/x_test": (9, 8, 8)},
         {"train": (["train_and_test/x_train"], None), "test": (["train_and_test/x_test"], None)}),
        ({"train/x": (20, 8, 8), "more/x": (9, 8, 8)},
         {"train": (["train/x"], None), "more": (["more/x"], None)}),
    ],
)  # fmt: skip
def test_rules(arrays: dict[str, tuple[int, ...]], meant: dict[str, tuple[list[str], list[str] | None]]):
    found = roles([held(name, shape) for name, shape in arrays.items()], "F")
    assert {part: named(held) for part, held in found.parts.items()} == meant


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"x_a": (20, 8, 8), "x_b": (20, 8, 8)},
            r"data\.path=F: several .* x_a .*, x_b .*data\.image_key=x_a$",
        ),
        ({"arr_0": (20, 8, 8), "arr_1": (9, 8, 8)}, r"data\.path=F: several .*data\.image_key=arr_0$"),
        ({"x": (20, 8, 8), "y": (19,)}, r"data\.path=F: labels and images do not fit: y uint8 \[19\] for x "),
        (
            {"x": (20, 8, 8), "y": (20,), "label": (20,)},
            r"data\.path=F: several .* labels of x, .*label_key=y,",
        ),
        ({"x": (8, 8, 3), "y": (8,)}, r"data\.path=F: none of its arrays are images"),
        ({"x": (0, 8, 8, 3)}, r"data\.path=F: none of its arrays are images"),
        ({"x": (1, 2, 8, 8, 3)}, r"data\.path=F: none of its arrays are images"),
        ({f"a{i}_": (2,) for i in range(50)}, r"data\.path=F: none .* and 30 others;"),
        ({}, r"data\.path=F: none of its arrays are images.*it holds nothing"),
    ],
)
def test_what_is_refused(arrays: dict[str, tuple[int, ...]], said: str):
    with pytest.raises(ValueError, match=f"^{said}"):
        roles([held(name, shape) for name, shape in arrays.items()], "F")


def test_images_that_are_asked_for_as_labels_are_refused():
    arrays = [held("x_train", (4, 8, 8)), held("y_train", (4,)), held("other", (4,))]
    with pytest.raises(ValueError, match=r"data\.label_key=x_train: .* which are images; it holds"):
        roles(arrays, "PATH", label_key="x_train")
