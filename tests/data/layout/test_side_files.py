"""Files of labels and captions beside images: what they say, when they are believed, what is refused."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laid_out import by_class, images, laid_out, meant, under

from ddpm.data.layout.decision import Asked, decide
from ddpm.data.layout.labels import text
from ddpm.data.layout.names import sort

FLAT = images("", n=4)
ANIMALS = ["cat", "dog", "cat", "dog"]
EXPECTED = {"0.png": "cat", "1.png": "dog", "2.png": "cat", "3.png": "dog"}


def table(*columns: tuple[str, list], delimiter: str = ",") -> str:
    header = delimiter.join(name for name, _ in columns)
    rows = zip(*(values for _, values in columns), strict=True)
    return "\n".join([header, *(delimiter.join(map(str, row)) for row in rows)]) + "\n"


def parquet(rows: dict) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(rows), buffer)
    return buffer.getvalue()


def coco(names: list[str], categories: list[list[int]], captions: list[str] | None = None) -> dict:
    return {
        "images": [{"id": 10 + i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": 10 + i, "category_id": category, "bbox": [0, 0, 1, 1]}
            for i, of_image in enumerate(categories)
            for category in of_image
        ]
        + [{"image_id": 10 + i, "caption": caption} for i, caption in enumerate(captions or [])],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


STEMS = ["0", "1", "2", "3"]
SAID = {
    "metadata.csv": table(("file_name", FLAT), ("label", ANIMALS)),
    "metadata.jsonl": "".join(
        json.dumps({"file_name": name, "label": label, "boxes": [1]}) + "\n"
        for name, label in zip(FLAT, ANIMALS, strict=True)
    ),
    "metadata.parquet": parquet({"file_name": FLAT, "label": ANIMALS}),
    "labels.csv": table(("id", STEMS), ("breed", ANIMALS)),
    "other.tsv": table(("what", ANIMALS), ("Image ID", FLAT), delimiter="\t"),
    "train.csv": table(("", STEMS), ("image", FLAT), ("category", ANIMALS)),
    "excel.csv": "\ufeff"
    + table(("image_path", [f"C:\\data\\{name}" for name in FLAT]), ("y", ANIMALS), delimiter=";"),
    "class_labels.txt": "".join(f"{name} {label}\n" for name, label in EXPECTED.items()),
    "annotations.json": coco(FLAT, [[1], [2], [1, 1], [2]]),
    "annotations/instances_all.json": coco([f"somewhere/{name}" for name in FLAT], [[1], [2], [1], [2]]),
    "dataset.json": {"labels": [[name, label] for name, label in EXPECTED.items()]},
    "GroundTruth.csv": table(
        ("image", STEMS), ("cat", ["1.0", "0.0", "1.0", "0.0"]), ("dog", ["0.0", "1.0", "0.0", "1.0"])
    ),
}


@pytest.mark.parametrize("file", SAID)
def test_a_file_says_the_classes(file: str):
    assert meant(FLAT, files={file: SAID[file]}) == (EXPECTED, None)
    _, found = laid_out(FLAT, files={file: SAID[file]})
    assert found.understood[2] == file
    # folders mean nothing beside it, unless they are asked for
    names = [f"{'ab'[i % 2]}/{name}" for i, name in enumerate(FLAT)]
    if "annotations/" not in file and file != "excel.csv":
        by_file = {names[i]: ANIMALS[i] for i in range(4)}
        assert meant(names, files={file: SAID[file]}) == (by_file, None)
    assert by_class(names, files={file: SAID[file]}, labels="folders") == [{"a": 2, "b": 2}, None]
    assert by_class(names, files={file: SAID[file]}, labels="none") == [{None: 4}, None]
    assert meant(FLAT, files={file: SAID[file]}, labels=file) == (EXPECTED, None)


def test_edm():
    names = [f"{i // 2:05}/img{i:08}.png" for i in range(6)]
    files = {"dataset.json": {"labels": [[name, i % 3] for i, name in enumerate(names)]}}
    assert meant(names, files=files) == ({name: str(i % 3) for i, name in enumerate(names)}, None)
    hot = {
        "dataset.json": {
            "labels": {name: [float(i % 3 == k) for k in range(3)] for i, name in enumerate(names)}
        }
    }
    assert meant(names, files=hot) == meant(names, files=files)
    for none in (
        {"labels": None},
        {"labels": [[name, [0.5, 0.25]] for name in names]},
        {"something": "else"},
    ):
        assert by_class(names, files={"dataset.json": none}) == [{None: 6}, None]
    _, found = laid_out(names, files={"dataset.json": {"labels": [[name, [0.5, 0.25]] for name in names]}})
    assert (
        "dataset.json gives 6 numbers that are no class" in found.understood[2]
        or "6 images" in found.understood[2]
    )


def test_in_a_wrapper_and_in_parts():
    files = {"data/labels.csv": table(("id", STEMS), ("label", ANIMALS))}
    assert by_class(under("data/pictures", names=FLAT), files=files) == [{"cat": 2, "dog": 2}, None]
    names = under("train", "valid", names=FLAT)
    files = {
        f"{part}/_annotations.coco.json": coco(FLAT, [[1], [2], [1], [2]]) for part in ("train", "valid")
    }
    assert by_class(names, files=files) == [{"cat": 2, "dog": 2}] * 2
    files = {f"{part}/metadata.csv": SAID["metadata.csv"] for part in ("train", "valid")}
    assert by_class(names, files=files) == [{"cat": 2, "dog": 2}] * 2
    files = {"metadata.csv": table(("file_name", names), ("label", ANIMALS * 2))}
    assert by_class(names, files=files) == [{"cat": 2, "dog": 2}] * 2
    files = {
        f"annotations/instances_{part}2017.json": coco(FLAT, [[1], [2], [1], [2]])
        for part in ("train", "val")
    }
    names = under("images/train2017", "images/val2017", names=FLAT)
    assert (
        by_class(names, files=files | {"annotations/nothing.csv": "a,b\n1,2\n"}) == [{"cat": 2, "dog": 2}] * 2
    )
    names = under("train2017", "val2017", names=FLAT)
    assert by_class(names, files=files) == [{"cat": 2, "dog": 2}] * 2


def test_kaggle():
    names = [*under("train", names=FLAT), *under("test", names=images("", n=6))]
    labels = table(("id", STEMS), ("label", ANIMALS))
    submission = table(("id", range(6)), ("label", ["cat"] * 3 + ["dog"] * 3))
    for file in ("trainLabels.csv", "train.csv", "train/labels.csv"):
        files = {file: labels, "sample_submission.csv": submission}
        assert by_class(names, files=files) == [{"cat": 2, "dog": 2}, None]
        _, found = laid_out(names, files=files)
        assert found.understood == ("the folder train/", "a share: the folder test/ has no labels", file)
        with pytest.raises(ValueError, match=r"data\.validation_split=test: the folder test/ has no labels"):
            laid_out(names, files=files, validation_split="test")


def test_tiny_imagenet():
    classes = ["n01443537", "n01629819"]
    train = images(*(f"tiny/train/{name}/images" for name in classes), end="JPEG")
    names = [*train, *images("tiny/val/images", n=4, end="JPEG"), *images("tiny/test/images", end="JPEG")]
    annotations = "".join(f"{i}.JPEG\t{classes[i % 2]}\t0\t32\t44\t62\n" for i in range(4))
    files = {
        "tiny/val/val_annotations.txt": annotations,
        "tiny/wnids.txt": "\n".join(classes),
        "tiny/words.txt": "n01443537\tgoldfish\n",
        **{f"tiny/train/{name}/{name}_boxes.txt": "0.JPEG\t0\t10\t63\t58\n" for name in classes},
    }
    assert by_class(names, files=files) == [dict.fromkeys(classes, 2)] * 2
    _, found = laid_out(names, files=files)
    assert found.understood[2] == "tiny/val/val_annotations.txt and the folders"


def test_a_table_of_several_columns():
    two = table(("id", STEMS), ("age", [3, 4, 3, 4]), ("colour", ["red", "red", "blue", "blue"]))
    _, found = laid_out(FLAT, files={"about.csv": two})
    assert found.classes is None
    assert "about.csv has several columns that may be labels (age, colour)" in found.understood[2]
    assert "data.label_column=" in found.understood[2]
    assert by_class(FLAT, files={"about.csv": two}, label_column="colour") == [{"red": 2, "blue": 2}, None]
    with pytest.raises(ValueError, match=r"data\.label_column=size labels no image .*age, colour"):
        laid_out(FLAT, files={"about.csv": two}, label_column="size")
    with pytest.raises(ValueError, match=r"data\.label_column=size labels no image .*there is no table"):
        laid_out(FLAT, label_column="size")
    same = table(("id", STEMS), ("class_id", [0, 1, 0, 1]), ("class_name", ANIMALS))
    assert meant(FLAT, files={"about.csv": same}) == (EXPECTED, None)


@pytest.mark.parametrize(
    "contents",
    [
        "ClassId,Name\n0,stop\n1,go\n",
        "name\n0.png\n1.png\n2.png\n3.png\n",
        table(("image_id", FLAT), ("partition", [0, 0, 1, 1])),
        table(("image_id", FLAT), ("width", [5, 5, 6, 6]), ("height", [5, 5, 6, 6])),
        table(("image_id", FLAT), ("score", [0.5, 0.5, 0.25, 0.25])),
        table(("image_id", FLAT), ("kind", ["one"] * 4)),
        "",
        "\n\n",
        b"\x00\xff\xfe\x00",
    ],
)
def test_tables_that_are_no_labels(contents: str | bytes):
    assert by_class(FLAT, files={"list.csv": contents}) == [{None: 4}, None]


REFUSED = {
    "labels none of the images": (
        {"labels.csv": table(("file_name", ["x.png", "y.png"]), ("label", [1, 2]))}, {}
    ),
    "labels.csv: no label for 1 image of 4, first 3.png": (
        {"labels.csv": table(("id", STEMS[:3]), ("label", ANIMALS[:3]))}, {}
    ),
    "has two labels for 0.png: cat and dog": (
        {"labels.csv": table(("id", [*STEMS, "0"]), ("label", [*ANIMALS, "dog"]))}, {}
    ),
    "give 0.png other labels": (
        {"a.csv": table(("id", STEMS), ("label", ANIMALS)),
         "b.csv": table(("id", STEMS), ("label", ANIMALS[::-1]))}, {}
    ),
    "dataset.json cannot be read": ({"dataset.json": "{"}, {}),
    "metadata.parquet cannot be read": ({"metadata.parquet": b"PAR1"}, {}),
    "there is no such file": ({}, {"labels": "labels.csv"}),
    "says nothing about the images": ({"labels.csv": "a,b\n7,8\n"}, {"labels": "labels.csv"}),
    "labels no image": ({"labels.csv": "id\n0\n1\n2\n3\n"}, {"labels": "labels.csv"}),
    "none of the images": (
        {"labels.csv": table(("id", ["8.png", "9.png"]), ("label", [1, 2]))}, {"labels": "labels.csv"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_labels_that_do_not_fit_are_refused(message: str):
    files, asked = REFUSED[message]
    with pytest.raises(ValueError, match=message) as refused:
        laid_out(FLAT, files=files, **asked)
    assert "data.labels=" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert by_class(FLAT, files=files, labels="none") == [{None: 4}, None]


def test_labels_of_what_is_not_there_are_counted():
    contents = table(("id", [*STEMS, "8", "9"]), ("label", [*ANIMALS, "cow", "cow"]))
    every, found = laid_out(FLAT, files={"labels.csv": contents})
    assert {every[i]: name for i, name in found.classes.items()} == EXPECTED
    assert found.understood[2] == "labels.csv; labels.csv names 2 images not there"


def test_a_stray_needs_no_label():
    names = [*under("pictures", names=FLAT), "cover.png"]
    files = {"labels.csv": table(("id", STEMS), ("label", ANIMALS))}
    every, found = laid_out(names, files=files)
    assert {every[i] for i in found.train} == set(names) - {"cover.png"}
    assert [every[i] for i in found.left_out] == ["cover.png"]


def test_one_of_several_images_of_a_name():
    names = ["a/1.png", "b/1.png", "a/2.png", "b/2.png"]
    with pytest.raises(ValueError, match=r"labels\.csv says 1, which may be any of a/1\.png, b/1\.png"):
        laid_out(names, files={"labels.csv": table(("id", [1, 2]), ("label", ["x", "y"]))})
    contents = table(("id", ["a/1", "b/1", "a/2.png", "b/2.jpg"]), ("label", list("xyxy")))
    assert by_class(names, files={"labels.csv": contents}) == [{"x": 2, "y": 2}, None]


def test_several_categories_of_an_image():
    files = {"annotations.json": coco(FLAT, [[1], [2], [1, 2], [2]])}
    _, found = laid_out(FLAT, files=files)
    assert found.classes is None
    assert "annotations.json gives 1 image several classes" in found.understood[2]
    names = under("a", "b", names=FLAT)
    files = {"annotations.json": coco(names, [[1, 2]] * 8)}
    assert by_class(names, files=files) == [{"a": 4, "b": 4}, None]


def captions(names: list[str], files: dict, **asked: object) -> dict:
    every, found = laid_out(names, files=files, **asked)
    return {every[i]: text for i, text in found.captions.items()}


def test_captions():
    words = [f"a picture of a {name}" for name in ANIMALS]
    expected = dict(zip(FLAT, words, strict=True))
    beside = dict(zip(STEMS, words, strict=True))
    assert captions(FLAT, {f"{one}.txt": f"{text}\n" for one, text in beside.items()}) == expected
    assert captions(FLAT, {f"{one}.caption": text for one, text in beside.items()}) == expected
    written = {f"{one}.json": {"caption": text, "url": "x"} for one, text in beside.items()}
    assert captions(FLAT, written) == expected
    assert captions(FLAT, {"metadata.csv": table(("file_name", FLAT), ("text", words))}) == expected
    assert captions(FLAT, {"captions.json": coco(FLAT, [], words)}, labels="none") == expected
    both = {"metadata.csv": table(("file_name", FLAT), ("text", words), ("label", ANIMALS))}
    assert captions(FLAT, both) == expected
    assert meant(FLAT, files=both) == (EXPECTED, None)
    assert captions(FLAT, {f"{one}.txt": "0 0.5 0.5 0.1 0.2\n1 0.5 0.5 0.1 0.2\n" for one in STEMS}) == {}
    assert captions(FLAT, {"0.txt": words[0], "1.txt": ""}) == {"0.png": words[0]}


def test_labels_beside_images():
    files = {f"{one}.cls": f"{label}\n" for one, label in zip(STEMS, ANIMALS, strict=True)}
    assert meant(FLAT, files=files) == (EXPECTED, None)
    with pytest.raises(ValueError, match=r"the \.cls files beside the images: no label for 1 image of 4"):
        laid_out(FLAT, files=dict(list(files.items())[:3]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*FLAT, *STEMS, "cat"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["labels", "images", "annotations", "categories", "id", "image_id", "file_name",
                             "category_id", "caption", "name", "0.png"]),
            inner, max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["dataset.json", "coco.json", "0.json"]), JSON)
def test_any_json_is_labels_or_not_or_one_message(file: str, contents: object):
    outcome(file, json.dumps(contents))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([file for file in SAID if not file.startswith("annotations/")]),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=4),
    st.none() | st.integers(0, 400),
)
def test_damage_is_labels_or_not_or_one_message(file: str, changes: list[tuple[int, bytes]], cut: int | None):
    whole = SAID[file]
    changed = bytearray(
        whole
        if isinstance(whole, bytes)
        else (whole if isinstance(whole, str) else json.dumps(whole)).encode()
    )
    for place, change in changes:
        changed[place : place + len(change)] = change
    outcome(file, bytes(changed[:cut]))


def outcome(file: str, contents: str | bytes) -> None:
    message = ""
    try:
        _, found = laid_out(FLAT, files={file: contents})
    except ValueError as refused:
        message = str(refused)
    if message:
        assert message.startswith((f"data.path=SET: {file} ", f"data.path=SET: {file}: "))
        assert "\n" not in message
    elif found.classes is not None:
        assert sorted(found.classes) == [0, 1, 2, 3]


def test_a_name_that_may_be_an_image_of_two_parts_is_refused_and_one_part_alone_is_not():
    """Contests number the images of each part anew."""
    names = [f"{part}/{i}.png" for part in ("train", "test") for i in range(4)]
    files = {"labels.csv": table(("id", STEMS), ("breed", ANIMALS))}
    with pytest.raises(
        ValueError, match=r"says 0, which may be any of train/0\.png, test/0\.png.*_split=none"
    ):
        meant(names, files=files)
    train, validation = meant(names, files=files, validation_split="none")
    assert list(train.values()) == ANIMALS
    assert validation is None


def test_a_file_of_all_parts_labels_each_of_them():
    names = [f"train/{i}.png" for i in range(2)] + [f"test/{i}.png" for i in range(2, 4)]
    train, validation = meant(names, files={"labels.csv": table(("id", STEMS), ("breed", ANIMALS))})
    assert list(train.values()) == ANIMALS[:2]
    assert list(validation.values()) == ANIMALS[2:]
    _, found = laid_out(names, files={"labels.csv": table(("id", STEMS), ("breed", ANIMALS))})
    assert found.understood[2] == "labels.csv"  # and that none of its images is missing


def test_a_table_of_images_that_are_not_used_labels_nothing_and_is_no_reason_to_refuse():
    """As in GTSRB, where a picture of each class lies beside the parts."""
    names = [*under("Train", "Test"), *images("Meta", n=2)]
    meta = table(("Path", ["Meta/0.png", "Meta/1.png"]), ("ClassId", ["5", "6"]))
    assert by_class(names, files={"Meta.csv": meta}) == [{"cat": 2, "dog": 2}, {"cat": 2, "dog": 2}]


@pytest.mark.parametrize("other", ["id", "Unnamed: 0", ""])
def test_numbers_of_rows_are_no_names_of_images(other: str):
    names = [FLAT[i] for i in (1, 0, 3, 2)]
    for values in ([name.removesuffix(".png") for name in names], names):
        rows = table((other, STEMS), ("image_id", values), ("label", ANIMALS))
        train, _ = meant(FLAT, files={"labels.csv": rows})
        assert train == dict(zip(names, ANIMALS, strict=True))


def test_where_two_columns_may_name_the_images_this_is_said():
    shifted = ["1", "2", "3", "0"]
    rows = table(("row", STEMS), ("number", shifted), ("label", ANIMALS))
    _, found = laid_out(FLAT, files={"labels.csv": rows})
    assert found.classes is None
    assert "several columns that may name the images (row, number)" in found.understood[2]
    with pytest.raises(ValueError, match=r"label_column=label labels no .*may name .*call the one file_name"):
        laid_out(FLAT, files={"labels.csv": rows}, label_column="label")
    same = table(("row", STEMS), ("number", STEMS), ("has_it", ["0", "1", "0", "1"]))
    assert by_class(FLAT, files={"labels.csv": same}) == [{"0": 2, "1": 2}, None]


@pytest.mark.parametrize("end", ["txt", "cls"])
def test_files_beside_images_are_read_in_the_order_in_which_they_lie(end: str):
    """A compressed archive is read anew to go back: in any other order that takes the square of its size."""
    beside_first = [f"{i}.{end}" for i in (2, 0, 3, 1)]
    names, read = [*FLAT, *beside_first], []
    decide(names, sort(names), [], Asked("SET"), lambda index: read.append(index) or b"cat")
    assert read
    assert read == sorted(read)


@pytest.mark.parametrize(
    ("value", "said"),
    [(True, "True"), (2.0, "2"), (0.5, "0.5"), (" a ", "a"), (float("nan"), ""), (None, ""), ([1], "")],
)
def test_a_class_is_called_as_in_any_table(value: object, said: str):
    assert text(value) == said


def test_blanks_behind_commas_do_not_count():
    """As Roboflow writes one column a class."""
    rows = "filename, cat, dog\n0.png, 1, 0\n1.png, 0, 1\n2.png, 1, 0\n3.png, 0, 1\n"
    train, _ = meant(FLAT, files={"_classes.csv": rows})
    assert train == EXPECTED


CHINESE = ["猫", "狗", "猫", "狗"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_a_table_of_chinese_classes_is_read_in_the_encoding_that_it_is_in(encoding: str):
    said = table(("file_name", FLAT), ("label", CHINESE)).encode(encoding)
    assert meant(FLAT, files={"标签.csv": said}) == (dict(zip(FLAT, CHINESE, strict=True)), None)
    _, found = laid_out(FLAT, files={"标签.csv": said})
    read_as = (
        "" if encoding.startswith("utf-8") else f"; 标签.csv read as {encoding.upper()}, not being UTF-8"
    )
    assert found.understood[2] == f"标签.csv{read_as}"


def test_other_files_in_the_encoding_of_chinese_windows():
    said = json.dumps({"labels": list(map(list, zip(FLAT, CHINESE, strict=True)))}, ensure_ascii=False)
    assert by_class(FLAT, files={"dataset.json": said.encode("gbk")}) == [{"狗": 2, "猫": 2}, None]
    beside = {f"{i}.cls": label.encode("gbk") for i, label in enumerate(CHINESE)}
    assert by_class(FLAT, files=beside) == [{"狗": 2, "猫": 2}, None]


def test_accented_letters_are_not_taken_for_chinese_ones():
    names = ["crème brûlée", "Füße", "crème brûlée", "Füße"]
    said = table(("file_name", FLAT), ("label", names)).encode("latin-1")
    assert by_class(FLAT, files={"labels.csv": said}) == [{"Füße": 2, "crème brûlée": 2}, None]


def test_a_file_that_is_asked_for_and_names_no_image_says_how_it_was_read():
    said = "图片,类别\n甲,猫\n乙,狗\n".encode("gbk")
    with pytest.raises(ValueError, match=r"标签.csv says nothing, read as GB18030, about the images"):
        laid_out(FLAT, files={"标签.csv": said}, labels="标签.csv")
