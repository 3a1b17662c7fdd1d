"""What a run's own configuration would write elsewhere: typed once more, and then as it was."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import composed

from ddpm.app import next_commands, outside
from ddpm.app.run_directory import Place
from ddpm.data.prepared.cache import Cache
from ddpm.errors import UsageError

PICTURES = ("data=folder", "data.path=.", "data.image_size=8")


def left(directory: Path, *words: str, **config: Any) -> Path:
    """A run directory with a configuration, as a run left it."""
    (directory / "checkpoints").mkdir(parents=True)
    own = {**composed("train", "experiment=smoke", *words), **config}
    (directory / "config.yaml").write_text(yaml.safe_dump(own))
    return directory


def test_who_typed_a_place_types_it_once_more(tmp_path: Path):
    typed = f"logger.wandb.save_dir={tmp_path / 'wandb'}"
    run = left(tmp_path / "run", typed)
    with pytest.raises(UsageError, match=rf"outside of the run's directory.*type it again: {typed}$"):
        composed("train", f"ckpt={run}")
    again = composed("train", f"ckpt={run}", typed)
    assert again["logger"]["wandb"]["save_dir"] == str(tmp_path / "wandb")
    assert composed("train", f"ckpt={run}", "logger=none")["logger"] == {}


def test_all_are_told_at_once(tmp_path: Path):
    words = [f"logger.wandb.save_dir={tmp_path / 'a b'}", f"data.cache_dir={tmp_path / 'cache'}"]
    run = left(tmp_path / "run", *PICTURES, *words)
    with pytest.raises(UsageError, match=r"type it again: 'logger.wandb.save_dir=.*a b' data.cache_dir="):
        composed("train", f"ckpt={run}")
    assert composed("train", f"ckpt={run}", *words)["data"]["cache_dir"] == str(tmp_path / "cache")


def test_what_stays_within_needs_no_word(tmp_path: Path):
    inside = str(tmp_path / "run" / "mine")
    words = [f"logger.wandb.save_dir={inside}", "+logger.wandb.notes='see https://x ../y'", "tags=[../a]"]
    run = left(tmp_path / "run", *words)
    assert composed("train", f"ckpt={run}")["logger"]["wandb"]["save_dir"] == inside


def test_a_folder_of_prepared_data_may_stay_where_it_is(tmp_path: Path):
    def build(directory: Path) -> dict[str, Any]:
        (directory / "file").touch()
        return {}

    Cache(tmp_path / "cache").get("x", "ab" * 32, build)
    run = left(tmp_path / "run", *PICTURES, f"data.cache_dir={tmp_path / 'cache'}")
    assert composed("train", f"ckpt={run}")["data"]["cache_dir"] == str(tmp_path / "cache")
    outside.check_data({"cache_dir": str(tmp_path / "cache")}, {})
    with pytest.raises(UsageError, match=r"data\.cache_dir=.*no folder of prepared data"):
        outside.check_data({"cache_dir": str(tmp_path / "elsewhere")}, {})
    outside.check_data({"cache_dir": str(tmp_path / "elsewhere")}, {"cache_dir": "x"})


def test_the_printed_command_has_the_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    overrides = ("++seed=3", "++logger.wandb.save_dir='/a b'", f"++logger.wandb.dir={tmp_path}/run/in")
    place = Place(tmp_path / "run", cwd=tmp_path, overrides=overrides)
    assert next_commands.go_on(place).endswith("ckpt=run 'logger.wandb.save_dir=/a b'")


def test_a_folder_may_lie_elsewhere_if_it_holds_what_a_run_leaves(tmp_path: Path):
    run, disk = tmp_path / "run", tmp_path / "disk"
    run.mkdir()
    disk.mkdir()
    (run / "checkpoints").symlink_to(disk)
    with pytest.raises(UsageError, match="checkpoints: is a link that leads out"):
        outside.check_directory(run)
    (disk / "last.ckpt").touch()
    outside.check_directory(run)
    (run / "wandb").mkdir()
    (run / "wandb" / "debug.log").symlink_to(disk / "last.ckpt")  # W&B makes such
    (run / "best.ckpt").symlink_to(run / "config.yaml")
    outside.check_directory(run)
