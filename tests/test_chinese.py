"""README, tutorial and theory in Chinese say what the English pages say, section by section."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest
from conftest import ROOT

DOCS = ROOT / "docs"
PARTS = ("tutorial", "theory")
TWINS = {ROOT / "README.md": ROOT / "README.zh.md"} | {
    page: DOCS / "zh" / page.relative_to(DOCS)
    for part in PARTS
    for page in sorted((DOCS / part).glob("*.md"))
}
"""Each English page that is translated, with the Chinese one."""
BACK = {chinese: english for english, chinese in TWINS.items()}

FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DISPLAYED = re.compile(r"^\$\$$(.*?)^\$\$$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
FORMULA = re.compile(r"\$([^$]+)\$")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
COMMENT = re.compile(r"(?:^|(?<=\s))# (.*)$", re.MULTILINE)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
HAN = re.compile(r"[\u4e00-\u9fff]")
BRACKETED = re.compile("\uff08[^\uff08\uff09]*\uff09")  # terms in English, authors and years
WORD = re.compile(r"\\text\{([^}]*)\}")
WORDS = {
    " or ": " 或 ",
    " where ": "，若 ",  # noqa: RUF001
    "before": "上一次",
    "bits per dimension": "每维比特数",
    "output": "网络输出",
    "step before": "前一步",
    "step": "该步",
}
"""Words within formulas, and what they are in Chinese; the others are names, as in L_simple."""
LATIN = re.compile(r"(?<![\w.])[A-Za-z][A-Za-z'-]*")

each_page = pytest.mark.parametrize("english", TWINS, ids=lambda page: str(page.relative_to(ROOT)))


@dataclass(frozen=True)
class Section:
    """What stands below one heading, without code blocks and displayed equations.

    Attributes:
        level: number of signs before the heading.
        heading: its text.
        text: the rest, as written.
    """

    level: int
    heading: str
    text: str

    @property
    def prose(self) -> str:
        """The words alone: no code, no formulas, of links what is shown."""
        bare = CODE.sub("", FORMULA.sub("", self.text))
        return LINK.sub(lambda link: link[2], bare)


@cache
def sections(page: Path) -> list[Section]:
    text = DISPLAYED.sub("", FENCED.sub("", page.read_text(encoding="utf-8")))
    parts = HEADING.split(text)
    assert not parts[0].strip(), f"{page}: begins with its heading"
    return [Section(len(signs), *rest) for signs, *rest in zip(*[iter(parts[1:])] * 3, strict=True)]


def pairs(english: Path) -> Iterator[tuple[str, Section, Section]]:
    """The sections of a page, each with its twin, and how a failure names them."""
    chinese = TWINS[english]
    for one, other in zip(sections(english), sections(chinese), strict=True):
        yield f"{chinese.relative_to(ROOT)}, {other.heading!r} ({one.heading!r})", one, other


def lines_of(blocks: re.Pattern[str], english: Path) -> Iterator[tuple[str, str, str]]:
    """The lines of all code or equations of a page, each with its twin, and how a failure names them."""
    chinese = TWINS[english]
    ours, theirs = (
        [found[0] for found in blocks.finditer(page.read_text(encoding="utf-8"))]
        for page in (english, chinese)
    )
    for number, (one, other) in enumerate(zip_longest(ours, theirs, fillvalue=""), start=1):
        for line, its_twin in zip_longest(one.splitlines(), other.splitlines(), fillvalue=""):
            yield f"{chinese.relative_to(ROOT)}, block {number}", line, its_twin


def difference(ours: Counter[str], theirs: Counter[str]) -> str:
    """What only the English has, and what only the Chinese; empty where they are equal."""
    missing, more = sorted((ours - theirs).elements()), sorted((theirs - ours).elements())
    return "; ".join(
        f"{who}: {', '.join(what)}"
        for who, what in (("in English alone", missing), ("in Chinese alone", more))
        if what
    )


def one_line(found: list[str]) -> Counter[str]:
    return Counter(" ".join(part.split()) for part in found)


def translated(formula: str) -> str:
    return WORD.sub(lambda word: rf"\text{{{WORDS.get(word[1], word[1])}}}", formula)


def anchors(page: Path) -> list[str]:
    """The address of each heading of a page, as the site and GitHub make it."""
    return [
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        for _, heading in HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    ]


def place(page: Path, target: str) -> str:
    """Where a link of a page leads: the same for a page, or a heading of it, and its twin."""
    if re.match(r"[a-z]+:", target):
        return target
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists(), f"{page.relative_to(ROOT)} links to {target}, which there is not"
    english = BACK.get(there, there)
    if not anchor:
        return str(english.relative_to(ROOT))
    assert anchor in anchors(there), f"{page.relative_to(ROOT)}: no heading is {target}"
    return f"{english.relative_to(ROOT)}#{anchors(english)[anchors(there).index(anchor)]}"


def test_each_page_has_its_twin():
    there = {ROOT / "README.zh.md", *(DOCS / "zh").rglob("*.md")}
    assert {str(page.relative_to(ROOT)) for page in TWINS.values()} == {
        str(page.relative_to(ROOT)) for page in there
    }


@each_page
def test_headings_are_the_same_in_number_and_level(english: Path):
    ours, theirs = (
        [f"{'#' * section.level} {section.heading}" for section in sections(page)]
        for page in (english, TWINS[english])
    )
    for one, other in zip_longest(ours, theirs, fillvalue="no heading"):
        same = one.partition(" ")[0] == other.partition(" ")[0]
        assert same, f"{TWINS[english].relative_to(ROOT)}: {other!r} for {one!r}"


@each_page
def test_code_is_the_same_but_for_comments(english: Path):
    for where, one, other in lines_of(FENCED, english):
        assert COMMENT.sub("#", other) == COMMENT.sub("#", one), f"{where}: {other!r} for {one!r}"
        for comment, translated in zip(COMMENT.findall(one), COMMENT.findall(other), strict=True):
            assert translated == comment or HAN.search(translated), f"{where}: {translated!r} for {comment!r}"


@each_page
def test_displayed_equations_are_the_same(english: Path):
    for where, one, other in lines_of(DISPLAYED, english):
        assert other == translated(one), f"{where}: {other!r} for {one!r}"


@each_page
def test_code_and_formulas_within_the_text_are_the_same(english: Path):
    for where, one, other in pairs(english):
        for kind in (CODE, FORMULA):
            ours = one_line(list(map(translated, kind.findall(one.text))))
            found = difference(ours, one_line(kind.findall(other.text)))
            assert not found, f"{where}: {found}"


@each_page
def test_links_lead_to_the_same_places(english: Path):
    for where, one, other in pairs(english):
        ours, theirs = (
            Counter(kind + place(page, target) for kind, _, target in LINK.findall(section.text))
            for page, section in ((english, one), (TWINS[english], other))
        )
        assert not difference(ours, theirs), f"{where}: {difference(ours, theirs)}"


@each_page
def test_chinese_pages_lead_to_chinese_ones(english: Path):
    chinese = TWINS[english]
    for where, _, other in pairs(english):
        for _, _, target in LINK.findall(other.text):
            there = (chinese.parent / target.partition("#")[0]).resolve()
            assert there not in TWINS or there == english, f"{where}: {target} is there in Chinese"


@each_page
def test_tables_have_the_same_rows_and_columns(english: Path):
    for where, one, other in pairs(english):
        ours, theirs = (
            [row.count("|") for row in section.text.splitlines() if row.startswith("|")]
            for section in (one, other)
        )
        assert theirs == ours, where


@each_page
def test_every_number_of_the_english_text_is_in_the_chinese_one(english: Path):
    for where, one, other in pairs(english):
        ours, theirs = (
            Counter(found.replace(",", "") for found in NUMBER.findall(section.prose))
            for section in (one, other)
        )
        assert not ours - theirs, f"{where} lacks {', '.join((ours - theirs).elements())}"


@each_page
def test_the_text_is_chinese(english: Path):
    for where, _, other in pairs(english):
        for line in other.prose.splitlines():
            words = len(LATIN.findall(BRACKETED.sub("", line)))
            assert words < 3 or len(HAN.findall(line)) > words, f"{where}: {line}"
            left = re.search(r"(?:[A-Za-z'-]+,? ){6,}", line)
            assert not left, f"{where}: {left[0]}"


@each_page
def test_punctuation_is_chinese_and_bold_text_ends_where_github_sees_it(english: Path):
    for where, _, other in pairs(english):
        half = re.search(r".{,9}[\u4e00-\u9fff][,;:?!()].{,9}", other.prose)
        assert not half, f"{where}: {half[0]}"
        for inside, after in re.findall(r"\*\*([^*]+)\*\*(\w?)", other.text):
            assert not after or inside[-1].isalnum(), f"{where}: **{inside}**{after}"
