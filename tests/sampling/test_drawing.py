"""Images are drawn by their indices, by one way for every caller."""

from typing import Any

import pytest
import torch
from models import make_module
from torch import nn

from ddpm.diffusion import validity
from ddpm.diffusion.samplers import DDIM, Ancestral
from ddpm.sampling import drawing
from ddpm.sampling.batches import announced_sampling
from ddpm.sampling.drawing import Drawing, labels_of
from ddpm.training.module import DDPM


def awake() -> DDPM:
    module = make_module()
    for parameter in module.network.parameters():
        nn.init.normal_(parameter, std=0.1)
    module.ema.reset()
    return module


@pytest.mark.parametrize("sampler", [DDIM(4), Ancestral(6)])
@pytest.mark.parametrize("indices", [[3], [5, 4], [0, 40, 17, 41], range(1, 30, 7), range(30, 40)])
def test_any_indices_give_the_images_that_all_of_them_give(sampler: Any, indices: Any):
    draw = Drawing(awake(), sampler=sampler)
    torch.testing.assert_close(draw(indices), draw(range(42))[list(indices)], atol=1e-5, rtol=0)


def test_a_request_is_checked_once_for_all_batches(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def check(**request: Any) -> None:
        asked.append(request)
        validity.check_request(**request)

    monkeypatch.setattr(drawing, "check_request", check)
    drawn = announced_sampling(Drawing(make_module()), range(6), batch_size=2)
    assert drawn is not None
    assert len(asked) == 1


def test_every_step_of_every_batch_is_seen():
    seen: list[int] = []
    draw = Drawing(make_module(), sampler=DDIM(3))
    announced_sampling(draw, range(4), batch_size=2, on_step=lambda t, x_t, x_0: seen.append(t))
    assert seen == seen[:3] * 2
    assert seen[:3] == sorted(seen[:3], reverse=True)


def test_a_request_that_does_not_fit_is_refused_before_anything_is_drawn():
    module = make_module()
    with pytest.raises(ValueError, match="without classes"):
        Drawing(module, labels=[0])


def test_classes_come_in_turn():
    module = make_module(nn.Linear(1, 1), classes=["cat", "dog", "owl"])
    assert labels_of(module, range(2, 7)) == [2, 0, 1, 2, 0]
    assert labels_of(module, [9, 1], [2, -1]) == [-1, -1]
    assert labels_of(make_module(), range(3)) is None
