"""Drawing many pictures: in batches that fit, after saying how long it will take, with a countdown."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.samplers import Sampler
from ddpm.diffusion.start import FromNoise, Start
from ddpm.random import BLOCK
from ddpm.runtime.memory import memory_of
from ddpm.runtime.progress import Countdown, duration
from ddpm.sampling.model import Model

log = logging.getLogger(__name__)

WORTH_A_WORD = 3.0
"""Seconds; a sampling shorter than this is not announced."""

MOST_AT_ONCE = 256
"""Images; of more the countdown would seldom move."""

SHARE_OF_MEMORY = 0.25
"""Of the device, that what a network computes for a batch may take."""


def images_at_once(module: Model) -> int:
    """How many images to draw together: as many as fit into a quarter of the device's memory, up to 256.

    Whole blocks of random numbers where there are any, so that none are drawn twice.
    """
    fitting = SHARE_OF_MEMORY * memory_of(module.device) / max(module.activation_bytes, 1)
    if not fitting or math.isnan(fitting):  # one of the two is unknown
        return MOST_AT_ONCE
    fitting = min(MOST_AT_ONCE, int(fitting))
    return max(1, fitting // BLOCK * BLOCK or fitting)


def nfe(module: Model, sampler: Sampler, start: Start | None = None, guidance: Guidance | None = None) -> int:
    """How often the network is asked about a batch, from x_t to x_0."""
    uses = sampler.nfe(module.schedule.num_timesteps, (start or FromNoise()).t)
    return uses * (2 if (guidance or module.guidance).needs_unconditional else 1)


def announced_sampling(
    module: Model,
    images: range,
    *,
    sampler: Sampler | None = None,
    start: Start | None = None,
    batch_size: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Tensor | None:
    """Sample `images` in batches, after saying how long it will take, and with a countdown.

    Args:
        module, images, sampler, start, settings: as `DDPM.sample` takes them.
        batch_size: images drawn at once; by default as many as fit.
        stop: asked each step.

    Returns:
        float32 [len(images), C, H, W] in [-1, 1], on the CPU; None where `stop` said so.
    """
    sampler, start = sampler or module.sampler, start or FromNoise()
    batch_size = batch_size or images_at_once(module)
    batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    steps = sampler.nfe(module.schedule.num_timesteps, start.t)
    guidance = settings.get("guidance")
    seconds = seconds_to_sample(module, images, sampler, start, batch_size=batch_size, guidance=guidance)
    if seconds > WORTH_A_WORD:
        log.info("drawing %d images in %d steps: about %s", len(images), steps, duration(seconds))

    def on_step(t: int, x_t: Tensor, x_0: Tensor) -> None:
        if stop():
            raise _Stopped
        countdown.advance(countdown.done + 1)

    with Countdown("sampling", steps * len(batches)) as countdown, suppress(_Stopped):
        return torch.cat(
            [
                module.sample(batch, sampler=sampler, start=start, on_step=on_step, **settings).cpu()
                for batch in batches
            ]
        )
    return None


def seconds_to_sample(
    module: Model,
    images: range,
    sampler: Sampler,
    start: Start | None = None,
    *,
    batch_size: int | None = None,
    guidance: Guidance | None = None,
) -> float:
    """How long it will take to sample these images, from a few uses of the network."""
    at_once = min(batch_size or images_at_once(module), len(images))
    uses = nfe(module, sampler, start, guidance) * len(images) / at_once
    return _seconds_a_use(module, at_once) * uses


class _Stopped(Exception):  # noqa: N818 - it is no error
    """Leaves a sampler in the middle."""


@torch.inference_mode()
def _seconds_a_use(module: Model, n: int) -> float:
    """Of the network."""
    x_t = torch.zeros(n, *module.image_shape, device=module.device)
    t = torch.zeros(n, dtype=torch.int64, device=module.device)
    labels = () if module.num_classes is None else (t,)
    with module.evaluating("raw"):
        module.network(x_t, t, *labels)  # the first call also allocates
        begin = time.perf_counter()
        for _ in range(2):
            module.network(x_t, t, *labels)[0, 0, 0, 0].item()
        return (time.perf_counter() - begin) / 2
