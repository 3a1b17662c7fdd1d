"""Samples that are measured: which classes they are asked to be of, and what their values are called."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ddpm.data.images import DataSet, ImageSet
from ddpm.diffusion.guidance import Autoguidance, ClassifierFree, NoGuidance
from ddpm.diffusion.samplers import DDIM, Ancestral, DPMSolver, Heun
from ddpm.evaluation.quality.drawn import classes_of, name_of


def run(num_classes: int | None) -> Any:
    return SimpleNamespace(num_classes=num_classes, conditions=None)


def data(labels: list[int] | None) -> DataSet:
    n = 12 if labels is None else len(labels)
    found = ImageSet(np.zeros((n, 1, 2, 2), np.uint8), None if labels is None else np.array(labels))
    return DataSet(found, found)


UNBALANCED = [2] * 20 + [0] * 60 + [1] * 20


@pytest.mark.parametrize(("n", "counts"), [(100, [60, 20, 20]), (10, [6, 2, 2]), (1000, [600, 200, 200])])
def test_classes_are_as_frequent_as_in_training(n: int, counts: list[int]):
    found = classes_of(run(3), data(UNBALANCED), n)
    assert found is not None
    assert found.dtype == np.int64
    assert np.bincount(found, minlength=3).tolist() == counts


def test_any_number_of_samples_is_as_near_to_it_as_can_be():
    for n in range(1, 40):
        found = classes_of(run(3), data(UNBALANCED), n)
        assert found is not None
        assert np.abs(np.bincount(found, minlength=3) - n * np.array([0.6, 0.2, 0.2])).max() < 1


def test_fewer_samples_than_classes_are_of_different_ones():
    found = classes_of(run(50), data(list(range(50)) * 2), 7)
    assert found is not None
    assert len(set(found.tolist())) == 7
    assert max(found) - min(found) > 25


def test_their_order_is_not_that_of_the_classes_and_the_same_each_time():
    found = classes_of(run(3), data(UNBALANCED), 100)
    assert found is not None
    assert not (np.diff(found) >= 0).all()
    assert len(set(found[:20].tolist())) == 3
    assert np.array_equal(found, classes_of(run(3), data(UNBALANCED), 100))


def test_where_no_labels_are_held_all_classes_are_as_frequent():
    found = classes_of(run(4), data(None), 40)
    assert found is not None
    assert np.bincount(found).tolist() == [10] * 4


def test_without_classes_none_is_asked_for():
    assert classes_of(run(None), data(UNBALANCED), 5) is None


class Own(DDIM):
    pass


def named(
    sampler: Any, steps: int, guidance: Any = None, weights: str = "ema", length: float | None = None
) -> str:
    drawing: Any = SimpleNamespace(
        model=SimpleNamespace(sigma_rel=length),
        weights=weights,
        sampler=sampler,
        steps=steps,
        guidance=guidance or NoGuidance(),
    )
    return name_of(drawing)


def test_names_of_samples():
    assert named(Own(5), 5) == "ema_Own5"
    assert named(Ancestral(), 1000) == "ema_ancestral1000"
    assert named(DDIM(50, eta=1.0), 50) == "ema_ddim50_eta1"
    assert named(Heun(9, churn=30.0), 17) == "ema_heun17_churn30"
    assert named(DPMSolver(20, stochastic=True), 20) == "ema_dpm_solver20_stochastic"
    assert named(DDIM(50), 50, ClassifierFree(1.5), "raw") == "raw_ddim50_guided1.5"
    assert named(DDIM(50), 50, ClassifierFree(2.0, shape="cosine")) == "ema_ddim50_guided2cosine"
    assert named(DDIM(50), 50, Autoguidance("run", 1.5), length=0.05) == "ema0.05_ddim50_autoguided1.5"
