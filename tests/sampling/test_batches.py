"""Pictures are drawn as many at a time as fit, and how long it will take is known before."""

import logging

import pytest
import torch
from models import make_module

from ddpm.diffusion.guidance import ClassifierFree
from ddpm.diffusion.samplers import DDIM
from ddpm.diffusion.start import FromImage
from ddpm.sampling import batches as sampling
from ddpm.sampling.batches import announced_sampling, images_at_once
from ddpm.sampling.drawing import Drawing


@pytest.mark.parametrize(
    ("room_for", "drawn"), [(1000, 256), (256, 256), (255, 240), (33, 32), (16, 16), (15, 15), (0.5, 1)]
)
def test_as_many_as_fit_in_whole_blocks(room_for: float, drawn: int, monkeypatch: pytest.MonkeyPatch):
    module = make_module()
    memory = 4 * room_for * module.activation_bytes  # a quarter is used
    monkeypatch.setattr(sampling, "memory_of", lambda device: memory)
    assert images_at_once(module) == drawn


def test_without_knowing_the_memory_it_is_what_it_would_be_at_most(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "memory_of", lambda device: 0)
    assert images_at_once(make_module()) == 256


def test_pictures_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch):
    module = make_module()
    for average in module.ema._average:
        average.normal_(std=0.1)
    together = announced_sampling(Drawing(module), range(6))
    monkeypatch.setattr(sampling, "images_at_once", lambda model: 4)
    asked = []
    module.network.register_forward_hook(lambda *args: asked.append(len(args[2])))
    torch.testing.assert_close(announced_sampling(Drawing(module), range(6)), together, rtol=0, atol=1e-4)
    assert set(asked) == {4, 2}


def test_guidance_asks_twice():
    module = make_module(classes=["a", "b"])
    assert Drawing(module, sampler=DDIM(7)).nfe == 7
    assert Drawing(module, sampler=DDIM(7), guidance=ClassifierFree(2.0)).nfe == 14
    assert Drawing(module, sampler=DDIM(7), guidance=ClassifierFree(1.0)).nfe == 7
    assert Drawing(module, sampler=DDIM(None), start=FromImage(torch.zeros(1, 8, 8), 9)).nfe == 10


@pytest.mark.parametrize(("seconds", "announced"), [(1.0, False), (200.0, True)])
def test_what_takes_long_is_announced(
    seconds: float, announced: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    module = make_module()
    monkeypatch.setattr(sampling, "seconds_a_use", lambda model, n: seconds / 3)
    with caplog.at_level(logging.INFO):
        announced_sampling(Drawing(module, sampler=DDIM(3)), range(2))
    assert ("drawing 2 images in 3 steps: about 3 min 20 s" in caplog.text) == announced


def test_it_ends_where_it_is_asked_to():
    module = make_module()
    left = iter([False, False, True])
    assert announced_sampling(Drawing(module, sampler=DDIM(5)), range(2), stop=lambda: next(left)) is None
