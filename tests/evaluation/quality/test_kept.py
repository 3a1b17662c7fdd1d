"""What measures keep for a comparison is what their values are made of, and comes back from its file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_images import Judge, compared, drawn, images

from ddpm.evaluation.kept import Evidence, Kept, read
from ddpm.evaluation.measures.frechet import bootstrapped, frechet_distance
from ddpm.evaluation.measures.kid import jackknifed, kid
from ddpm.evaluation.measures.moments import gaussian
from ddpm.evaluation.quality import measuring
from ddpm.evaluation.quality.density_coverage import DensityCoverage
from ddpm.evaluation.quality.frechet import FID
from ddpm.evaluation.quality.kernel_distance import KID
from ddpm.evaluation.quality.own_label import OwnLabel
from ddpm.evaluation.quality.precision_recall import PrecisionRecall
from ddpm.runtime.sharing import Sharing

METRICS: dict[str, Any] = {
    "fid": FID(replicates=6, points=0),
    "kid": KID(0),
    "subsets": KID(7, size=20),
    "pr": PrecisionRecall(),
    "dc": DensityCoverage(),
    "label": OwnLabel(),
}


def kept_of(directory: Path, index: int = 3) -> tuple[dict[str, Any], Kept]:
    found = Kept()
    values = measuring.measure(
        METRICS,
        drawn(shown=images(index, 50)),
        compared(METRICS, directory / "cache", extractor=Judge()),
        seed=0,
        directory=directory,
        sharing=Sharing(directory / f"pieces{index}"),
        kept=found,
    )
    return values, found


def test_a_value_is_made_of_what_is_kept(tmp_path: Path):
    values, found = kept_of(tmp_path)
    assert list(found.evidence) == [
        ("fid", "fid"), ("kid", "kid"), ("subsets", "kid"), ("pr", "precision"), ("pr", "recall"),
        ("dc", "density"), ("dc", "coverage"), ("label", "own_label"),
    ]  # fmt: skip
    for (metric, measure), one in found.evidence.items():
        (name,) = (name for name in values[metric] if name.startswith(f"{measure}50_"))
        assert one.value == values[metric][name]
        if one.kind in ("mean", "share"):
            assert one.arrays[0].mean() == pytest.approx(one.value)
        elif "standard_error" in values[metric] and one.kind == "replicates":
            assert one.scale * one.arrays[0].std(ddof=1) == pytest.approx(values[metric]["standard_error"])
    assert found.evidence["pr", "recall"].arrays[0].shape == (60,)


def test_a_set_does_not_differ_from_itself_and_two_do(tmp_path: Path):
    _, one = kept_of(tmp_path)
    _, other = kept_of(tmp_path, 6)
    for evidence in one.evidence.values():
        same = evidence.minus(evidence)
        assert (same.value, same.p_value) == (0, 1)
        assert same.low <= 0 <= same.high
    far = one.evidence["kid", "kid"].minus(other.evidence["kid", "kid"])
    assert far.p_value < 0.01
    assert far.low < far.value < far.high


def test_it_comes_back_from_its_file(tmp_path: Path):
    _, found = kept_of(tmp_path)
    found.images, found.classes = images(1, 3), np.arange(3)
    found.write(tmp_path / "kept.npz")
    back = read(tmp_path / "kept.npz")
    assert np.array_equal(back.images, found.images)
    assert np.array_equal(back.classes, found.classes)
    assert list(back.evidence) == list(found.evidence)
    for key, one in found.evidence.items():
        other = back.evidence[key]
        assert (one.kind, one.value, one.scale) == (other.kind, other.value, other.scale)
        assert all(map(np.array_equal, one.arrays, other.arrays))
    Kept().write(tmp_path / "none.npz")
    assert read(tmp_path / "none.npz") == Kept()


def test_values_of_two_kinds_are_no_pair():
    ones = np.ones(3)
    with pytest.raises(ValueError, match="two ways to measure"):
        Evidence("mean", 1.0, (ones,)).minus(Evidence("share", 1.0, (ones,)))


@pytest.mark.slow
def test_the_error_of_a_paired_difference_is_how_far_other_noise_moves_it():
    """Of Frechet and of kernel distances; the two sets share half of their variance."""
    torch.manual_seed(0)
    reference = torch.randn(400, 4)
    to = gaussian(reference)
    differences: dict[str, list[float]] = {"frechet": [], "kid": []}
    widths: dict[str, list[float]] = {"frechet": [], "kid": []}
    for _ in range(40):
        common = torch.randn(200, 4)
        one, other = (0.7 * common + 0.7 * torch.randn(200, 4) + shift for shift in (0.3, 0.5))
        parts = []
        for features in (one, other):
            value, replicates = bootstrapped(features, to, replicates=20)
            assert value.value == frechet_distance(gaussian(features), to)
            without = jackknifed(features, reference)
            assert without[0] == kid(features, reference)
            parts.append(
                (
                    Evidence("replicates", value.value, (replicates.numpy(),)),
                    Evidence("jackknife", without[0].value, tuple(part.numpy() for part in without[1])),
                )
            )
        for name, first, second in zip(differences, *parts, strict=True):
            found = first.minus(second)
            differences[name].append(found.value)
            widths[name].append((found.high - found.low) / 2 / 2.093)
    for name, values in differences.items():
        assert 0.7 < np.sqrt(np.mean(np.square(widths[name]))) / np.std(values, ddof=1) < 1.4, name
