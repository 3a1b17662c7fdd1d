"""Files are whole or not there, and what the disk refuses is written when there is room."""

import errno
import json
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ddpm.runtime import writing
from ddpm.runtime.writing import (
    WriteError,
    readable_json,
    whole,
    whole_folder,
    write,
    write_again,
    write_whole,
)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    writing._kept.clear()


def refusing(patch: pytest.MonkeyPatch, error: int = errno.ENOSPC) -> None:
    """Have the disk take everything, and say at the flush that it is not there."""

    def fsync(file: int) -> None:
        raise OSError(error, os.strerror(error))

    patch.setattr(os, "fsync", fsync)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_refused_file_leaves_what_was_there(tmp_path: Path, error: int, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.json"
    write_whole(path, "before")
    refusing(monkeypatch, error)
    with pytest.raises(WriteError, match=rf"a\.json: cannot be written \({os.strerror(error)}\)"):
        write_whole(path, "after")
    assert (path.read_text(), names(tmp_path)) == ("before", ["a.json"])


def test_an_error_of_another_kind_stays_what_it_is_and_nothing_is_left(tmp_path: Path):
    def half() -> None:
        with whole(tmp_path / "x.npz") as temporary:
            np.savez(temporary, a=np.zeros(3))
            assert names(tmp_path) == [temporary.name]  # numpy adds no suffix of its own
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert names(tmp_path) == []


def test_a_folder_is_there_when_all_of_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".images.part").mkdir()  # of a process that was killed
    (tmp_path / ".images.part" / "old.png").touch()

    def fill(error: type[Exception] | None = None) -> None:
        with whole_folder(tmp_path / "images") as temporary:
            (temporary / "a.png").write_text("a")
            assert names(tmp_path) == [temporary.name]
            if error is not None:
                raise error

    with pytest.raises(ZeroDivisionError):
        fill(ZeroDivisionError)
    assert names(tmp_path) == []
    with monkeypatch.context() as patch:
        refusing(patch)
        with pytest.raises(WriteError, match=r"images: cannot be written \(No space left on device\)"):
            fill()
    assert names(tmp_path) == []
    fill()
    assert (names(tmp_path), names(tmp_path / "images")) == (["images"], ["a.png"])


def test_what_is_refused_is_told_each_time_and_written_with_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with monkeypatch.context() as patch:
        refusing(patch)
        assert not write(tmp_path / "deep" / "a", "first")
        assert len(caplog.messages) == 1
        assert not write(tmp_path / "b", b"b")
        assert len(caplog.messages) == 3
        assert not write(tmp_path / "deep" / "a", "second")
        assert write_again() == [tmp_path / "b", tmp_path / "deep" / "a"]
    assert "a: cannot be written (No space left on device); it is kept in memory" in caplog.messages[0]
    caplog.clear()
    assert write(tmp_path / "c", "c")
    assert (tmp_path / "deep" / "a").read_text() == "second"
    assert names(tmp_path) == ["b", "c", "deep"]
    assert (write_again(), caplog.messages) == ([], [])


def test_what_waits_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(writing, "MOST_KEPT", 10)
    with monkeypatch.context() as patch:
        refusing(patch)
        for name in "abc":
            write(tmp_path / name, b"12345")
    assert f"{tmp_path / 'a'} is lost" in caplog.text
    assert write_again() == []
    assert names(tmp_path) == ["b", "c"]


@pytest.mark.e2e
def test_a_real_limit_of_the_system(tmp_path: Path):
    code = """
        import resource, sys
        from pathlib import Path
        from ddpm.runtime.writing import write, write_again
        write(Path("small"), bytes(100))
        write(Path("large"), bytes(10_000))
        print(sorted(path.name for path in Path().iterdir()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(write_again(), Path("large").stat().st_size)
        """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))

    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(
        command, cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines() == ["['small']", "[] 10000"]
    assert done.stderr.count("cannot be written (File too large)") == 1


def test_json_keeps_letters_and_whatever_a_name_of_a_file_holds():
    values = {"name": "图片", "not UTF-8": os.fsdecode(b"a\xff")}
    written = readable_json(values)
    assert "图片" in written
    assert json.loads(written.encode("utf-8")) == values
