"""What is said of a sweep's jobs."""

from pathlib import Path

from ddpm.app.sweeps.jobs import label
from ddpm.app.sweeps.record import Job
from ddpm.app.sweeps.show import of_losses
from ddpm.app.sweeps.table import table

COMMON = ("++seed=0", "logger=none")


def job(number: int, *own: str, **known: object) -> Job:
    return Job(number, Path("/runs/a sweep") / str(number), (*own, *COMMON), **known)


def test_only_what_differs_is_shown_and_the_best_comes_first():
    jobs = [
        job(0, "schedule=linear", "++optimizer.lr=0.1", status="failed", step=3, max_steps=20, seconds=61.0),
        job(1, "schedule=cosine", "++optimizer.lr=0.1", status="finished", step=20, best=0.25, last=0.26),
        job(2, "schedule=cosine", "++optimizer.lr=0.2", status="finished", step=20, best=0.125, last=0.5),
    ]
    lines = [line.split("  ") for line in table(jobs, Path("/runs")).splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["job", "schedule", "lr", "status", "step", "val/loss", "best", "time", "directory"],
        ["2", "cosine", "0.2", "finished", "20", "0.5", "0.125", "-", "a sweep/2"],
        ["1", "cosine", "0.1", "finished", "20", "0.26", "0.25", "-", "a sweep/1"],
        ["0", "linear", "0.1", "failed", "3/20", "-", "-", "1 min 1 s", "a sweep/0"],
    ]


def test_keys_that_end_alike_are_named_whole():
    jobs = [job(0, "++model.dropout=0", "++data.dropout=1"), job(1, "++model.dropout=1", "++data.dropout=0")]
    head = table(jobs, Path("/")).splitlines()[0].split()
    assert head[1:3] == ["model.dropout", "data.dropout"]


def test_a_job_without_a_key_that_others_have_shows_that():
    lines = table([job(0, "guidance=none"), job(1)], Path("/"), best_first=False).splitlines()
    assert [line.split()[1] for line in lines] == ["guidance", "none", "-"]


def test_a_long_value_is_cut():
    assert max(map(len, table([job(0, f"++tags=[{'x' * 200}]"), job(1)], Path("/")).splitlines())) < 130


def test_what_all_jobs_have_does_not_set_one_apart_however_a_sweeper_spells_it():
    typed = ["++clip_x_0=true", "++model.multipliers=[1,2]", "++seed=0,1", "tags=[a]"]
    assert (
        label(["++clip_x_0=True", "++model.multipliers=[1, 2]", "++seed=0", "tags=['a']"], typed) == "seed=0"
    )


def test_time_that_is_left_stands_beside_the_time_that_was():
    lines = table([job(0, "a=1", seconds=3.0), job(1, "a=2")], Path("/"), left={1: "5 s"}).splitlines()
    assert lines[0].split()[-3:] == ["time", "left", "directory"]
    assert "3 s   -     runs" in lines[1]
    assert "-     5 s   runs" in lines[2]


def test_what_was_measured_beside_the_loss_is_shown_and_bits_come_before_losses():
    """The losses of several weightings are not of one kind."""
    jobs = [
        job(0, "weighting=simple", best=0.1, last=0.1, metrics={"val/bits_per_dim": 4.5, "train/loss": 1.0}),
        job(1, "weighting=bound", best=9.0, last=9.0, metrics={"val/bits_per_dim": 3.5}),
        job(2, "weighting=p2", best=0.01, last=0.02),
    ]
    lines = [line.split() for line in table(jobs, Path("/runs/a sweep")).splitlines()]
    head = ["job", "weighting", "status", "val/loss", "best", "val/bits_per_dim", "directory"]
    assert lines[0] == head
    assert [(line[0], line[-2]) for line in lines[1:]] == [("1", "3.5"), ("0", "4.5"), ("2", "-")]


def test_columns_without_anything_are_left_out():
    jobs = [job(0, "sampler=ddim", status="finished", seconds=2.0), job(1, "sampler=heun", status="running")]
    assert table(jobs, Path("/")).splitlines()[0].split() == ["job", "sampler", "status", "time", "directory"]


def test_another_metric_is_shown_beside_the_loss():
    jobs = [job(0, last=0.5, metrics={"mine/x": 3.25}), job(1)]
    lines = [line.split() for line in table(jobs, Path("/"), best_first=False, monitor="mine/x").splitlines()]
    assert lines[0][:4] == ["job", "mine/x", "status", "val/loss"]
    assert [line[1] for line in lines[1:]] == ["3.25", "-"]


def test_losses_of_several_kinds_are_said_not_to_be_compared():
    done = {"status": "finished", "last": 0.25}
    jobs = [job(0, "++schedule=linear", "++seed=0", **done), job(1, "++schedule=cosine", "++seed=1", **done)]
    assert of_losses(jobs) == [
        "  val/loss is another quantity with each schedule: compare samples, by evaluate.py"
    ]
    assert of_losses([job(0, "++schedule.num_timesteps=10", **done), job(1, **done)])
    assert not of_losses([job(0, "++seed=0", **done), job(1, "++seed=1", **done)])
    assert not of_losses([job(0, "++schedule=linear"), job(1, "++schedule=cosine")]), "nothing was measured"
