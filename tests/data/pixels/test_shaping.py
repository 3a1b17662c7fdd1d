import pytest

from ddpm.data.pixels.shaping import Shaping, check_channels, parse_range, parse_size
from ddpm.data.settings import ImageSettings
from ddpm.data.sources.arrays import Arrays


def test_sizes():
    assert parse_size(32) == (32, 32)
    assert parse_size([32, 48]) == (32, 48)
    with pytest.raises(ValueError, match=r"data\.image_size=\[8, 100000\]: at most 8,192 pixels a side"):
        parse_size([8, 100000])
    for bad in (0, -1, [32, 0], [32], [1, 2, 3], "32", "ab", 3.5, [3.5, 2], True, [True, 2], None):
        with pytest.raises(ValueError, match=r"data\.image_size="):
            parse_size(bad)


def test_channels():
    for good in (None, 1, 3, 5, 255):
        check_channels(good)
    for bad in (0, -1, 256, "3", True, 1.0):
        with pytest.raises(ValueError, match=r"data\.channels="):
            check_channels(bad)


def test_ranges():
    assert parse_range(None) is None
    assert parse_range([0, 1]) == (0.0, 1.0)
    assert parse_range((-1, 4095.5)) == (-1.0, 4095.5)
    for bad in (
        [1, 0],
        [1, 1],
        [1],
        [0, 1, 2],
        [0, float("inf")],
        [float("nan"), 1],
        "01",
        ["0", "1"],
        [False, True],
    ):
        with pytest.raises(ValueError, match=r"data\.value_range="):
            parse_range(bad)


def test_random_parts_are_seven_eighths_of_what_is_stored():
    assert Shaping((28, 56), crop="random").stored == (32, 64)
    assert Shaping((224, 224), crop="random").stored == (256, 256)
    assert Shaping((1, 1), crop="random").stored == (2, 2)
    for crop in ("center", "none"):
        assert Shaping((28, 56), crop=crop).stored == (28, 56)
    assert Shaping(crop="random").stored is None


def test_what_is_shown_at_a_time_is_as_large_as_is_asked():
    assert Shaping((28, 56), crop="random").window == (28, 56)
    assert Shaping((28, 56)).window is None
    assert Shaping().window is None


def test_parts_of_images_that_are_not_resized_are_refused():
    with pytest.raises(ValueError, match=r"data\.crop=random needs data\.image_size"):
        ImageSettings(crop="random")
    with pytest.raises(ValueError, match=r"data\.crop=random needs data\.image_size"):
        Arrays("x.npz", crop="random")
    assert Arrays("x.npz", crop="random", image_size=8).shaping.window == (8, 8)
