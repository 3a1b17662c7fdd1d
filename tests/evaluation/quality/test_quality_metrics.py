"""What each measure of samples writes down: the pure functions' values, under names that say all."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_images import Averages, Judge, compared, data_set, drawn, features, images, measured

from ddpm.app.measuring.figures import figures_of
from ddpm.evaluation.measures import density_coverage, inception_score, kid, memorisation, rows
from ddpm.evaluation.measures import mifid as mifid_module
from ddpm.evaluation.measures import precision_recall as precision_recall_module
from ddpm.evaluation.measures.frechet import FrechetTo, bootstrapped, extrapolated
from ddpm.evaluation.measures.moments import Gaussian, gaussian
from ddpm.evaluation.quality import kernel_distance
from ddpm.evaluation.quality.density_coverage import DensityCoverage
from ddpm.evaluation.quality.frechet import FID, ClassifierDistance, EfficientNetDistance
from ddpm.evaluation.quality.inception_score import InceptionScore
from ddpm.evaluation.quality.intervals import share
from ddpm.evaluation.quality.kernel_distance import KID
from ddpm.evaluation.quality.material import Material, Reference, in_thousands
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.evaluation.quality.mifid import MiFID
from ddpm.evaluation.quality.nearest import Nearest, _short
from ddpm.evaluation.quality.own_label import OwnLabel
from ddpm.evaluation.quality.precision_recall import PrecisionRecall
from ddpm.sampling.captions import text_width
from ddpm.sampling.figures import CELL

SAMPLES, TRAIN = features(drawn().read(range(50))), features(data_set().train.images)


@pytest.mark.parametrize(
    ("metric", "short"), [(FID, "fid"), (ClassifierDistance, "fd"), (EfficientNetDistance, "fd")]
)
def test_a_frechet_distance_with_its_interval_and_limit(metric: Any, short: str, tmp_path: Path):
    metrics = {"x": metric(replicates=5, points=4)}
    found = measured(metrics, tmp_path)["x"]
    reference = gaussian(TRAIN)
    value, _ = bootstrapped(SAMPLES, reference, replicates=5, seed=0)
    limit = extrapolated(SAMPLES, reference, points=4, seed=0)
    assert found.pop(f"{short}50_train_averages_ema_ddim20") == pytest.approx(value.value)
    assert found.pop("of")["reference"]["images"] == 60
    assert found == {
        "standard_error": pytest.approx(value.standard_error),
        "interval": pytest.approx(list(value.interval())),
        "extrapolated": pytest.approx(limit.value),
        "extrapolated_standard_error": pytest.approx(limit.standard_error),
    }


def test_what_a_frechet_distance_leaves_out(tmp_path: Path):
    found = measured({"x": FID(replicates=0, points=0)}, tmp_path)["x"]
    assert set(found) == {"fid50_train_averages_ema_ddim20", "of"}
    found = measured({"x": FID(replicates=2)}, tmp_path, drawn(15))["x"]
    assert "extrapolated" not in found
    assert found["standard_error"] > 0


def test_the_kernel_distance_of_all_pairs_and_of_subsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = "kid50_train_averages_ema_ddim20"
    every = kid.kid(SAMPLES, TRAIN)
    some, values = kid.kid_of_subsets(SAMPLES, TRAIN, subsets=7, size=20, seed=0)
    for subsets in (0, None):
        found = measured({"kid": KID(subsets)}, tmp_path)["kid"]
        assert found[name] == pytest.approx(every.value)
        assert found["interval"] == pytest.approx(list(every.interval()))
        assert "subsets" not in found
    found = measured({"kid": KID(7, 20)}, tmp_path)["kid"]
    assert name not in found
    assert found["kid50_subsets7x20_train_averages_ema_ddim20"] == pytest.approx(some.value)
    assert found["standard_error"] == pytest.approx(some.standard_error)
    assert found["deviation_of_subsets"] == pytest.approx(values.std().item())
    assert (found["subsets"], found["size"]) == (7, 20)
    monkeypatch.setattr(kernel_distance, "MOST_PAIRS", 50 * 60 - 1)
    assert measured({"kid": KID(size=20)}, tmp_path)["kid"]["subsets"] == 100


def test_precision_and_recall(tmp_path: Path):
    found = measured({"x": PrecisionRecall()}, tmp_path)["x"]
    expected = precision_recall_module.precision_recall(SAMPLES, TRAIN)
    assert found["precision50_train_averages_ema_ddim20"] == expected.precision
    assert found["recall50_train_averages_ema_ddim20"] == expected.recall
    assert found["precision_interval"] == share(expected.precision, 50)
    assert found["recall_interval"] == share(expected.recall, 60)
    assert found["images_of_reference"] == 60
    assert PrecisionRecall(k=2).fewest == 3


def test_density_and_coverage(tmp_path: Path):
    found = measured({"x": DensityCoverage()}, tmp_path)["x"]
    expected = density_coverage.density_coverage(SAMPLES, TRAIN)
    assert found["density50_train_averages_ema_ddim20"] == expected.density
    assert found["coverage50_train_averages_ema_ddim20"] == expected.coverage
    assert found["coverage_interval"] == share(expected.coverage, 60)


def test_a_distance_that_grows_with_copies(tmp_path: Path):
    found = measured({"x": MiFID()}, tmp_path)["x"]
    expected = mifid_module.mifid(SAMPLES, TRAIN)
    assert found["mifid50_train_averages_ema_ddim20"] == pytest.approx(expected.distance)
    assert found["mean_cosine_distance"] == pytest.approx(expected.mean_cosine_distance)


def test_the_inception_score_names_no_reference(tmp_path: Path):
    found = measured({"x": InceptionScore()}, tmp_path)["x"]
    expected = inception_score.inception_score(9 * SAMPLES[:, :3], seed=0)
    assert found["is50_averages_ema_ddim20"] == pytest.approx(expected.mean)
    assert found["deviation_of_splits"] == pytest.approx(expected.deviation)
    assert found["of"]["reference"] is None


def test_the_share_that_is_of_its_own_class(tmp_path: Path):
    metrics = {"own_label": OwnLabel()}
    found = measured(metrics, tmp_path, comparison=compared(metrics, tmp_path, extractor=Judge()))[
        "own_label"
    ]
    right = SAMPLES[:, :3].argmax(1).numpy() == np.arange(50) % 3
    assert found["own_label50_classifier_ema_ddim20"] == pytest.approx(right.mean())
    assert found["interval"] == share(right.mean(), 50)
    assert found["of_held_out_images"] == 0.9
    assert found["by_class"] == {str(i): pytest.approx(right[i::3].mean()) for i in range(3)}


def test_copies_are_found_named_and_shown(tmp_path: Path):
    """Ten samples are training images."""
    data = data_set()
    shown = np.concatenate([images(3, 20), data.train.images[5:15]])
    metrics = {"nearest": Nearest()}
    found = measured(metrics, tmp_path, drawn(shown=shown), compared(metrics, tmp_path, data))["nearest"]
    sets = [features(part) for part in (shown, data.train.images, data.validation.images)]
    expected = memorisation.memorisation(*sets)
    assert found["nearest30_averages_ema_ddim20"] == pytest.approx(expected.ratio)
    assert (found["z"], found["p_value"]) == pytest.approx((expected.z, expected.p_value))
    assert found["copies"] == len(expected.copies) == 10
    assert found["copied"] == [{"sample": 20 + i, "training_image": 5 + i} for i in range(10)]
    assert found["training_images_copied"] == list(range(5, 15))
    assert found["memorised"] is True
    assert found["copies_among_held_out"] == expected.false_copies
    assert [one["split"] for one in found["of"]["reference"]] == ["train", "validation"]
    assert (tmp_path / "nearest.png").exists()
    none = measured(metrics, tmp_path, drawn(20), compared(metrics, tmp_path, data))["nearest"]
    assert none["memorised"] is False


def test_captions_of_the_nearest_fit_above_small_images():
    captions = [f"train {_short(torch.tensor(value))}" for value in (0, 0.708, 9.999, 34.56, 99.99, 345.6)]
    assert captions[1:] == ["train 0.71", "train 10.0", "train 34.6", "train 100", "train 346"]
    assert all(text_width(caption) <= CELL for caption in captions)


@pytest.mark.parametrize(
    ("n", "words"), [(50_000, "50k"), (2000, "2k"), (1437, "1437"), (360, "360"), (1000, "1k"), (999, "999")]
)
def test_numbers_of_samples_in_names(n: int, words: str):
    assert in_thousands(n) == words


def test_a_name_says_all_that_a_value_depends_on(tmp_path: Path):
    material = Material(
        replace(drawn(), n=2000, name="raw_ancestral1000_guided1.5"),
        SAMPLES, Averages(bf16=True), None, None, None, tmp_path, 0, lambda: None,
    )  # fmt: skip
    assert material.named("is") == "is2k_averages_bf16_raw_ancestral1000_guided1.5"


@pytest.mark.parametrize(
    ("metric", "usual", "named"),
    [
        (KID(7, 20), "kid50_train", "kid50_subsets7x20_train"),
        (KID(7, 21), "kid50_train", "kid50_subsets7x21_train"),
        (PrecisionRecall(2), "precision50_train", "precision50_k2_train"),
        (PrecisionRecall(2), "recall50_train", "recall50_k2_train"),
        (DensityCoverage(4), "density50_train", "density50_k4_train"),
        (DensityCoverage(4), "coverage50_train", "coverage50_k4_train"),
        (MiFID(0.5), "mifid50_train", "mifid50_far0.5_train"),
        (InceptionScore(4), "is50_averages", "is50_splits4_averages"),
    ],
)
def test_a_setting_that_changes_a_value_is_in_its_name(metric: Any, usual: str, named: str, tmp_path: Path):
    own, others = (measured({"x": each}, tmp_path)["x"] for each in (metric, type(metric)()))
    assert any(name.startswith(f"{named}_") for name in own)
    assert any(name.startswith(f"{usual}_") for name in others)
    assert not {name for name in own if name.startswith(f"{usual}_")}
    # and the short names of tables and figures stay
    assert set(figures_of({"x": own})) == set(figures_of({"x": others}))


def kinds(of: type[QualityMetric] = QualityMetric) -> Iterator[type[QualityMetric]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_whoever_waits_hears_of_each_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of whatever compares: the others take a leader for dead that says nothing for long."""
    monkeypatch.setattr(rows, "MOST_ROWS", 10)
    compares = {kind.__name__: kind() for kind in kinds() if kind.compares or kind.compares_both}
    assert {"FID", "KID", "PrecisionRecall", "DensityCoverage", "MiFID", "Nearest"} <= set(compares)
    data, said = data_set(), []
    train, held_out = (
        Reference(name, len(split), {}, features(split.images), images=split)
        for name, split in (("train", data.train), ("validation", data.validation))
    )
    for name, metric in compares.items():
        material = Material(
            drawn(), SAMPLES, Averages(), train, train, held_out, tmp_path, 0, lambda: said.append(1)
        )
        said.clear()
        metric(material)
        assert len(said) >= 5 * 6, name  # of pairs, or of samples for each of the repetitions
    said.clear()
    KID(7, 20)(material)
    assert len(said) == 7


def test_the_covariance_of_a_reference_is_taken_apart_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made, init = [], FrechetTo.__init__

    def counted(self: FrechetTo, reference: Gaussian) -> None:
        made.append(reference)
        init(self, reference)

    monkeypatch.setattr(FrechetTo, "__init__", counted)
    measured({"fid": FID(2, 3), "fd": FID(3, 4), "mifid": MiFID()}, tmp_path)
    assert len(made) == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FID(replicates=1), "replicates=1"),
        (lambda: FID(points=2), "points=2"),
        (lambda: KID(1), r"metrics\.kid\.subsets=1"),
        (lambda: KID(size=1), r"metrics\.kid\.size=1"),
        (lambda: PrecisionRecall(0), r"metrics\.precision_recall\.k=0"),
        (lambda: DensityCoverage(0), r"metrics\.density_coverage\.k=0"),
        (lambda: MiFID(1.5), r"metrics\.mifid\.far=1\.5"),
        (lambda: InceptionScore(0), r"metrics\.inception_score\.splits=0"),
        (lambda: Nearest(1.0), r"metrics\.nearest\.threshold=1\.0"),
    ],
)
def test_settings_out_of_range_are_refused(build: Any, message: str):
    with pytest.raises(ValueError, match=message):
        build()
