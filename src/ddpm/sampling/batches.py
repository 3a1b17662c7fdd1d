"""Drawing many images: in batches that fit, after saying how long it will take, with a countdown."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

import torch
from torch import Tensor

from ddpm.diffusion.condition import apply_network
from ddpm.diffusion.samplers import OnStep
from ddpm.random import BLOCK
from ddpm.runtime.memory import memory_of
from ddpm.runtime.progress import Countdown, duration
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.model import Model

log = logging.getLogger(__name__)

WORTH_A_WORD = 3.0
"""Seconds; a sampling shorter than this is not announced."""

MOST_AT_ONCE = 256
"""Images; of more the countdown would seldom move."""

SHARE_OF_MEMORY = 0.25
"""Of the device, that what a network computes for a batch may take."""


def images_at_once(model: Model) -> int:
    """How many images to draw together: as many as fit into a quarter of the device's memory, up to 256.

    Whole blocks of random numbers where there are any, so that none are drawn twice.
    """
    fitting = SHARE_OF_MEMORY * memory_of(model.device) / max(model.activation_bytes, 1)
    if not fitting or math.isnan(fitting):  # one of the two is unknown
        return MOST_AT_ONCE
    fitting = min(MOST_AT_ONCE, int(fitting))
    return max(1, fitting // BLOCK * BLOCK or fitting)


def announced_sampling(
    drawing: Drawing,
    indices: range,
    *,
    batch_size: int | None = None,
    on_step: OnStep | None = None,
    stop: Callable[[], bool] = lambda: False,
    quiet: bool = False,
) -> Tensor | None:
    """Draw images in batches, after saying how long it will take, and with a countdown.

    Args:
        drawing: how they are drawn.
        indices: of the images.
        batch_size: images drawn at once; by default as many as fit.
        on_step: sees (t, x_t, predicted x_0) at every step of every batch.
        stop: asked each step.
        quiet: say nothing, where another process does.

    Returns:
        float32 [len(indices), C, H, W] in [-1, 1], on the CPU; None where `stop` said so.

    Raises:
        ValueError: for no indices.
    """
    if not indices:
        raise ValueError("0 images cannot be drawn; ask for at least 1")
    batch_size = batch_size or images_at_once(drawing.model)
    batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    seconds = seconds_to_draw(drawing, indices, batch_size)
    if seconds > WORTH_A_WORD and not quiet:
        log.info("drawing %d images in %d steps: about %s", len(indices), drawing.steps, duration(seconds))

    def each_step(t: int, x_t: Tensor, x_0: Tensor) -> None:
        if stop():
            raise _Stopped
        if on_step is not None:
            on_step(t, x_t, x_0)
        if countdown is not None:
            countdown.advance(countdown.done + 1)

    shown = nullcontext() if quiet else Countdown("sampling", drawing.steps * len(batches))
    with shown as countdown, suppress(_Stopped):
        return torch.cat([drawing(batch, on_step=each_step).cpu() for batch in batches])
    return None


def seconds_to_draw(drawing: Drawing, indices: range, batch_size: int | None = None) -> float:
    """How long it will take to draw these images, from a few evaluations of the network."""
    at_once = min(batch_size or images_at_once(drawing.model), len(indices))
    return seconds_a_use(drawing.model, at_once) * drawing.nfe * len(indices) / at_once


class _Stopped(Exception):  # noqa: N818 - it is no error
    """Leaves a sampler in the middle."""


@torch.inference_mode()
def seconds_a_use(model: Model, n: int) -> float:
    """Of one evaluation of the network for n images."""
    x_t = torch.zeros(n, *model.image_shape, device=model.device)
    t = torch.zeros(n, dtype=torch.int64, device=model.device)
    inputs = model.denoiser().parametrization.network_inputs(model.schedule, x_t, t)
    labels, condition = None if model.num_classes is None else t, model.no_condition(n)
    with model.evaluating("raw"):
        apply_network(model.network, *inputs, labels, condition)  # the first call also allocates
        begin = time.perf_counter()
        for _ in range(2):
            apply_network(model.network, *inputs, labels, condition)[0, 0, 0, 0].item()
        return (time.perf_counter() - begin) / 2
