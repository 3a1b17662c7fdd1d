"""Folders that only count: pieces of a set, or classes that numbers name."""

import pytest

from ddpm.data.layout.shards import are_shards

PIECES = [
    {f"{k:02}000": [f"{1000 * k + i:05}" for i in range(1000)] for k in range(3)},
    {"0000": ["1"], "0001": ["2"]},
    {"part_1": ["a"], "part_2": ["a"]},
    {"batch1": ["0"], "batch10": ["0"], "batch2": ["1"]},
    {"images_001": ["x"], "images_012": ["y"]},
    {"HAM10000_images_part_1": ["x"], "HAM10000_images_part_2": ["y"]},
]
CLASSES = [
    {},
    {"00000": ["0", "1"]},
    {"00000": ["00000_00000"], "00001": ["00000_00000"]},
    {"00000": ["0"], "00001": ["0"]},
    {"0": ["1"], "1": ["2"]},
    {"0000": ["1"], "00001": ["2"]},
    {"0001": ["2"], "0002": ["1"]},
    {"0001": ["a"], "0002": ["b"]},
    {"0001": ["0001001", "0001002"], "0002": ["0002001", "0002002"]},
    {"0002": ["0002_c1_1"], "0007": ["0007_c1_2"]},
    {"0000": ["1"], "cat": ["2"]},
    {"class_1": ["a"], "class_2": ["b"]},
    {"part_1": ["a"], "other_2": ["b"]},
    {"٣٣٣٣": ["1"], "٣٣٣٤": ["2"]},
]


@pytest.mark.parametrize("stems", PIECES)
def test_pieces(stems: dict[str, list[str]]):
    assert are_shards(stems)
    assert are_shards(dict(reversed(stems.items())))


@pytest.mark.parametrize("stems", CLASSES)
def test_classes(stems: dict[str, list[str]]):
    assert not are_shards(stems)


def test_a_piece_may_lack_some():
    stems = {f"{k:05}": [f"img{10 * k + i:08}" for i in range(10) if i != 3] for k in range(3)}
    assert are_shards(stems)
    assert are_shards(stems | {"00001": ["img00000010"]})
