"""What is written of a step that is not finite."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.runtime import writing
from ddpm.sampling.captions import CAPTION
from ddpm.training.nonfinite.report import CELL, Report, picture, write


def report(directory: Path, channels: int = 1) -> Report:
    x_0 = torch.zeros(3, channels, 8, 8)
    x_0[2, 0, 1, 3] = torch.nan
    images = [
        {"micro_batch": 0, "index": 16 + i, "t": t, "loss": loss}
        for i, (t, loss) in enumerate([(10, 0.5), (20, 3.0), (30, float("nan"))])
    ]
    return Report(
        step=7,
        rank=None,
        what="the loss is not finite",
        gradient_norm=float("inf"),
        learning_rate=1e-3,
        images=images,
        x_0=x_0,
        norms={"conv.weight": {"weight": 2.0, "gradient": float("nan")}},
        layers={"conv (Conv2d)": 3.0},
        config={"seed": 0},
        device="cpu",
        rows=directory / "metrics.csv",
    )


def test_it_is_json_that_tells_infinity_from_nan(tmp_path: Path):
    lines = ["step,train/loss,mine", *(f"{step},{step / 10}," for step in range(1, 31))]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    write(tmp_path / "nonfinite/step_00000007", report(tmp_path))
    read = json.loads((tmp_path / "nonfinite/step_00000007/report.json").read_text())
    assert read["gradient_norm"] == "inf"
    assert read["images"][2] == {"micro_batch": 0, "index": 18, "t": 30, "loss": "nan"}
    assert read["norms"] == {"conv.weight": {"weight": 2.0, "gradient": "nan"}}
    assert read["largest_outputs"] == {"conv (Conv2d)": 3.0}
    assert read["config"] == {"seed": 0}
    assert [row["step"] for row in read["last_rows"]] == [str(step) for step in range(11, 31)]
    assert "mine" not in read["last_rows"][0]
    assert read["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_picture_marks_pixels_that_are_not_finite(channels: int, tmp_path: Path):
    write(tmp_path, report(tmp_path, channels))
    drawn = np.asarray(Image.open(tmp_path / "batch.png"))
    factor = CELL // 8
    top, left = 2 + CAPTION + factor, 2 + 3 * factor  # the image that is not finite comes first
    assert (drawn[top : top + factor, left : left + factor] == (255, 0, 255)).all()
    assert (drawn == (255, 0, 255)).all(-1).sum() == factor**2
    assert (drawn[top - 2, left] == 128).all()


def test_of_many_images_those_with_the_largest_losses_are_shown(tmp_path: Path):
    many = report(tmp_path)
    images = [{"micro_batch": 0, "index": i, "t": 0, "loss": float(i)} for i in range(100)]
    x_0 = torch.linspace(-1, 1, 100).view(100, 1, 1, 1).expand(100, 1, 8, 8)
    shown = picture(replace(many, images=images, x_0=x_0))
    assert (shown[2 + CAPTION, 2] == 255).all()
    assert shown.shape == picture(replace(many, images=images[:64], x_0=x_0[:64])).shape


def test_of_several_ranks_each_has_its_own(tmp_path: Path):
    write(tmp_path, replace(report(tmp_path), rank=1))
    assert {path.name for path in tmp_path.iterdir()} == {"rank_1.json", "rank_1.png"}


def test_a_place_that_takes_no_files_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "nonfinite").write_text("")
    write(tmp_path / "nonfinite/step_00000007", report(tmp_path))
    assert "step_00000007/report.json: cannot be written (Not a directory)" in caplog.text
    writing._kept.clear()
