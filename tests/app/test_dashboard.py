"""Dashboards show a configuration as it is typed."""

from conftest import composed

from ddpm.app.dashboard import shown

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
