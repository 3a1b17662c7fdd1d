"""The contact sheet: which images of which class stand where, under which name."""

from typing import Any

import numpy as np
import pytest
import torch

from ddpm.data.images import DataSet, ImageSet
from ddpm.sampling import contact_sheet as module
from ddpm.sampling.captions import CAPTION, caption
from ddpm.sampling.contact_sheet import BACKGROUND, GAP, IN_A_ROW, PADDING, ROWS, contact_sheet
from ddpm.sampling.figures import enlarged, grid


def numbered(n: int, num_classes: int | None = None, first: int = 0) -> ImageSet:
    """Grey images, each of one level that tells which one it is."""
    levels = (first + np.arange(n)) % 256
    images = np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (n, 1, 8, 8))
    return ImageSet(np.ascontiguousarray(images), None if num_classes is None else np.arange(n) % num_classes)


def levels(sheet: np.ndarray, left: int, top: int, width: int, columns: int) -> list[int | None]:
    """The levels of a row's images; None for an empty cell."""
    row = sheet[top + 3, left : left + columns * (width + PADDING) : 1, 0]
    found = [int(row[column * (width + PADDING) + width // 2]) for column in range(columns)]
    return [None if level == BACKGROUND else level for level in found]


def test_a_row_shows_its_class_from_all_over_the_set_and_what_is_held_out_apart():
    data_set = DataSet(numbered(60, num_classes=2), numbered(5, num_classes=2, first=200), ["cat", "dog"])
    sheet = contact_sheet(data_set)
    assert sheet is not None
    columns = list(IN_A_ROW.values())
    assert columns == [12, 3]
    held_out = sheet.shape[1] - columns[1] * 66
    trained = held_out - GAP - columns[0] * 66
    for label in range(2):
        top = CAPTION + PADDING + label * 66
        shown = levels(sheet, trained, top, 64, 12)
        assert shown == [2 * (i * 30 // 12) + label for i in range(12)]
        expected = [200, 202, 204] if label == 0 else [201, 203, None]
        assert levels(sheet, held_out, top, 64, 3) == expected
        width = trained - PADDING
        name, note = caption(["cat", "dog"][label], width, BACKGROUND, "l"), sheet[top + CAPTION :][:CAPTION]
        assert np.array_equal(sheet[top : top + CAPTION, :width], name)
        counts = caption(["30 + 3", "30 + 2"][label], width, BACKGROUND, "l")
        assert np.array_equal(note[:, :width], counts)
    assert np.array_equal(sheet[:CAPTION, held_out:], caption("held out", 3 * 66, BACKGROUND, "l"))


def test_classes_beyond_the_last_row_are_counted():
    names = [f"class {i}" for i in range(ROWS + 3)]
    some, all_ = (contact_sheet(DataSet(numbered(46, num_classes=n), numbered(0, num_classes=n), names[:n]))
                  for n in (ROWS, ROWS + 3))  # fmt: skip
    assert some is not None
    assert all_ is not None
    assert all_.shape[0] == some.shape[0] + CAPTION + PADDING
    assert np.array_equal(all_[-CAPTION - PADDING : -PADDING],
                          caption("and 3 more classes", all_.shape[1], BACKGROUND, "l"))  # fmt: skip


def test_long_names_take_no_more_than_their_place():
    names = ["a" * 500, "海" * 300]
    sheet = contact_sheet(DataSet(numbered(4, num_classes=2), numbered(0), names))
    assert sheet is not None
    assert sheet.shape[1] <= module.MOST_NAME + 2 + 12 * 66


def test_without_classes_it_is_a_grid_from_all_over_the_set():
    sheet = contact_sheet(DataSet(numbered(200), numbered(10)))
    chosen = np.arange(64) * 200 // 64
    assert np.array_equal(sheet, grid(torch.from_numpy(numbered(200).images[chosen])))


def test_of_a_stream_the_held_out_images_are_shown():
    class Stream:
        image_shape = (1, 8, 8)

    stream: Any = Stream()
    sheet = contact_sheet(DataSet(stream, numbered(6, num_classes=2), ["a", "b"]))
    assert sheet is not None
    assert levels(sheet, sheet.shape[1] - 3 * 66, CAPTION + PADDING, 64, 3) == [0, 2, 4]
    assert contact_sheet(DataSet(stream, numbered(0, num_classes=2), ["a", "b"])) is None


def test_the_middle_of_images_is_shown_where_training_shows_parts():
    images = np.zeros((4, 1, 10, 10), np.uint8)
    images[:, :, 1:9, 1:9] = 200
    whole = ImageSet(images, np.zeros(4, np.int64))
    sheet = contact_sheet(DataSet(whole, whole.subset(slice(0)), ["a"], window=(8, 8)))
    assert sheet is not None
    cell = sheet[CAPTION + PADDING :][:64, -12 * 66 :][:, :64]
    assert (cell == 200).all()


@pytest.mark.parametrize(("size", "shown"), [((128, 128), (128, 128)), ((129, 60), (65, 30)),
                                             ((300, 500), (75, 125)), ((8, 16), (32, 64))])  # fmt: skip
def test_large_images_are_reduced_and_small_ones_enlarged(size: tuple[int, int], shown: tuple[int, int]):
    images = np.random.RandomState(0).randint(0, 256, (3, 3, *size)).astype(np.uint8)
    cells = enlarged(torch.from_numpy(module._reduced(images)))
    assert cells.shape == (3, *shown, 3)
    assert abs(float(cells.mean()) - float(images.mean())) < 1
