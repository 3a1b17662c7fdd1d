"""Grids: pixels as they were, in their cells."""

import numpy as np
import pytest
import torch

from ddpm.diffusion.condition import Condition
from ddpm.sampling.captions import CAPTION, text_width
from ddpm.sampling.conditions import InTurn
from ddpm.sampling.figures import for_loggers, grid, sheet, table, to_uint8


def test_bytes_are_rounded_and_clipped():
    x = torch.tensor([-2.0, -1.0, 127 / 127.5 - 1, 0.0, 1.0, 2.0])
    assert to_uint8(x).tolist() == [0, 0, 127, 128, 255, 255]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(every.float() / 127.5 - 1), every)


def test_small_images_are_enlarged_by_whole_pixels():
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    canvas = grid(images, columns=3, padding=2)
    assert canvas.shape == (2 + 2 * 66, 2 + 3 * 66, 3)
    for i, image in enumerate(images):
        top, left = 2 + i // 3 * 66, 2 + i % 3 * 66
        cell = canvas[top : top + 64, left : left + 64]
        expected = image[0].numpy().repeat(8, 0).repeat(8, 1)
        assert all(np.array_equal(cell[..., channel], expected) for channel in range(3))


def test_captions_stand_above_their_images():
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    canvas = grid(images, captions=["cat", "", "a name that is far too long to fit above it"], columns=2)
    pitch = CAPTION + 64 + 2
    assert canvas.shape == (2 + 2 * pitch, 2 + 2 * 66, 3)
    for i, image in enumerate(images):
        top, left = 2 + i // 2 * pitch, 2 + i % 2 * 66
        above = canvas[top : top + CAPTION, left : left + 64]
        assert (above.max() > 200) == (i != 1)  # white text, or none
        cell = canvas[top + CAPTION : top + CAPTION + 64, left : left + 64]
        assert np.array_equal(cell[..., 0], image[0].numpy().repeat(8, 0).repeat(8, 1))


def test_large_colour_images_stay_as_they_are():
    images = torch.randint(0, 256, (2, 3, 100, 70), dtype=torch.uint8)
    canvas = grid(images, padding=1)
    assert canvas.shape == (102, 143, 3)
    assert np.array_equal(canvas[1:101, 1:71], images[0].permute(1, 2, 0).numpy())
    assert np.array_equal(canvas[1:101, 72:142], images[1].permute(1, 2, 0).numpy())


def test_a_table_says_what_its_rows_and_columns_are():
    cells = torch.randint(0, 100, (2, 3, 1, 8, 8), dtype=torch.uint8)
    canvas = table(cells, headings=["x_t", "", "x_0"], captions=["t = 5", "t = 10"])
    left = text_width("t = 10") + 2
    assert canvas.shape == (2 + CAPTION + 2 * 66, left + 2 + 3 * 66, 3)
    for i, row in enumerate(cells):
        top = 2 + CAPTION + i * 66
        assert canvas[top : top + 64, :left].max() > 200  # white text
        for k, cell in enumerate(row):
            start = left + 2 + k * 66
            assert (canvas[:CAPTION, start : start + 64].max() > 200) == (k != 1)
            shown = canvas[top : top + 64, start : start + 64, 0]
            assert np.array_equal(shown, cell[0].numpy().repeat(8, 0).repeat(8, 1))
    assert table(cells, headings=[""] * 3, captions=[""] * 2).shape == (2 + 2 * 66, 2 + 3 * 66, 3)


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((8, 8), (8, 8)), ((511, 300), (511, 300)), ((512, 300), (256, 150)), ((1024, 3), (341, 1))],
)
def test_loggers_show_large_images_averaged_over_whole_pixels(shape: tuple[int, int], shown: tuple[int, int]):
    images = torch.full((2, 3, *shape), 7, dtype=torch.uint8)
    images[:, :, 0] = 9
    smaller = for_loggers(images)
    assert (smaller.dtype, tuple(smaller.shape)) == (torch.uint8, (2, 3, *shown))
    assert smaller[0, 0, -1, -1] == 7


def test_a_sheet_for_loggers_has_conditions_of_the_same_size():
    class Conditioned:
        """A model that is conditioned on an image, as far as a sheet asks."""

        conditions = InTurn(Condition(torch.ones(1, 1, 512, 512)))
        is_conditioned, num_classes, classes, image_shape = True, None, None, (1, 512, 512)

    images = torch.zeros(1, 1, 512, 512, dtype=torch.uint8)
    assert sheet(Conditioned(), for_loggers(images)).shape[1] == 2 + 2 * 258
    assert sheet(Conditioned(), images).shape[1] == 2 + 2 * 514
