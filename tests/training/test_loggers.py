"""metrics.csv is complete at any time; Weights & Biases gets what it was given."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import wandb_records
from PIL import Image

from ddpm.training.loggers import MetricsCSV, WandbLogger


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_step_and_new_columns_as_they_come(tmp_path: Path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 1.0}, step=1)
    assert rows(logger.path) == [{"step": "1", "train/loss": "1.0"}]
    logger.log_metrics({"train/loss": 0.5}, step=2)
    logger.log_metrics({"val/loss": 0.7}, step=2)
    logger.log_metrics({"train/loss": 0.25}, step=3)
    assert rows(logger.path) == [
        {"step": "1", "train/loss": "1.0", "val/loss": ""},
        {"step": "2", "train/loss": "0.5", "val/loss": "0.7"},
        {"step": "3", "train/loss": "0.25", "val/loss": ""},
    ]
    logger.log_metrics({"val/loss": 0.123456789}, step=3)
    logger.log_metrics({"val/loss": 0.1}, step=3)  # same columns, same step: the row is completed in place
    logger.log_metrics({"train/loss": 0.2}, step=4)
    assert [row["val/loss"] for row in rows(logger.path)] == ["", "0.7", "0.1", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_continued_run_tells_the_whole_history(tmp_path: Path):
    first = MetricsCSV(tmp_path / "first.csv")
    for step in (5, 10, 15):
        first.log_metrics({"train/loss": step / 100}, step=step)
    second = MetricsCSV(tmp_path / "second.csv")
    second.continue_from(first.path, step=10)
    second.log_metrics({"train/loss": 0.5, "val/loss": 0.25}, step=15)
    assert [(row["step"], row["train/loss"]) for row in rows(second.path)] == [
        ("5", "0.05"),
        ("10", "0.1"),
        ("15", "0.5"),
    ]
    assert len(rows(first.path)) == 3
    first.continue_from(
        first.path, step=10
    )  # in the same directory the rows that will come again are dropped
    assert [row["step"] for row in rows(first.path)] == ["5", "10"]


def test_wandb_keeps_pixels_and_steps_as_they_are(tmp_path: Path):
    """Greys 0, 127 and 255 come back from the PNG in the run directory; each row has its step."""
    logger = WandbLogger(tmp_path, project="test")
    picture = np.full((8, 8, 3), 127, np.uint8)
    picture[0], picture[1] = 0, 255
    logger.log_metrics({"train/loss": 0.5}, step=10)
    logger.log_image("samples/grid", picture, step=10)
    logger.log_metrics({"train/loss": 0.25}, step=20)
    logger.finish(0)
    (kept,) = tmp_path.glob("wandb/offline-run-*/files/media/images/samples/*.png")
    assert np.array_equal(np.asarray(Image.open(kept).convert("RGB")), picture)
    rows = [record["item"] for record in wandb_records(tmp_path, "history")]
    assert [(row["_step"], row["train/loss"]) for row in rows] == [(10, 0.5), (20, 0.25)]


def test_two_runs_in_one_process_do_not_mix(tmp_path: Path):
    ids = []
    for name in ("a", "b"):
        logger = WandbLogger(tmp_path / name, group="sweep")
        logger.log_metrics({"train/loss": 1.0}, step=1)
        ids.append(logger.run_id)
        logger.finish(0)
    assert len(set(ids)) == 2


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"logger.mode=on .*offline, online or disabled"):
        WandbLogger(mode="on")


def test_wandb_is_imported_only_when_a_run_begins():
    code = (
        "import sys; from ddpm.training.loggers import WandbLogger; WandbLogger();"
        "sys.exit('wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
