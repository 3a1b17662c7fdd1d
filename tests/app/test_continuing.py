"""Continuing a run: what is taken over, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import composed

from ddpm.app import arguments, command_line, run_directory
from ddpm.app.build import describe
from ddpm.app.continuing import Resume, begin_anew, resume, resume_on
from ddpm.app.left_run import LAYOUT, LeftRun
from ddpm.data.holdout import split
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.training.checkpoints import LAST, AtomicCheckpointIO
from ddpm.training.loggers import MetricsCSV

DATA = {"fingerprint": "of the pictures"}


def checkpoint_of(
    directory: Path, config: dict[str, Any], step: int, data: dict[str, Any] | None = None
) -> Path:
    (directory / "checkpoints").mkdir(parents=True)
    weights = {"state_dict": {}, "ema": {"parameters": {}, "num_updates": step}}
    AtomicCheckpointIO().save_checkpoint(
        {"config": config, "data": data or DATA, "global_step": step, **weights},
        directory / "checkpoints" / LAST,
    )
    return directory


def test_a_run_continues_with_its_own_configuration(tmp_path: Path):
    config = composed("train")
    run = checkpoint_of(tmp_path / "run", config, 100)
    found = resume({**config, "ckpt": str(run)}, DATA)
    assert found.step == 100
    assert found.run == run


def test_a_run_does_not_train_on_at_a_rate_of_zero(tmp_path: Path):
    config = composed("train")
    total = config["lr_schedule"]["total_steps"]
    run = checkpoint_of(tmp_path / "run", config, total)
    longer = {**config, "ckpt": str(run), "trainer": {**config["trainer"], "max_steps": total + 1}}
    with pytest.raises(UsageError, match=f"falls to 0 at step {total}.*lr_schedule=constant"):
        resume(longer, DATA)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("schedule=linear", "schedule._target_"),
        ("conditional=true", "conditional"),
        ("data.label_drop=0.5", "data.label_drop"),
        ("model.channels=64", "model.channels"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
    ],
)
def test_another_run_is_refused_by_name(override: str, named: str, tmp_path: Path):
    run = checkpoint_of(tmp_path / "run", composed("train"), 100)
    with pytest.raises(UsageError, match=f"belongs to another run: {named} is .* here and .* checkpoint"):
        resume({**composed("train", override), "ckpt": str(run)}, DATA)


def test_where_the_pictures_lie_may_differ_but_not_what_they_are(tmp_path: Path):
    run = checkpoint_of(tmp_path / "run", composed("train", "data.num_workers=0"), 100)
    config = {**composed("train", "data.num_workers=2"), "ckpt": str(run)}
    assert resume(config, DATA).step == 100
    with pytest.raises(UsageError, match="the images are not those that it was trained on"):
        resume(config, {"fingerprint": "of others"})
    elsewhere = composed("train", "data=folder", "data.path=x")
    run = checkpoint_of(tmp_path / "folder", elsewhere, 100)
    free = ("data.path=y", "data.split=all", "data.validation_split=test", "data.cache_limit=3")
    assert resume({**composed("train", "data=folder", *free), "ckpt": str(run)}, DATA).step == 100


def described(**changed: Any) -> dict[str, Any]:
    return {
        "fingerprint": str(changed),
        "num_train": 90,
        "num_validation": 10,
        "classes": ["a", "b"],
        **changed,
    }


@pytest.mark.parametrize(
    ("here", "there", "message"),
    [
        ({"classes": ["1", "2", "10"]}, {"classes": ["1", "10", "2"]},
         r"classes are 1, 2, 10 here and 1, 10, 2 in the checkpoint, in another order; init="),
        ({"classes": ["cat", "dog"]}, {"classes": ["test", "train"]},
         r"classes are cat, dog here and test, train in the checkpoint\. Folders such as train .* are parts"),
        ({"classes": None}, {"classes": ["data"]}, r"classes are none here and data in the checkpoint"),
        ({"num_train": 100, "understood": ["images: 100 to train on (train)", "classes: 2"]},
         {}, r"here there are 100 to train on \(train\); in the checkpoint 90 to train on, 10 held out\. "
             r"data\.split= and data\.validation_split= choose the parts; init="),
        ({"fingerprint": "x"}, {}, r"as many, with other pixels or labels.*version that trained it"),
    ],
)  # fmt: skip
def test_what_differs_between_the_images_is_told(
    here: dict[str, Any], there: dict[str, Any], message: str, tmp_path: Path
):
    config = composed("train")
    run = checkpoint_of(tmp_path / "run", config, 100, described(**there))
    with pytest.raises(UsageError, match=f"the images are not those that it was trained on.*{message}"):
        resume({**config, "ckpt": str(run)}, described(**here))


class Named:
    """A source of images in twelve classes."""

    def __init__(self, classes: list[str]):
        self.classes = classes

    def read(self) -> DataSet:
        names = [str(i % 12) for i in range(48)]
        labels = np.array([self.classes.index(name) for name in names])
        images = np.arange(48 * 4, dtype=np.uint8).reshape(48, 1, 2, 2)
        return split(ImageSet(images, labels), 0.25, self.classes)


def test_classes_keep_the_order_that_they_had(tmp_path: Path):
    """Earlier versions put 10 before 2; the checkpoint's labels are what its network knows."""
    config = composed("train")
    then = ImageDataModule(Named(sorted(map(str, range(12)))))
    run = checkpoint_of(tmp_path / "run", config, 100, describe(then))
    now = ImageDataModule(Named([str(i) for i in range(12)]))
    assert now.fingerprint != then.fingerprint
    assert resume_on({**config, "ckpt": str(run)}, now).step == 100
    assert {**describe(now), "understood": []} == describe(then)
    assert now.data_set.understood == [
        "the classes are numbered in the order of a run: 0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9"
    ]
    others = ImageDataModule(Named([str(i) for i in range(12)]))
    others.data_set = replace(others.data_set, train=others.data_set.validation)
    with pytest.raises(UsageError, match=r"here there are 12 to train on.* in the checkpoint 36 to"):
        resume_on({**config, "ckpt": str(run)}, others)


def left(directory: Path, *words: str, **config: Any) -> Path:
    """A run directory with a configuration and a checkpoint at step 10."""
    own = {**composed("train", "experiment=smoke", *words), **config}
    checkpoint_of(directory, own, 10)
    (directory / "config.yaml").write_text(yaml.safe_dump(own))
    return directory


@pytest.mark.e2e
@pytest.mark.parametrize("long_form", [False, True])
def test_what_is_typed_beside_ckpt_changes_the_runs_own_configuration(long_form: bool, tmp_path: Path):
    run = left(tmp_path / "run", "schedule=cosine", "tags=[mine]", "callbacks.samples.n=9")
    words = [f"ckpt={run}"] + ["--config-dir", str(run), "--config-name", "config"] * long_form
    own = composed("train", *words)
    assert own == {**composed("train", "experiment=smoke", "schedule=cosine", "tags=[mine]",
                              "callbacks.samples.n=9"), "ckpt": str(run)}  # fmt: skip

    def differing(*typed: str) -> set[str]:
        config = composed("train", *words, *typed)
        assert resume(config, DATA).step == 10
        return {key for key in own if config[key] != own[key]}

    assert differing("logger=none", "strategy=ddp") == {"logger", "strategy"}
    if long_form:
        return
    assert differing() == set()
    assert differing("sampler=ddim", "sampler.num_steps=3") == {"sampler"}
    assert differing("trainer.max_steps=2000", "trainer.devices=2") == {"trainer"}
    assert differing("lr_schedule=cosine", "lr_schedule.warmup_steps=3") == {"lr_schedule"}
    assert differing("callbacks=[default,best]", "tags=null") == {"callbacks", "tags"}
    config = composed("train", *words, "lr_schedule=one_cycle", "trainer.max_steps=77")
    assert config["lr_schedule"]["total_steps"] == 77, "interpolations meet the run's own values"
    assert composed("train", *words, "trainer.max_steps=77")["trainer"]["val_check_interval"] == 10


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("model.channels=24", "model.channels is 24 here and 16"),
        ("schedule=cosine", r"schedule\._target_ is .*cosine"),
        ("ema.decay=0.5", "ema.decay is 0.5 here"),
        ("data.batch_size=32", "data.batch_size is 32 here and 64"),
        ("optimizer=sgd", "optimizer._target_ is .*SGD"),
        ("seed=3", "seed is 3 here and 0"),
        ("trainer.overfit_batches=1", "trainer.overfit_batches is 1 here"),
    ],
)
def test_what_may_not_change_is_refused_by_name(typed: str, named: str, tmp_path: Path):
    run = left(tmp_path / "run")
    config = composed("train", f"ckpt={run}", typed, "trainer.max_steps=30")
    with pytest.raises(UsageError, match=f"belongs to another run: {named}.*init="):
        resume(config, DATA)


def test_with_an_experiment_beside_it_the_configuration_is_what_is_typed(tmp_path: Path):
    run = left(tmp_path / "run", "schedule=cosine")
    config = composed("train", f"ckpt={run}", "experiment=smoke", "trainer.max_steps=30")
    assert config["schedule"]["_target_"].endswith("linear")
    with pytest.raises(UsageError, match=r"schedule\._target_ is .*linear.* here and .*cosine"):
        resume(config, DATA)
    config = composed("train", f"ckpt={run}", "experiment=smoke", "schedule=cosine", "trainer.max_steps=30")
    assert resume(config, DATA).step == 10


def test_a_checkpoint_file_belongs_to_its_run(tmp_path: Path):
    run = left(tmp_path / "图 1" / "run", "schedule=cosine")
    for path in (run, run / "checkpoints", run / "checkpoints" / LAST):
        assert composed("train", f"ckpt={path}")["schedule"]["_target_"].endswith("cosine")


def test_what_lies_around_a_checkpoint_is_not_its_run(tmp_path: Path):
    """A folder of checkpoints in a project of another kind, whose own configuration it has."""
    (tmp_path / "config.yaml").write_text("trainer: of another project\n")
    file = checkpoint_of(tmp_path / "kept", composed("train"), 10) / "checkpoints" / LAST
    lone = file.rename(tmp_path / "kept" / "best.ckpt")
    for path in (lone, lone.parent):
        assert composed("train", f"ckpt={path}")["trainer"]["max_steps"] > 10


def test_a_finished_one_cycle_run_goes_on_with_another_schedule(tmp_path: Path):
    run = left(tmp_path / "run", "lr_schedule=one_cycle", "trainer.max_steps=10")
    with pytest.raises(UsageError, match=r"at step 10 already.*trainer\.max_steps=20 lr_schedule=constant"):
        resume(composed("train", f"ckpt={run}"), DATA)
    with pytest.raises(UsageError, match=r"falls to 0 at step 10.*lr_schedule=constant"):
        resume(composed("train", f"ckpt={run}", "trainer.max_steps=20"), DATA)
    config = composed("train", f"ckpt={run}", "trainer.max_steps=20", "lr_schedule=constant")
    assert resume(config, DATA).step == 10


@pytest.mark.e2e
def test_a_runs_configuration_that_tells_hydra_something_is_refused(tmp_path: Path):
    """It may come from a stranger, and Hydra builds what it names."""
    run = left(tmp_path / "run")
    own = yaml.safe_load((run / "config.yaml").read_text())
    for form in ([f"ckpt={run}"], ["--config-dir", str(run), "--config-name", "config"]):
        callback = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
        for key, told in (
            (r"hydra\.callbacks", {"hydra": {"callbacks": {"x": callback}}}),
            (r"hydra\.sweep", {"hydra": {"sweep": {"dir": "elsewhere"}}}),
            (r"hydra", {"hydra": None}),
            (r"defaults", {"defaults": ["train", "_self_"]}),
        ):
            (run / "config.yaml").write_text(yaml.safe_dump({**own, **told}))
            with pytest.raises(UsageError, match=rf"run/config\.yaml: {key} "):
                composed("train", *form)
        (run / "config.yaml").write_text(yaml.safe_dump({**own, "allow_targets": ["os"]}))
        assert composed("train", *form)["allow_targets"] == []
        evil = {**own, "allow_targets": ["os"], "callbacks": {**own["callbacks"], "evil": callback}}
        (run / "config.yaml").write_text(yaml.safe_dump(evil))
        with pytest.raises(UsageError, match=r"callbacks\.evil\._target_=os\.mkdir: is not in an allowed"):
            composed("train", *form)
        assert not (tmp_path / "made").exists()


def test_what_version_0_1_told_hydra_is_left_out(tmp_path: Path):
    run = left(tmp_path / "run")
    own = yaml.safe_load((run / "config.yaml").read_text())
    told = {"job": {"name": "train"}, "run": {"dir": "${run_dir:train,digits,linear,tiny}"}}
    for part, is_fine in ((told, True), ({**told, "run": {"dir": "${oc.env:HOME}"}}, False)):
        (run / "config.yaml").write_text(
            yaml.safe_dump({"defaults": ["run", "_self_"], **own, "hydra": part})
        )
        if is_fine:
            assert "hydra" not in composed("train", f"ckpt={run}")
        else:
            with pytest.raises(UsageError, match=r"config\.yaml: hydra "):
                composed("train", f"ckpt={run}")


def test_a_number_in_a_runs_configuration_is_one_however_it_is_written(tmp_path: Path):
    run = left(tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("  lr: 0.002", "  lr: 2e-3"))
    assert "2e-3" in (run / "config.yaml").read_text()
    assert resume(composed("train", f"ckpt={run}", "trainer.max_steps=30"), DATA).step == 10


def test_nothing_in_a_run_directory_is_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor does Hydra find it in a sweep, which it composes by itself."""
    run = left(tmp_path / "run")
    made = tmp_path / "made"
    callback = {"callbacks": {"x": {"_target_": "os.mkdir", "path": str(made)}}}
    for group in ("hydra/launcher", "hydra/callbacks", "callbacks", "data", "experiment", "evil"):
        (run / group).mkdir(parents=True)
        text = f"# @package _global_\n{yaml.safe_dump({'hydra': callback})}"
        (run / group / "digits.yaml").write_text(text)
    words = ["--config-dir", str(run), "--config-name", "config", "-m", "seed=1", "logger=csv"]
    words += ["hydra/launcher=basic", f"hydra.sweep.dir='{tmp_path}/sweep'"]
    jobs: list[Any] = []
    monkeypatch.setattr("sys.argv", ["train.py"])
    run_directory.register_resolver()
    command_line._hand_to_hydra(jobs.append, arguments.read(words), "train")
    assert list(jobs[0].logger) == ["csv"]
    for word in ("hydra/callbacks=digits", "hydra/launcher=digits", "callbacks=digits", "evil=digits"):
        with pytest.raises(UsageError):
            command_line.checked(arguments.read([*words, word]), "train")
    with pytest.raises(UsageError, match="is a run directory, whose files are no options"):
        command_line.checked(arguments.read(["--config-dir", str(run)]), "train")
    assert not made.exists()


def test_a_configuration_that_is_no_yaml_is_named(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("a: [")
    words = ["--config-dir", str(tmp_path), "--config-name", "config"]
    with pytest.raises(UsageError, match=r"config\.yaml: cannot be read"):
        command_line.checked(arguments.read(words), "train")


@pytest.mark.parametrize("content", ["a: [", "just words", "a: 1\n", ""])
def test_a_configuration_that_is_none_is_refused(content: str, tmp_path: Path):
    run = left(tmp_path / "run")
    (run / "config.yaml").write_text(content)
    with pytest.raises(UsageError, match=r"config\.yaml: "):
        composed("train", f"ckpt={run}")


def test_continuing_in_place_drops_what_came_after_the_checkpoint(tmp_path: Path):
    for step in (10, 20, 30):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / f"step_{step:08d}.ckpt").touch()
    (tmp_path / "metrics.csv").write_text("step,train/loss\n10,3.0\n20,2.0\n30,1.0\n")
    found = Resume(tmp_path / "checkpoints/step_00000020.ckpt", 20, None, {})
    found.take_over_history(MetricsCSV(tmp_path / "metrics.csv"))
    assert (tmp_path / "metrics.csv").read_text() == "step,train/loss\n10,3.0\n20,2.0\n"
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step_00000010.ckpt", "step_00000020.ckpt", "step_00000030.ckpt.passed_over"]


def test_continuing_elsewhere_leaves_the_first_run_alone(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "checkpoints").mkdir(parents=True)
    second.mkdir()
    for step in (20, 30):
        (first / "checkpoints" / f"step_{step:08d}.ckpt").touch()
    (first / "metrics.csv").write_text("step,train/loss\n20,2.0\n30,1.0\n")
    found = Resume(first / "checkpoints/step_00000020.ckpt", 20, None, {})
    found.take_over_history(MetricsCSV(second / "metrics.csv"))
    assert (second / "metrics.csv").read_text() == "step,train/loss\n20,2.0\n"
    assert (first / "metrics.csv").read_text() == "step,train/loss\n20,2.0\n30,1.0\n"
    assert len(list((first / "checkpoints").iterdir())) == 2


def test_a_new_schedule_that_lasts_as_long_as_the_run_has_the_steps_that_are_left(tmp_path: Path):
    """It begins at its own step 0 where the run goes on; with all steps it would never come to its end."""
    run = checkpoint_of(tmp_path / "run", composed("train", "trainer.max_steps=100"), 100)
    on = composed("train", "lr_schedule=cosine", "trainer.max_steps=300")
    assert on["lr_schedule"]["total_steps"] == 300
    assert resume({**on, "ckpt": str(run)}, DATA).lr_schedule["total_steps"] == 200
    typed = composed("train", "lr_schedule=cosine", "trainer.max_steps=300", "lr_schedule.total_steps=250")
    assert resume({**typed, "ckpt": str(run)}, DATA).lr_schedule["total_steps"] == 250


def test_a_checkpoint_file_alone_holds_the_runs_own_configuration(tmp_path: Path):
    config = composed("train", "schedule=cosine", "lr_schedule=warmup")
    directory = checkpoint_of(tmp_path / "run", config, 100)
    (directory / "config.yaml").unlink(missing_ok=True)
    moved = shutil.copy(directory / "checkpoints" / LAST, tmp_path / "alone.ckpt")
    for ckpt in (moved, directory):
        words = arguments.read([f"ckpt={ckpt}", "trainer.max_steps=4000"])
        [job], _ = command_line.checked(words, "train")
        assert job.values["schedule"] == config["schedule"]
        assert job.values["trainer"]["max_steps"] == 4000
        assert resume(job.values, DATA).step == 100


@pytest.mark.e2e
@pytest.mark.parametrize("value", ["${oc.env:HOME}", ["${seed}"]])
def test_a_strangers_configuration_reads_nothing_of_this_machine(value: Any, tmp_path: Path):
    run = checkpoint_of(tmp_path / "run", composed("train"), 100)
    (run / "config.yaml").write_text(yaml.safe_dump({**composed("train"), "tags": value}))
    with pytest.raises(UsageError, match=r"tags.* holds an interpolation"):
        command_line.checked(arguments.read([f"ckpt={run}"]), "train")


def recorded(directory: Path, **record: Any) -> LeftRun:
    """The run in a directory, with this record."""
    (directory / "run.json").write_text(json.dumps({"layout": LAYOUT, **record}))
    own = yaml.safe_load((directory / "config.yaml").read_text())
    return LeftRun(directory, {"layout": LAYOUT, **record}, own)


class Fixed(ImageDataModule):
    """Data whose description is known, for checkpoints that were made by hand."""

    fingerprint = DATA["fingerprint"]


def test_the_checkpoints_in_its_own_directory_come_first(tmp_path: Path):
    data = Fixed(Named([str(i) for i in range(12)]))
    other = checkpoint_of(tmp_path / "other", composed("train", "experiment=smoke"), 7)
    run = recorded(left(tmp_path / "run"), status="running")
    config = composed("train", "experiment=smoke")
    assert resume_on(config, data) is None
    for typed in ({}, {"ckpt": str(other)}, {"init": str(other)}):
        found = resume_on({**config, **typed}, data, run)
        assert found is not None
        assert (found.step, found.run) == (10, run.directory)
    (run.directory / "checkpoints" / LAST).unlink()
    assert resume_on(config, data, run) is None
    found = resume_on({**config, "ckpt": str(other)}, data, run)
    assert found is not None
    assert (found.step, found.run) == (7, other)


def test_a_run_goes_back_to_a_checkpoint_of_its_own_once(tmp_path: Path):
    """The same command again goes on from where the run has come to since."""
    data = Fixed(Named([str(i) for i in range(12)]))
    directory = left(tmp_path / "run")
    early = directory / "checkpoints" / "step_00000004.ckpt"
    config = composed("train", "experiment=smoke")
    (checkpoint_of(tmp_path / "made", config, 4) / "checkpoints" / LAST).rename(early)
    typed = {**config, "ckpt": str(early)}
    found = resume_on(typed, data, recorded(directory, status="interrupted", continued_from=None))
    assert found is not None
    assert found.step == 4
    found = resume_on(typed, data, recorded(directory, status="running", continued_from=str(early)))
    assert found is not None
    assert found.step == 10


def test_all_checkpoints_of_a_directory_being_damaged_is_told(tmp_path: Path):
    """To begin anew would delete what may be mended."""
    run = recorded(left(tmp_path / "run"), status="running")
    (run.directory / "checkpoints" / LAST).write_bytes(b"torn")
    with pytest.raises(UsageError, match=r"hydra\.run\.dir=.*last\.ckpt"):
        resume_on(composed("train", "experiment=smoke"), Fixed(Named([str(i) for i in range(12)])), run)


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "finished"])
def test_a_run_that_was_killed_in_its_last_step_goes_on_to_the_end_of_it(status: str, tmp_path: Path):
    """By ckpt= too; one that is complete is told to be."""
    run = recorded(left(tmp_path / "run", "trainer.max_steps=10"), status=status)
    config = composed("train", f"ckpt={run.directory}")
    if status == "finished":
        with pytest.raises(UsageError, match="is at step 10 already"):
            resume(config, DATA)
    else:
        assert resume(config, DATA).step == 10
    with pytest.raises(UsageError, match="is at step 10 already"):
        resume({**config, "trainer": {**config["trainer"], "max_steps": 9}}, DATA)


def test_a_time_limit_does_not_complete_a_run(tmp_path: Path):
    record = {"status": "finished", "why": "trainer.max_time is over, 0:00:01", "step": 10}
    run = recorded(left(tmp_path / "run", "trainer.max_steps=10"), **record)
    config = composed("train", "experiment=smoke", "trainer.max_steps=10")
    assert not run.has_nothing_left(config)
    done = recorded(run.directory, **{**record, "why": "trainer.max_steps=10 is reached"})
    assert done.has_nothing_left(config)
    for more in (11, -1):
        assert not done.has_nothing_left({**config, "trainer": {**config["trainer"], "max_steps": more}})
    assert not done.has_nothing_left({**config, "ckpt": str(run.directory)}), "it is asked for by name"


def test_going_back_in_place_sets_what_is_of_later_steps_aside(tmp_path: Path):
    checkpoints, samples = tmp_path / "checkpoints", tmp_path / "samples"
    checkpoints.mkdir()
    samples.mkdir()
    for step in (10, 20):
        (checkpoints / f"step_{step:08d}.ckpt").write_text(str(step))
        (samples / f"step_{step:08d}.png").touch()
    (checkpoints / LAST).hardlink_to(checkpoints / "step_00000020.ckpt")
    (samples / "step_mine.png").touch()
    (tmp_path / "metrics.csv").write_text("step,train/loss\n10,2.0\n20,1.0\n")
    found = Resume(checkpoints / "step_00000010.ckpt", 10, None, {})
    found.take_over_history(MetricsCSV(tmp_path / "metrics.csv"))
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "step_00000010.ckpt",
        "step_00000020.ckpt.passed_over",
    ]
    assert sorted(path.name for path in samples.iterdir()) == ["step_00000010.png", "step_mine.png"]


def test_folders_in_the_place_of_files_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    checkpoints, grid = tmp_path / "checkpoints", tmp_path / "samples" / "step_00000030.png"
    grid.mkdir(parents=True)
    (checkpoints / LAST).mkdir(parents=True)
    (checkpoints / "step_00000010.ckpt").touch()
    found = Resume(checkpoints / "step_00000010.ckpt", 10, None, {})
    found.take_over_history(MetricsCSV(tmp_path / "metrics.csv"))
    assert grid.is_dir()
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "last.ckpt.passed_over",
        "step_00000010.ckpt",
    ]
    assert "no rows of the first 10 steps" in caplog.text


def test_what_a_start_left_that_had_saved_nothing_is_dropped(tmp_path: Path):
    (tmp_path / "samples").mkdir()
    for name in ("step_00000005.png", "raw_step_00000005.png"):
        (tmp_path / "samples" / name).touch()
    (tmp_path / "metrics.csv").write_text("step,train/loss\n5,1.0\n")
    (tmp_path / "notes.txt").touch()
    begin_anew(MetricsCSV(tmp_path / "metrics.csv"))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["notes.txt", "samples"]
