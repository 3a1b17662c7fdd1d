"""A condition is shown beside x_t and the time, withheld as zeros, and led away from."""

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization
from ddpm.diffusion.condition import Condition, apply_network, check_condition
from ddpm.diffusion.guidance import ClassifierFree
from ddpm.diffusion.objectives import X0
from ddpm.diffusion.samplers import Ancestral
from ddpm.diffusion.validity import check_request, check_weights
from ddpm.diffusion.variances import FixedSmall

SCHEDULE = NoiseSchedule(torch.linspace(0.01, 0.2, 10, dtype=torch.float64))


def condition(n: int = 3) -> Condition:
    return Condition(torch.arange(1.0, n + 1).view(n, 1, 1, 1).expand(n, 2, 4, 4), torch.ones(n, 5))


def test_rows_are_taken_in_any_order_and_again():
    found = condition().rows([2, 0, 2])
    assert found.image is not None
    assert found.image[:, 0, 0, 0].tolist() == [3, 1, 3]
    assert found.sizes == (2, 5)
    assert Condition().rows([0]) == Condition()


def test_what_is_withheld_is_zeros():
    image, vector = condition().withheld(torch.tensor([True, False, True]))
    assert image is not None
    assert vector is not None
    assert image[:, 0, 0, 0].tolist() == [0, 2, 0]
    assert vector.sum(1).tolist() == [0, 5, 0]
    assert not any(part.any() for part in condition().withheld() if part is not None)


def test_a_network_is_given_what_there_is_and_nothing_else():
    seen = []

    def network(*args: Tensor, **named: Tensor) -> Tensor:
        seen.append((len(args), args[0].shape[1], sorted(named)))
        return args[0]

    x, t = torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64)
    apply_network(network, x, t)
    apply_network(network, x, t, t, condition())
    apply_network(network, x, t, None, Condition(vector=torch.zeros(3, 5)))
    assert seen == [(2, 1, []), (3, 3, ["vector"]), (2, 1, ["vector"])]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "takes an image of 2 channels and a vector of 5 numbers, and is given none"),
        (
            Condition(torch.zeros(1, 3, 2, 2), torch.zeros(1, 5)),
            "given an image of 3 channels and a vector of 5",
        ),
        (Condition(torch.zeros(1, 2, 2, 2), torch.zeros(1, 4)), "a vector of 4 numbers"),
    ],
)
def test_another_condition_is_refused(given: Condition | None, said: str):
    with pytest.raises(ValueError, match=said):
        check_condition(given, 2, 5)


def outputs(*, labels: bool, withholds_class: bool, withholds_condition: bool) -> list[tuple[bool, bool]]:
    """Whether the class and the condition are there, at each use of a guided network."""
    seen = []

    def network(x: Tensor, t: Tensor, labels: Tensor | None = None, *, vector: Tensor) -> Tensor:
        seen.append((labels is not None, bool(vector.any())))
        return x[:, :1]

    denoiser = Denoiser(
        network,
        Parametrization(X0(), FixedSmall()),
        labels=torch.zeros(3, dtype=torch.int64) if labels else None,
        condition=condition(),
        withholds_class=withholds_class,
        withholds_condition=withholds_condition,
        guidance=ClassifierFree(2.0),
    )
    denoiser(SCHEDULE, torch.zeros(3, 1, 4, 4), torch.full((3,), 4))
    return seen


def test_guidance_leads_away_from_what_training_withholds():
    both, neither = (True, True), (False, False)
    assert outputs(labels=True, withholds_class=True, withholds_condition=True) == [both, neither]
    assert outputs(labels=True, withholds_class=True, withholds_condition=False) == [both, (False, True)]
    assert outputs(labels=True, withholds_class=False, withholds_condition=True) == [both, (True, False)]
    assert outputs(labels=False, withholds_class=True, withholds_condition=True) == [(False, True), neither]
    assert outputs(labels=False, withholds_class=True, withholds_condition=False) == [(False, True)]


def test_guidance_needs_something_that_is_withheld():
    parts = {"schedule": SCHEDULE, "sampler": Ancestral(), "guidance": ClassifierFree(2.0)}
    check_request(**parts, condition_drop=0.1)
    with pytest.raises(ValueError, match=r"a condition and data\.condition_drop=0\.1"):
        check_request(**parts)


def test_weights_of_a_network_of_another_condition_are_refused():
    same = {"variance": FixedSmall(), "their_variance": FixedSmall(), "num_classes": None}
    with pytest.raises(
        ValueError, match=r"condition: this network takes an image of 1 channels, and the .* none"
    ):
        check_weights(**same, their_num_classes=None, condition=(1, 0))
