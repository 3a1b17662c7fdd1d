"""Names of files for people: whatever they are made of, a line stays a line."""

from pathlib import Path

import pytest

from ddpm.data.skipped import printable, write_list


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("日本/é b.png", "日本/é b.png"),
        ("a\nb\t.png", r"a\nb\t.png"),
        ("\x1b[31mred\x9b", r"\x1b[31mred\x9b"),
        ("\udcff.png", r"\udcff.png"),
    ],
)
def test_what_a_terminal_would_refuse_or_obey_is_written_out(name: str, shown: str):
    assert printable(name) == shown


def test_the_list_has_a_line_a_file(tmp_path: Path):
    write_list([("a\nb.png", "it is empty"), ("c.png", "it is empty")], tmp_path)
    assert (tmp_path / "skipped.txt").read_text().splitlines() == [
        r"a\nb.png: it is empty",
        "c.png: it is empty",
    ]
