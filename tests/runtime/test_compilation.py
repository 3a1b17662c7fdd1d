"""Where torch.compile keeps what it makes."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ddpm.runtime.compilation import CACHE_DIR, keep_compiled


def test_it_is_kept_in_a_directory_of_its_own_unless_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(CACHE_DIR, str(tmp_path / "mine"))
    assert keep_compiled(tmp_path / "compiled") == str(tmp_path / "mine")
    monkeypatch.delenv(CACHE_DIR)
    assert keep_compiled(tmp_path / "compiled") == str(tmp_path / "compiled")


@pytest.mark.parametrize("why", ["full", "a file"])
def test_where_it_has_no_room_torchs_own_is_used(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv(CACHE_DIR, "x")  # so that it is put back
    monkeypatch.delenv(CACHE_DIR)
    if why == "full":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    else:
        (tmp_path / "cache").touch()
    used = keep_compiled(tmp_path / "cache" / "compiled")
    assert not used.startswith(str(tmp_path / "cache"))
    assert f"{tmp_path}/cache/compiled has no room: what is compiled is kept in {used}" in caplog.text
