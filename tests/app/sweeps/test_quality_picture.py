"""A sweep of evaluate.py in figures: lines along the steps, intervals, and what is left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from ddpm.app.measuring.drawn import seconds_per_image
from ddpm.app.measuring.figures import Figure, figures_of, left_in
from ddpm.app.sweeps import quality_picture
from ddpm.app.sweeps.quality_picture import NAME, draw, drawn_jobs, lines_of, named
from ddpm.app.sweeps.record import Job, look, ranked
from ddpm.app.sweeps.table import table


def job(number: int, *own: str, nfe: int = 10, **known: Any) -> Job:
    figures = {"fid": Figure(9.0 - number, (8.0, 10.0), "fid", nfe, 0.5)}
    return Job(number, Path("/s") / str(number), own, status="finished", figures=figures, **known)


def test_the_line_is_along_the_setting_by_which_evaluations_grow_whatever_else_varies():
    jobs = [
        job(2 * i + j, f"guidance.scale={scale}", f"sampler.num_steps={steps}", nfe=2 * steps)
        for i, scale in enumerate((1.5, 3.0))
        for j, steps in enumerate((20, 5))
    ]
    found = [(line.label, [one.number for one in line.jobs]) for line in lines_of(jobs)]
    assert found == [("scale=1.5", [1, 0]), ("scale=3.0", [3, 2])]


def test_jobs_without_steps_in_common_have_a_line_each():
    jobs = [job(0, "sampler=ddim", nfe=50), job(1, "sampler=ancestral", nfe=1000)]
    assert [line.label for line in lines_of(jobs)] == ["sampler=ddim", "sampler=ancestral"]


def test_jobs_that_have_failed_or_measured_no_samples_are_left_out_and_named(tmp_path: Path):
    bits = Job(2, Path("/s/2"), status="finished", figures={"nll": Figure(3.0, None, "bits_per_dim")})
    jobs = [job(0, "seed=0"), Job(1, Path("/s/1"), ("seed=1",), status="failed"), bits]
    assert drawn_jobs(jobs) == jobs[:1]
    assert named(jobs[1:]) == "job 1 (failed), job 2 (no samples measured)"
    draw(jobs, tmp_path / NAME)
    assert Image.open(tmp_path / NAME).size[0] > 1000


@pytest.mark.parametrize("value", [-0.5, 2.0])
def test_values_below_zero_and_unknown_times_are_drawn(value: float, tmp_path: Path):
    kid = {"kid": Figure(value, (value - 3, value + 1), "kid", 10)}
    draw([Job(0, Path("/s/0"), status="finished", figures=kid)], tmp_path / NAME)
    assert (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([6, 90], ["10", "20", "50", "100"]),
        ([0.02, 0.9], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"]),
        ([3.1, 3.9], ["3.2", "3.4", "3.6", "3.8"]),
        ([1, 1e6], ["1", "10", "100", "1000", "10000", "100000", "1e+06"]),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers(values: list[float], labels: list[str]):
    """Those within what is shown."""
    panel = Canvas().subplots()
    panel.plot(values, values)
    panel.set(xscale="log", yscale="log")
    for axis in (panel.xaxis, panel.yaxis):
        quality_picture._number_plainly(axis)
        low, high = axis.get_view_interval()
        ticks = [tick for tick in axis.get_majorticklocs() if low <= tick <= high]
        assert axis.get_major_formatter().format_ticks(ticks) == labels
        assert not any(axis.get_minor_formatter().format_ticks(axis.get_minorticklocs()))


def test_figures_are_read_from_what_a_job_has_written(tmp_path: Path):
    about = {"nfe": 20, "seconds_per_image": 0.25}
    measured = {
        "step": 600,
        "fid": {
            "fid2k_train_inception_ema_ddim20": 4.0,
            "interval": [3.0, 5.0],
            "extrapolated": 2,
            "of": about,
        },
        "precision_recall": {
            "precision200_train_pixels_ema_ddim20": 0.5,
            "precision_interval": [0.4, 0.6],
            "recall200_train_pixels_ema_ddim20": 0.25,
            "of": about,
        },
        "nll": {"bits_per_dim": 3.0, "standard_error": 0.5},
    }
    found = figures_of(measured)
    assert list(found) == ["fid", "precision", "recall", "nll"]
    assert found["fid"] == Figure(4.0, (3.0, 5.0), "fid", 20, 0.25, "fid2k_train_inception_ema_ddim20")
    assert found["precision"].interval == (0.4, 0.6)
    assert found["recall"].interval is None
    assert found["nll"].interval == pytest.approx((3 - 0.98, 3 + 0.98))
    assert found["nll"].nfe is None
    (tmp_path / "metrics.json").write_text(json.dumps(measured))
    assert left_in(tmp_path) == found
    assert look(Job(0, tmp_path)).figures == found
    assert left_in(tmp_path / "none") == {}


def test_the_table_shows_values_with_intervals_and_the_best_first():
    jobs = [job(0, "a=1"), job(1, "a=2")]
    lines = table(jobs, Path("/")).splitlines()
    assert lines[0].split() == ["job", "a", "status", "fid", "nfe", "s/image", "directory"]
    assert lines[1].split()[:5] == ["1", "2", "finished", "8", "[8,"]
    shares = [
        Job(i, Path("/"), figures={"recall": Figure(value, measure="recall")})
        for i, value in enumerate((0.2, 0.7))
    ]
    assert [one.number for one in ranked(shares)] == [1, 0]


def test_the_time_of_an_image_leaves_out_the_first_piece_where_there_are_more():
    assert seconds_per_image([]) is None
    assert seconds_per_image([(4, 2.0)]) == 0.5
    assert seconds_per_image([(4, 90.0), (4, 2.0), (2, 1.0)]) == 0.5
