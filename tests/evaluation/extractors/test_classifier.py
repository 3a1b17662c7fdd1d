"""A classifier is trained once for a data set, the same each time, and says how good it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.data.images import DataSet, ImageSet
from ddpm.data.sources.digits import Digits
from ddpm.errors import UsageError
from ddpm.evaluation.extractors import classifier_network
from ddpm.evaluation.extractors.classifier import Classifier


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_network, "STEPS", 60)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return Digits().read()


def test_it_is_trained_once_and_kept(digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = Classifier(tmp_path)
    before = torch.random.get_rng_state()
    first.prepare(digits, "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    monkeypatch.setattr("ddpm.evaluation.extractors.classifier.trained", None)
    again = Classifier(tmp_path)
    again.prepare(digits, "cpu")
    assert again.about() == first.about()
    assert first.about()["trained_on"] == digits.fingerprint
    images = torch.from_numpy(np.ascontiguousarray(digits.validation.images))
    features = first(images)
    assert features.shape == (360, 64)
    assert torch.equal(features, again(images))
    logits = first.logits(features)
    assert logits is not None
    right = (logits.argmax(1).numpy() == digits.validation.labels).mean()
    assert first.accuracy == pytest.approx(right)
    assert right > 0.8


def test_training_is_the_same_each_time(digits: DataSet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifier_network, "STEPS", 5)
    one = classifier_network.trained(digits.train, 10)
    torch.manual_seed(1)
    two = classifier_network.trained(digits.train, 10)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_digits_are_told_apart_in_under_a_minute(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(classifier_network, "STEPS", 800)
    extractor = Classifier(tmp_path)
    extractor.prepare(digits, "cpu")
    assert extractor.accuracy >= 0.97


def test_it_is_judged_by_images_that_it_has_not_seen(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without held-out images every tenth is held out."""
    monkeypatch.setattr(classifier_network, "STEPS", 5)
    seen: list[ImageSet] = []

    def trained(train: ImageSet, num_classes: int) -> dict[str, Tensor]:
        seen.append(train)
        return classifier_network.trained(train, num_classes)

    def accuracy(state: dict[str, Tensor], images: ImageSet) -> float:
        seen.append(images)
        return classifier_network.accuracy(state, images)

    monkeypatch.setattr("ddpm.evaluation.extractors.classifier.trained", trained)
    monkeypatch.setattr("ddpm.evaluation.extractors.classifier.accuracy", accuracy)
    images = digits.train.images[:200].copy()
    images[:, 0, 0, 0] = np.arange(200)
    alone = DataSet(ImageSet(images, digits.train.labels[:200]), digits.validation.subset(slice(0)))
    Classifier(tmp_path).prepare(alone, "cpu")
    train, held_out = ({int(image[0, 0, 0]) for image in part.images} for part in seen)
    assert held_out == set(range(9, 200, 10))
    assert train == set(range(200)) - held_out


def test_data_without_labels_is_refused(digits: DataSet, tmp_path: Path):
    bare = replace(digits, train=ImageSet(digits.train.images), validation=ImageSet(digits.validation.images))
    with pytest.raises(UsageError, match=r"extractor=classifier: .* the data has none"):
        Classifier(tmp_path).prepare(bare, "cpu")


def test_large_images_are_made_smaller():
    images = torch.rand(1, 3, 128, 64)
    assert classifier_network.smaller(images).shape == (1, 3, 32, 16)
    assert classifier_network.smaller(images[..., :20, :20]).shape == (1, 3, 20, 20)
