"""KID is that of other libraries, without bias, and knows its error."""

import pytest
import torch
from seeded_features import features, reference, samples
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from ddpm.evaluation.measures import rows
from ddpm.evaluation.measures.kid import kid, kid_of_subsets

TORCH_FIDELITY = 0.07289309715039716
"""torch-fidelity 0.4.0, kid_features_to_metric, of the first 300 of `samples` and `reference`, one subset."""


class Given(nn.Module):
    """Stands for a network to torchmetrics: images are features already."""

    num_features = 16

    def forward(self, x: Tensor) -> Tensor:
        return x


def slowly(x: Tensor, y: Tensor) -> float:
    """The definition, pair by pair."""

    def mean(a: Tensor, b: Tensor, *, same: bool) -> float:
        kernel = [
            (float(a[i] @ b[j]) / a.shape[1] + 1) ** 3
            for i in range(len(a))
            for j in range(len(b))
            if not (same and i == j)
        ]
        return sum(kernel) / len(kernel)

    return mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)


def test_it_is_the_definition():
    one, two = samples()[:31], reference()[:23]
    assert kid(one, two).value == pytest.approx(slowly(one, two), rel=1e-10)


def test_it_is_that_of_torch_fidelity_and_torchmetrics():
    one, two = samples(), reference()[:300]
    assert kid(one, two).value == pytest.approx(TORCH_FIDELITY, rel=1e-10)
    subset, _ = kid_of_subsets(one, two, subsets=1, size=300)
    assert subset.value == pytest.approx(TORCH_FIDELITY, rel=1e-10)
    theirs = KernelInceptionDistance(Given(), subsets=1, subset_size=300)
    theirs.update(one, real=False)
    theirs.update(two, real=True)
    assert theirs.compute()[0].item() == pytest.approx(TORCH_FIDELITY, rel=1e-4)


def test_random_subsets_are_as_those_of_torchmetrics():
    """Theirs are others at each call, so that means and spreads agree as far as random subsets do."""
    one, two = samples(), reference()
    ours, values = kid_of_subsets(one, two, subsets=300, size=60)
    torch.manual_seed(0)
    theirs = KernelInceptionDistance(Given(), subsets=300, subset_size=60)
    theirs.update(one, real=False)
    theirs.update(two, real=True)
    mean, spread = (value.item() for value in theirs.compute())
    error = (values.var().item() / 300 + spread**2 / 300) ** 0.5
    assert ours.value == pytest.approx(mean, abs=4 * error)
    assert values.std().item() == pytest.approx(spread, rel=0.2)


def test_blocks_and_order_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    one, two = samples(), reference()
    whole = kid(one, two)
    monkeypatch.setattr(rows, "MOST_ROWS", 37)
    parts = kid(one, two)
    assert parts == pytest.approx(whole, rel=1e-10)
    assert kid(one.flip(0), two.roll(7, 0)).value == pytest.approx(whole.value, rel=1e-10)


def test_float32_features_change_it_by_little():
    assert kid(samples().float(), reference().float()).value == pytest.approx(
        kid(samples(), reference()).value, rel=1e-5
    )


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_it_has_no_bias_and_the_jackknife_knows_its_spread(shift: float):
    """Also where both sets are of one distribution: the first order says 0 there, and the jackknife takes the
    second twice.
    """
    found = [kid(features(i, 60, shift=shift), features(100 + i, 80)) for i in range(60)]
    values = torch.tensor([one.value for one in found])
    errors = torch.tensor([one.standard_error for one in found])
    if not shift:
        assert values.mean().abs() < 3 * values.std() / 60**0.5
    assert 0.7 < errors.square().mean().sqrt() / values.std() / (1 if shift else 2**0.5) < 1.4


def test_subsets_estimate_the_same():
    whole = kid(samples(), reference())
    found, values = kid_of_subsets(samples(), reference(), subsets=200, size=50, seed=1)
    assert found.value == pytest.approx(whole.value, abs=4 * values.std().item() / 200**0.5)
    assert 0.5 < found.standard_error / whole.standard_error < 2


@pytest.mark.parametrize("size", [1, 301])
def test_subsets_of_more_than_there_are_are_refused(size: int):
    with pytest.raises(ValueError, match=f"subsets of {size} images: 300 are there"):
        kid_of_subsets(samples(), reference(), size=size)


def test_two_images_have_a_value_and_no_error():
    found = kid(samples()[:2], reference()[:2])
    assert found.value == pytest.approx(slowly(samples()[:2], reference()[:2]))
    assert found.standard_error != found.standard_error


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (torch.full((5, 16), torch.nan), "samples: features hold NaN or infinity"),
        (
            torch.zeros(5, 16, dtype=torch.int64),
            r"samples: features must be floating \[N, D\], not torch.int64",
        ),
        (torch.zeros(5, 3), "samples have 3 features and the reference 16"),
        (torch.zeros(1, 16), "samples: 1 images, and at least 2 are needed"),
    ],
)
def test_what_is_no_set_of_features_is_refused(bad: Tensor, why: str):
    with pytest.raises(ValueError, match=why):
        kid(bad, reference())
