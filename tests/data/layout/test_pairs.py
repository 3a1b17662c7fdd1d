"""Which images belong together: by relative path, then by name."""

import pytest

from ddpm.data.layout.pairs import partners, unmatched


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (["a/1.png", "b/1.png"], ["b/1.jpg", "a/1.jpg"], [1, 0]),
        (["train/1.png", "val/2.png"], ["2.png", "1.png"], [1, 0]),
        (["a/1.png", "b/1.png"], ["1.png"], [-1, -1]),  # a name of two
        (["1.png"], ["a/1.png", "b/1.png"], [-1]),
        (["1.png", "a/1.png"], ["1.png"], [0, -1]),  # one is nobody's twice
        (["1.png", "1.jpg"], ["1.jpg", "1.png"], [1, 0]),
        (["1.png", "1.jpg"], ["1.webp"], [-1, -1]),
        (["a.b.png"], ["a.png", "a.b.tif"], [1]),
    ],
)
def test_partners(names: list[str], others: list[str], expected: list[int]):
    assert partners(names, others).tolist() == expected


def test_what_has_no_partner_is_counted_and_named_on_both_sides():
    names, others = [f"{i}.png" for i in range(6)], ["5.png", "x.png"]
    found = partners(names, others)
    said = unmatched("A", "data.condition.path=B", names, others, found)
    assert said is not None
    assert said.startswith("1 pairs of images")
    assert "5 images of data.path=A (0.png, 1.png, 2.png, ...)" in said
    assert "1 image of data.condition.path=B (x.png)" in said
    assert unmatched("A", "", names, names, partners(names, names)) is None
