"""What a sweep's directories say of its jobs."""

import json
import os
from pathlib import Path

from ddpm.app.jobs import label
from ddpm.app.sweep_table import Row, left_behind, table


def job(directory: Path, **record: object) -> None:
    directory.mkdir()
    if record:
        (directory / "run.json").write_text(json.dumps(record))


def test_what_came_out_is_read_in_the_order_of_the_jobs(tmp_path: Path):
    record = {"status": "finished", "objective": 0.25, "wall_seconds": 61.0}
    for number in (10, 2):
        job(tmp_path / str(number), **record, overrides=[f"seed={number}"])
    job(tmp_path / "3")
    job(tmp_path / "0", **record, overrides=["seed=0"])
    os.utime(tmp_path / "0", (0, 0))  # of an earlier sweep
    (tmp_path / ".submitit").mkdir()
    rows = left_behind(tmp_path, 1.0, " ".join)
    assert [(row.job, row.differs, row.outcome) for row in rows] == [
        ("2", "seed=2", "finished"),
        ("3", "-", "failed before it began"),
        ("10", "seed=10", "finished"),
    ]
    line = table(rows).splitlines()[1]
    assert line.split() == ["2", "seed=2", "finished", "0.25", "0:01:01", str(tmp_path / "2")]


def test_a_long_line_is_cut():
    assert max(map(len, table([Row("0", "x" * 200)]).splitlines())) < 130


def test_what_all_jobs_have_does_not_set_one_apart_however_a_sweeper_spells_it():
    typed = ["++clip_x_0=true", "++model.multipliers=[1,2]", "++seed=0,1", "tags=[a]"]
    assert (
        label(["++clip_x_0=True", "++model.multipliers=[1, 2]", "++seed=0", "tags=['a']"], typed) == "seed=0"
    )
