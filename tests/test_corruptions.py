"""`benchmarks/corruptions.py` makes pictures worse as it says, keeps what it has computed and continues, with
an extractor of a few features in place of Inception.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import Tensor

from ddpm.data.images import DataSet, ImageSet
from ddpm.evaluation.extractors.extractor import Extractor

N, CORRUPTED = 40, 30


class Coarse(Extractor):
    """Averages over quarters, and how much neighbours differ; counts the images that it has seen."""

    name: ClassVar[str] = "coarse"
    resize: ClassVar[str] = "none"

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    @property
    def num_features(self) -> int:
        return 6

    def prepare(self, data: DataSet, device: torch.device | str) -> None:
        pass

    def _features(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        means = torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2).flatten(1)
        across = [images.diff(dim=dim).abs().mean((1, 2, 3)) for dim in (2, 3)]
        return torch.cat([means, torch.stack(across, 1)], 1) / 255


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = ROOT / "benchmarks" / "corruptions.py"
    spec = importlib.util.spec_from_file_location("corruptions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["corruptions"] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data() -> DataSet:
    drawn = np.random.default_rng(1)
    smooth = drawn.integers(60, 196, (3 * N, 3, 3, 3)).repeat(4, 2).repeat(4, 3)
    images = (smooth + drawn.integers(0, 12, smooth.shape)).astype(np.uint8)
    return DataSet(ImageSet(images[: 2 * N]), ImageSet(images[2 * N :]))


@pytest.mark.parametrize("name", ["noise", "blur", "jpeg"])
def test_a_stronger_corruption_changes_more_of_an_image(benchmark: ModuleType, data: DataSet, name: str):
    image = np.asarray(data.validation.images[0])
    corruption = benchmark.CORRUPTIONS[name]
    worse = [corruption.apply(image, strength, 0) for strength in corruption.strengths]
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in worse)
    changes = [np.abs(each.astype(int) - image).mean() for each in worse]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_noise_is_drawn_anew_for_each_image_and_has_the_strength_that_it_says(benchmark: ModuleType):
    grey = np.full((3, 64, 64), 128, np.uint8)
    first, second = (benchmark.noise(grey, 15, index).astype(int) - 128 for index in (0, 1))
    assert first.std() == pytest.approx(15, rel=0.03)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    assert (benchmark.noise(grey, 15, 0) - 128 == first.astype(np.uint8)).all()


def test_reference_and_others_have_no_image_in_common_and_a_larger_set_begins_with_a_smaller(
    benchmark: ModuleType, data: DataSet
):
    small, large = benchmark.sets_of(data, 20, 10), benchmark.sets_of(data, N, CORRUPTED)
    seen = {image.tobytes() for image in large["reference"].images}
    assert len(seen) == N
    assert not seen & {image.tobytes() for image in large["others"].images}
    for name, pictures in small.items():
        count = len(pictures)
        assert (pictures.rows(0, count) == large[name].rows(0, count)).all()


def test_too_few_images_are_refused_with_their_numbers(benchmark: ModuleType, data: DataSet):
    with pytest.raises(ValueError, match="80 training and 40 test pictures: --n 41 needs 82 and 41"):
        benchmark.sets_of(data, N + 1, 10)
    with pytest.raises(ValueError, match="from 10 to 40, not 9"):
        benchmark.sets_of(data, N, 9)


def test_features_are_computed_once_and_the_missing_ones_later(
    benchmark: ModuleType, data: DataSet, tmp_path: Path
):
    whole, cut = Coarse(), Coarse()
    pictures = benchmark.sets_of(data, N, CORRUPTED)["noise 15"]
    expected = benchmark.features_of("noise 15", pictures, whole, tmp_path / "whole")
    few = benchmark.Pictures(pictures.images[:25], pictures.corruption, pictures.strength)
    benchmark.features_of("noise 15", few, cut, tmp_path)
    assert cut.seen == 25
    np.testing.assert_allclose(
        benchmark.features_of("noise 15", pictures, cut, tmp_path), expected, rtol=1e-6
    )
    assert cut.seen < whole.seen + 25
    again = Coarse()
    benchmark.features_of("noise 15", pictures, again, tmp_path)
    assert again.seen == 0


def test_features_of_other_settings_are_refused(benchmark: ModuleType, tmp_path: Path):
    benchmark.settled(tmp_path, {"precision": "float32"})
    benchmark.settled(tmp_path, {"precision": "float32"})
    with pytest.raises(ValueError, match="of other settings; name another folder by --out"):
        benchmark.settled(tmp_path, {"precision": "bf16"})


@pytest.fixture(scope="module")
def measured(benchmark: ModuleType, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("measured")
    settings = {"n": N, "corrupted": CORRUPTED, "replicates": 3}
    sets = benchmark.sets_of(data, N, CORRUPTED)
    return benchmark.measured(sets, Coarse(), out, settings), out, settings, sets


def test_a_set_is_measured_once_and_noise_and_blur_are_told_from_undamaged_pictures(
    benchmark: ModuleType, measured: Any, monkeypatch: pytest.MonkeyPatch
):
    figures, out, settings, sets = measured
    assert list(figures)[:3] == ["others", "first of others", "test"]
    assert len(figures) == 3 + 9
    assert figures["noise 40"]["fid"] > 3 * figures["first of others"]["fid"]
    assert figures["blur 2"]["kid"] > figures["first of others"]["kid"]
    monkeypatch.delattr(benchmark, "figures_of")
    assert benchmark.measured(sets, Coarse(), out, settings) == figures


def test_other_numbers_are_measured_anew(
    benchmark: ModuleType, measured: Any, monkeypatch: pytest.MonkeyPatch
):
    _, out, settings, sets = measured
    monkeypatch.delattr(benchmark, "figures_of")
    with pytest.raises(NameError):
        benchmark.measured(sets, Coarse(), out, {**settings, "replicates": 4})


def test_what_does_not_rise_is_not_said_to(benchmark: ModuleType, measured: Any):
    figures = dict(measured[0])
    assert benchmark.rises(figures, "noise", "fid")
    figures["noise 15"] = {**figures["noise 15"], "fid": figures["noise 40"]["fid"] + 1}
    assert not benchmark.rises(figures, "noise", "fid")


def test_the_picture_is_drawn(benchmark: ModuleType, measured: Any, tmp_path: Path):
    benchmark.draw(measured[0], tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 10_000
