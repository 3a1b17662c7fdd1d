"""Dashboards show a configuration as it is typed."""

import json
from pathlib import Path

import pytest
from conftest import composed

from ddpm.app.continuing import Resume, chosen
from ddpm.app.dashboard import shown
from ddpm.app.run_directory import Place

CHOICES = {
    "data": "digits",
    "schedule": "cosine",
    "model": "smoke",
    "experiment": "smoke",
    "optimizer": "adam",
}


def test_options_have_their_names_and_keys_their_dots():
    config = composed("train", "experiment=smoke", "schedule=cosine", "model.channels=8")
    found = shown(config, {"num_train": 3, "facts": {"mean": [0.5]}}, CHOICES)
    assert set(list(found)[: len(CHOICES)]) == set(CHOICES), "they come first"
    assert {key: found[key] for key in CHOICES} == CHOICES
    assert (found["schedule.offset"], found["model.channels"], found["seed"]) == (0.008, 8, 0)
    assert (found["data_set.num_train"], found["data_set.facts.mean"]) == (3, [0.5])
    assert (found["callbacks.samples"], found["callbacks.samples.sampler"]) == ("SampleGrids", "DDIM")
    assert found["sampler"] == "Ancestral", "no option of it is known"
    assert not [key for key in found if "_target_" in key or key.startswith(("logger", "hydra", "verbose"))]


def test_an_option_that_something_else_was_typed_into_is_not_named():
    config = composed("train", "experiment=smoke")
    config["schedule"] = {"_target_": "mine.schedules.Own", "steps": 3}
    found = shown(config, None, {"schedule": "linear"})
    assert (found["schedule"], found["schedule.steps"]) == ("mine.schedules.Own", 3)


@pytest.mark.parametrize(("overrides", "schedule"), [((), "cosine"), (("schedule=sigmoid",), "sigmoid")])
def test_a_run_that_goes_on_has_the_options_of_the_run_before(
    overrides: tuple[str, ...], schedule: str, tmp_path: Path
):
    (tmp_path / "run.json").write_text(
        json.dumps({"layout": 1, "status": "finished", "choices": {"schedule": "cosine", "data": "folder"}})
    )
    composed_now = {"schedule": schedule if overrides else "linear", "data": "digits", "trainer": "cpu"}
    place = Place(tmp_path / "new", choices=composed_now, overrides=(f"ckpt={tmp_path}", *overrides))
    resume = Resume(tmp_path / "checkpoints" / "last.ckpt", 5, wandb_id=None, lr_schedule={})
    assert chosen(place, resume) == {"schedule": schedule, "data": "folder", "trainer": "cpu"}
    assert chosen(place, None) == composed_now
