"""From samples to values: one extractor's features once, by all ranks; what cannot be measured is refused."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_images import Averages, compared, data_set, images, measured
from torch import Tensor
from torch.distributed import HashStore

from ddpm.data.images import ImageSet
from ddpm.errors import UsageError
from ddpm.evaluation.extractors.classifier import Classifier
from ddpm.evaluation.extractors.efficientnet import EfficientNet
from ddpm.evaluation.extractors.inception import Inception
from ddpm.evaluation.extractors.pixels import Pixels
from ddpm.evaluation.measures.moments import gaussian
from ddpm.evaluation.quality import features as features_module
from ddpm.evaluation.quality import measuring
from ddpm.evaluation.quality.frechet import FID, ClassifierDistance, EfficientNetDistance
from ddpm.evaluation.quality.inception_score import InceptionScore
from ddpm.evaluation.quality.kernel_distance import KID
from ddpm.evaluation.quality.measuring import check, extractors_for, seconds_to_extract
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.evaluation.quality.mifid import MiFID
from ddpm.evaluation.quality.nearest import Nearest
from ddpm.evaluation.quality.own_label import OwnLabel
from ddpm.evaluation.quality.precision_recall import PrecisionRecall
from ddpm.evaluation.reference_file import write
from ddpm.runtime.sharing import Sharing


def test_each_has_the_extractor_of_its_definition_or_the_one_that_is_chosen():
    every: dict[str, QualityMetric] = {
        "fid": FID(), "kid": KID(), "fd_classifier": ClassifierDistance(), "own_label": OwnLabel(),
        "fd_efficientnet": EfficientNetDistance(), "nearest": Nearest(),
    }  # fmt: skip
    own = extractors_for(every, None)
    kinds = [Inception, Inception, Classifier, Classifier, EfficientNet, Pixels]
    assert [type(one) for one in own.values()] == kinds
    assert own["fid"] is own["kid"]
    assert own["fd_classifier"] is own["own_label"]
    chosen = Classifier("somewhere")
    found = extractors_for(every, chosen)
    assert [name for name, one in found.items() if one is chosen] == [
        "kid", "fd_classifier", "own_label", "nearest",
    ]  # fmt: skip
    assert isinstance(found["fid"], Inception)
    file = Inception("weights.pth")
    assert extractors_for({"fid": FID()}, file)["fid"] is file


def test_an_extractor_that_nothing_uses_is_refused():
    with pytest.raises(UsageError, match=r"extractor=pixels: fid cannot use it, inception belongs"):
        extractors_for({"fid": FID()}, Pixels())


def test_metrics_of_one_extractor_share_its_features(tmp_path: Path):
    metrics = {"fid": FID(replicates=0), "kid": KID(), "nearest": Nearest()}
    comparison = compared(metrics, tmp_path)
    extractor: Any = comparison.extractors["fid"]
    found = measured(metrics, tmp_path, comparison=comparison)
    assert list(found) == list(metrics)
    assert extractor.computed == 50 + 60 + 40
    assert found["fid"]["of"]["extractor"] == "averages"
    assert not (tmp_path / "pieces").exists()


def test_ranks_share_the_features_and_the_leader_has_the_values(tmp_path: Path):
    metrics = {"fid": FID(replicates=3, points=0), "precision_recall": PrecisionRecall()}
    alone = measured(metrics, tmp_path / "one")
    store, found, failed = HashStore(), {}, []
    extractors = [Averages(), Averages()]

    def rank(index: int) -> None:
        try:
            comparison = compared(metrics, tmp_path / "cache", extractor=extractors[index])
            sharing = Sharing(tmp_path / "pieces", index, 2, store)
            found[index] = measured(metrics, tmp_path, comparison=comparison, sharing=sharing)
        except BaseException as error:
            failed.append(error)

    ranks = [threading.Thread(target=rank, args=(index,), daemon=True) for index in range(2)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(30)
    assert not failed
    assert found[1] == {}
    assert sum(one.computed for one in extractors) == 50 + 60
    for name, values in found[0].items():
        of_one = alone[name]
        assert values.pop("of") == of_one.pop("of")
        assert values == {key: pytest.approx(value, rel=1e-6) for key, value in of_one.items()}


def test_how_long_features_take_is_told_without_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measuring, "seconds_an_image", lambda extractor, image_shape: 2.0)
    metrics = {"fid": FID(replicates=0, points=0), "nearest": Nearest()}
    one, both = {"fid": metrics["fid"]}, {"nearest": metrics["nearest"]}

    def told(of: dict[str, Any], directory: Path, reference: str = "train") -> float:
        comparison = compared(of, tmp_path / "cache", reference=reference)
        return seconds_to_extract(of, 50, comparison, Sharing(directory))

    assert told(one, tmp_path) == 2 * (50 + 60)
    assert told(one, tmp_path, "validation") == 2 * (50 + 40)
    assert told(one, tmp_path, "file.npz") == 2 * 50
    assert told(both, tmp_path) == told(metrics, tmp_path) == 2 * (50 + 60 + 40)
    sharing = Sharing(tmp_path / "pieces")
    features = measuring._work(compared(one, tmp_path / "cache").extractors["fid"])
    sharing.through(features, 50, 50, lambda indices, on_step: {"features": np.zeros(50)})
    assert told(one, tmp_path / "pieces") == 2 * 60
    measured(metrics, tmp_path)
    assert told(metrics, tmp_path) == 2 * 50


def test_an_extractor_is_timed_by_a_batch_that_it_takes(monkeypatch: pytest.MonkeyPatch):
    shapes = []

    class Seen(Averages):
        def _features(self, images: Tensor) -> Tensor:
            shapes.append(tuple(images.shape))
            return super()._features(images)

    clock = iter((10.0, 14.0))
    monkeypatch.setattr(features_module.time, "perf_counter", lambda: next(clock))
    assert features_module.seconds_an_image(Seen(), (1, 4, 4)) == 4 / 8
    assert shapes == [(8, 1, 4, 4)] * 2


class NoClasses(Averages):
    def logits(self, features: Tensor) -> Tensor | None:
        return None


class ManyFeatures(Averages):
    num_features = 8193  # type: ignore[assignment]


class WithoutLast(Inception):
    num_features = 8  # type: ignore[assignment]

    def logits(self, features: Tensor) -> Tensor | None:
        return None


Case = tuple[QualityMetric, dict[str, Any], str]

REFUSED: dict[str, Case] = {
    "too few": (PrecisionRecall(k=60), {}, r"metrics=x: 50 samples are too few, it needs at least 61"),
    "classes": (OwnLabel(), {"asked": False}, r"metrics=x: .* trained with conditional=true"),
    "no last layer": (InceptionScore(), {"extractor": WithoutLast()}, r"extractor\.file=pt_inception"),
    "no classes": (InceptionScore(), {"extractor": NoClasses()}, r"extractor=averages knows no classes"),
    "covariance": (MiFID(), {"extractor": ManyFeatures()}, r"extractor=averages has 8,193 features"),
    "images": (KID(), {"reference": "mine.npz"}, r"metrics=x: needs the images of a reference, and .*mine"),
    "features": (FID(), {"reference": "other.npz"}, r"other\.npz: its mu is .* of another extractor"),
    "reference": (PrecisionRecall(k=45), {"reference": "validation"}, r"reference=validation has 40 images"),
    "streamed": (FID(), {"data": replace(data_set(), train=None)}, r"reference=train: .* streamed"),  # type: ignore[arg-type]
    "held out": (
        Nearest(),
        {"data": replace(data_set(), validation=ImageSet(images(1, 0)))},
        r"reference=validation: there are no such images",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, num_features in (("mine", 8), ("other", 9)):
        write(Path(f"{name}.npz"), gaussian(torch.randn(20, num_features)))
    metric, settings, message = REFUSED[case]
    asked = settings.get("asked", True)
    others = {name: value for name, value in settings.items() if name != "asked"}
    with pytest.raises(UsageError, match=message):
        check({"x": metric}, 50, asked, compared({"x": metric}, tmp_path, **others))


def test_what_can_be_measured_is_not_refused(tmp_path: Path):
    metrics: dict[str, QualityMetric] = {"kid": KID(), "own_label": OwnLabel(), "is": InceptionScore()}
    check(metrics, 10, True, compared(metrics, tmp_path))
    metrics = {"is": InceptionScore()}  # takes no part in the reference
    check(metrics, 10, False, compared(metrics, tmp_path, data=replace(data_set(), train=None)))  # type: ignore[arg-type]
