"""The file of a study can be written whatever a killed process has left beside it."""

import itertools
import threading
from pathlib import Path

import optuna
import pytest
from conftest import patch_time
from optuna.storages.journal import _file

from ddpm.training.trials import storage


def written(journal: Path) -> bool:
    """Whether a study comes to be in the file, within the time of a test."""
    made: list[optuna.Study] = []
    thread = threading.Thread(
        target=lambda: made.append(optuna.create_study(study_name="x", storage=storage(journal))), daemon=True
    )
    thread.start()
    thread.join(20)
    return bool(made)


def test_a_lock_that_was_left_counts_for_half_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seconds = itertools.count()
    patch_time(monkeypatch, _file, monotonic=lambda: next(seconds), sleep=lambda _: None)
    (tmp_path / "study.log.lock").touch()
    assert written(tmp_path / "study.log")
    assert next(seconds) > 30
    assert [path.name for path in tmp_path.iterdir()] == ["study.log"]


def test_a_link_that_was_left_in_a_directory_that_was_moved_counts_for_nothing(tmp_path: Path):
    (tmp_path / "study.log.lock").symlink_to(tmp_path / "where it was" / "study.log")
    assert written(tmp_path / "study.log")


def test_a_lock_is_a_file_and_no_link(tmp_path: Path):
    backend = storage(tmp_path / "study.log")._backend
    backend._lock.acquire()
    (left,) = tmp_path.glob("*.lock")
    assert not left.is_symlink()
