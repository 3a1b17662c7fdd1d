"""Images as files that other programs read: plain pictures under names that every file system takes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.sampling.image_files import MOST_OF_A_NAME, names, safe, write_images


def test_names_sort_as_the_images_are_numbered():
    assert names(2) == ["000000.png", "000001.png"]
    assert names(3, ["cat", None, "dog"]) == ["000000_cat.png", "000001.png", "000002_dog.png"]
    many = names(1_000_001)
    assert many[17] == "0000017.png"
    assert many[-1] == "1000000.png"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("golden retriever", "golden_retriever"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("a:b*c?\n\0", "a_b_c_"),
        ("猫", "猫"),
        ("\udcff", "_"),
    ],
)
def test_the_name_of_a_class_is_made_safe(name: str, expected: str, tmp_path: Path):
    assert safe(name) == expected
    (file,) = names(1, [name])
    (tmp_path / file).touch()
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_a_long_name_is_cut_between_letters():
    assert safe("猫" * 200) == "猫" * (MOST_OF_A_NAME // 3)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_files_are_plain_pictures(channels: int, mode: str, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, channels), dtype=np.uint8)
    done: list[int] = []
    write_images(tmp_path / "images", [images[:2], images[2:]], names(5), done.append)
    assert done == [1, 2, 3, 4, 5]
    for image, file in zip(images, sorted((tmp_path / "images").iterdir()), strict=True):
        with Image.open(file) as picture:
            assert picture.mode == mode
            assert picture.info == {}
            assert np.array_equal(np.asarray(picture).reshape(image.shape), image)
