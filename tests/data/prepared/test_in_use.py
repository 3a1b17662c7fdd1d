"""Marks of living processes on files."""

import os
import threading
import time
from pathlib import Path

import pytest

from ddpm.data.prepared import in_use

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")


def is_alone(file: Path) -> bool | None:
    with in_use.alone(file) as alone:
        return alone


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("words")
    return tmp_path / "file"


def test_a_file_is_marked_until_the_last_mark_ends(file: Path):
    assert is_alone(file)
    first, second = in_use.mark(file), in_use.mark(file)
    assert not is_alone(file)
    first.end()
    first.end()
    assert not is_alone(file)
    del second
    assert is_alone(file)


def test_a_mark_costs_no_more_than_a_descriptor_and_gives_it_back(file: Path):
    before = len(os.listdir("/proc/self/fd"))
    marks = [in_use.mark(file) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) == before + 5
    del marks
    assert len(os.listdir("/proc/self/fd")) == before
    for _ in range(3):
        is_alone(file)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_not_there_is_not_marked(file: Path):
    assert in_use.mark(file.with_name("other")) is None
    with pytest.raises(FileNotFoundError):
        is_alone(file.with_name("other"))


@pytest.mark.parametrize("comes_again", [False, True])
def test_who_marks_a_file_that_is_being_removed_waits_and_has_none(file: Path, comes_again: bool):
    """Also where another file has come into its place meanwhile."""
    found: list[in_use.Mark | None] = []
    marker = threading.Thread(target=lambda: found.append(in_use.mark(file)))
    with in_use.alone(file) as alone:
        assert alone
        marker.start()
        deadline = time.monotonic() + 300
        while (
            sum(os.path.realpath(f"/proc/self/fd/{fd}") == str(file) for fd in os.listdir("/proc/self/fd"))
            < 2
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert found == []
        file.unlink()
        if comes_again:
            file.write_text("others")
    marker.join(timeout=300)
    assert found == [None]
