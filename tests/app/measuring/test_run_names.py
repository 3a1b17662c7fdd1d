"""Runs that are compared have short names, no two alike, and the same wherever the command is given."""

from pathlib import Path

import pytest

from ddpm.app.measuring.run_names import LONGEST, names_of

LAST = "checkpoints/last.ckpt"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ([f"logs/a/{LAST}", f"logs/b/{LAST}"], ["a", "b"]),
        ([f"x/a/{LAST}", f"y/a/{LAST}", f"y/b/{LAST}"], ["x-a", "y-a", "b"]),
        ([f"x/a/{LAST}", "x/a/checkpoints/step_00000010.ckpt"], ["a-last", "a-step_00000010"]),
        ([f"sweep/0/{LAST}", f"sweep/1/{LAST}"], ["job-0", "job-1"]),
        (["x/one.ckpt", "x/two.ckpt"], ["one", "two"]),
        ([f"p/x/a/{LAST}", f"q/x/a/{LAST}"], ["a", "a-2"]),
        ([f"x/A/{LAST}", f"x/a/{LAST}"], ["A", "a-2"]),
        ([f"x/图片 1/{LAST}", f"x/[b]/{LAST}"], ["图片 1", "[b]"]),
    ],
)
def test_a_run_is_called_as_its_directory(files: list[str], names: list[str]):
    assert names_of([Path(file) for file in files]) == names
    assert names_of([Path("/elsewhere") / file for file in files]) == names


def test_a_run_where_one_stands_has_the_name_of_that_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert names_of([Path("checkpoints/last.ckpt"), Path("../other/checkpoints/last.ckpt")]) == [
        "mine",
        "other",
    ]


def test_names_are_not_too_long_for_a_folder():
    found = names_of([Path("x" * 200) / str(i) / ("y" * 200) / LAST for i in range(2)])
    assert len({*found}) == 2
    assert all(len(name) <= LONGEST + 2 for name in found)
