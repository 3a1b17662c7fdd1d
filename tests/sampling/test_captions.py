"""Captions are drawn in a font that has their letters, or not drawn wrongly."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont

from ddpm.sampling import captions
from ddpm.sampling.captions import CAPTION, caption, legible
from ddpm.sampling.figures import sheet
from ddpm.sampling.figures.style import _families


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    """Of what was found on this system, before and after."""
    caches = [captions.font_for, captions._files, captions._load, captions._legible]
    for remembered in caches:
        remembered.cache_clear()
    yield
    for remembered in caches:
        remembered.cache_clear()


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of fonts that is the only one of the system."""
    monkeypatch.setattr(captions, "DIRECTORIES", [str(tmp_path)])
    monkeypatch.setattr(captions, "_of_matplotlib", list)
    return tmp_path


def make_font(path: Path, letters: str, family: str = "Bars") -> None:
    """A font in which each letter is a bar of its own width, and whatever else a square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"g{ord(letter):x}" for letter in letters]
    glyphs = {}
    for i, name in enumerate([".notdef", *names]):
        pen = TTGlyphPen(None)
        width = 900 if name == ".notdef" else 100 * i
        for j, corner in enumerate([(0, 0), (0, 800), (width, 800), (width, 0)]):
            (pen.lineTo if j else pen.moveTo)(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names, strict=True)})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200)
    builder.setupPost()
    builder.save(path)


def test_a_font_of_the_system_that_has_the_letters_is_used(fonts: Path, caplog: pytest.LogCaptureFixture):
    make_font(fonts / "latin" / "DejaVuSans.ttf", "é")
    make_font(fonts / "中文" / "WQY-ZenHei.ttc", "海船")
    assert legible(["cat", "海船", "é"]) == ["cat", "海船", "é"]
    assert Path(captions.font_for("海船").path).name == "WQY-ZenHei.ttc"
    assert Path(captions.font_for("é").path).name == "DejaVuSans.ttf"
    assert not caplog.records
    one, other = caption("海", 64, 0), caption("船", 64, 0)
    assert one.max() > 200
    assert not np.array_equal(one, other)  # letters of their own, not boxes


def test_of_a_file_of_several_faces_the_simplified_chinese_one_is_used(fonts: Path):
    collection = TTCollection()
    for i, family in enumerate(["Two CJK JP", "Two CJK SC", "Two Mono CJK SC"]):
        make_font(fonts / f"{i}.face", "海船", family)
        collection.fonts.append(TTFont(fonts / f"{i}.face"))
    collection.save(fonts / "NotoSansCJK-Regular.ttc")
    assert captions.font_for("海船").getname()[0] == "Two CJK SC"
    assert _families(["海船"]) == ["Two CJK SC"]  # in figures too


def test_any_font_that_has_the_letters_comes_after_those_that_are_known(fonts: Path):
    make_font(fonts / "LastResort.otf", "海船")  # as macOS has it: a box for every letter
    make_font(fonts / "a-bold.ttf", "海船")
    assert Path(captions.font_for("海船").path).name == "a-bold.ttf"
    for cached in (captions.font_for, captions._files):
        cached.cache_clear()
    make_font(fonts / "b-regular.ttf", "海船")
    assert Path(captions.font_for("海船").path).name == "b-regular.ttf"


def test_a_class_whose_letters_no_font_has_is_its_number(fonts: Path, caplog: pytest.LogCaptureFixture):
    make_font(fonts / "msyh.ttc", "海")  # one of the two letters only
    (fonts / "PingFang.ttc").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert legible(["cat", "海船"]) == ["cat", "1"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "海船" in caplog.text
    assert "~/.fonts" in caplog.text


def test_european_letters_need_no_font_of_the_system(monkeypatch: pytest.MonkeyPatch):
    """Pillow's own font has hardly any; matplotlib's, which is always there, has them."""
    monkeypatch.setattr(captions, "DIRECTORIES", [])
    names = ["café", "straße", "кошка", "πλοίο", "żółw"]
    assert legible(names) == names


@pytest.mark.parametrize("width", [8, 30, 64])
def test_captions_are_cut_to_fit(width: int):
    strip = caption("a name that is far too long", width, 64)
    assert strip.shape == (CAPTION, width, 3)
    assert (strip[:, [0, -1]] == 64).all()


class Two:
    """A model of two classes, as far as a sheet asks."""

    conditions, is_conditioned = None, False
    classes = ["cat", "海船"]  # noqa: RUF012
    num_classes = 2


def test_sheets_show_what_can_be_read(fonts: Path):
    blank = -torch.ones(2, 1, 8, 8)
    picture = sheet(Two(), blank)
    number = caption("1", 64, 64)
    assert np.array_equal(picture[2 : 2 + CAPTION, 68 : 68 + 64], number)


def test_a_sheet_of_images_without_a_class_has_no_captions(fonts: Path):
    blank = torch.zeros(2, 1, 8, 8)
    assert sheet(Two(), blank, [-1]).shape[0] == sheet(Two(), blank).shape[0] - CAPTION
    assert sheet(Two(), blank, [0, -1]).shape == sheet(Two(), blank).shape


def test_a_sheet_of_few_classes_is_nearly_square(fonts: Path):
    """And each class has columns of its own."""
    of_two = sheet(Two(), torch.zeros(64, 1, 8, 8))
    pitch = (of_two.shape[1] - 2) // 8
    assert of_two.shape == (2 + 8 * (pitch + CAPTION), 2 + 8 * pitch, 3)


def test_a_class_whose_name_has_a_line_break_or_no_encoding_is_written_out():
    names = ["new\nline", "\udcff", "\x1b[31m"]
    assert captions.legible(names) == [r"new\nline", r"\udcff", r"\x1b[31m"]
    for name in names:
        assert captions.caption(name, 60, 0).shape == (captions.CAPTION, 60, 3)
        assert captions.text_width(name) > captions.text_width("a")
