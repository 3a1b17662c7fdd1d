"""A run's log file loses no line to a disk that is full for a while."""

import errno
import logging
import os
from pathlib import Path

import pytest

from ddpm.app import log_file
from ddpm.app.log_file import LogFile


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.INFO, "", 0, text, None, None)


def test_lines_that_are_refused_wait_for_room_and_come_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    handler = LogFile(tmp_path / "x.log", told.append)
    handler.handle(record("one"))
    assert handler.path.read_text() == "one\n"
    write, free = os.write, 5

    def full(file: int, contents: bytes) -> int:  # what still fits, and then nothing
        nonlocal free
        if not free:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, contents[:free])
        free -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        handler.handle(record("two, grün"))
        handler.handle(record("three"))
    assert handler.path.read_bytes() == b"one\ntwo, "
    handler.handle(record("four"))
    assert handler.path.read_text(encoding="utf-8") == "one\ntwo, grün\nthree\nfour\n"
    assert told == [
        f"{handler.path}: cannot be written (No space left on device); its lines wait for room",
        f"{handler.path}: is written again",
    ]
    handler.close()


def test_a_file_that_cannot_be_made_is_made_later(tmp_path: Path):
    told: list[str] = []
    handler = LogFile(tmp_path / "later" / "x.log", told.append)
    handler.handle(record("one"))
    (tmp_path / "later").mkdir()
    handler.handle(record("two"))
    assert handler.path.read_text() == "one\ntwo\n"
    assert len(told) == 2
    handler.close()


def test_what_waits_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(log_file, "MOST_WAITING", 30)
    handler = LogFile(tmp_path / "later" / "x.log", lambda sentence: None)
    for number in range(20):
        handler.handle(record(f"line {number:02}"))
    (tmp_path / "later").mkdir()
    handler.handle(record("end"))
    assert handler.path.read_text() == "line 17\nline 18\nline 19\nend\n"
    handler.close()
