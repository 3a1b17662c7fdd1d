"""Samples of a run as evaluate.py measures them: how they are drawn, and what their values are called."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ddpm.app.reverse_process import sampler_and_guidance
from ddpm.errors import UsageError
from ddpm.evaluation.quality.drawn import name_of
from ddpm.evaluation.quality.material import Samples
from ddpm.run import Run
from ddpm.runtime.sharing import Sharing
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import to_uint8
from ddpm.training.guides import guide_of

IMAGES = "images"
"""Of `Sharing`, that drawing them is."""


def drawing_of(run: Run, config: Mapping[str, Any]) -> Drawing:
    """How samples are drawn, by the run's own sampler and guidance or those of the command line.

    Args:
        run: that draws.
        config: of the command line.

    Raises:
        UsageError: where they do not fit the run.
    """
    sampler, guidance = sampler_and_guidance(run, config)
    try:
        return Drawing(
            run.module, seed=config["seed"], sampler=sampler, weights=config["weights"], guidance=guidance
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def draw(
    run: Run,
    drawing: Drawing,
    n: int,
    asked: np.ndarray | None,
    size: int,
    settings: Mapping[str, Any],
    sharing: Sharing,
) -> Samples:
    """Draw samples on all devices.

    Args:
        run: that draws.
        drawing: how.
        n: samples.
        asked: the class that each is asked to be, int64 [n], or None.
        size: that a device draws at once.
        settings: of the sampler and the guidance, to be told beside the values.
        sharing: of the work.
    """
    channels, height, width = run.module.image_shape
    timed: list[tuple[int, float]] = []  # images and seconds of each piece of this start, on this device

    def compute(indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
        labels = None if asked is None else torch.from_numpy(asked[indices.start : indices.stop])
        began = time.perf_counter()
        drawn = drawing(indices, labels=labels, on_step=lambda *_: on_step())
        images = to_uint8(drawn).cpu().numpy()  # which waits for the device
        timed.append((len(indices), time.perf_counter() - began))
        return {"images": images}

    like = {"images": ((channels, height, width), np.dtype(np.uint8))}
    pieces = sharing.through(IMAGES, n, size, compute, title="sampling", steps=drawing.steps, like=like)
    return Samples(
        n=n,
        read=lambda indices: pieces.at(indices)["images"],
        name=name_of(drawing),
        about={
            "weights": drawing.weights,
            **({} if run.module.sigma_rel is None else {"sigma_rel": run.module.sigma_rel}),
            "steps": drawing.steps,
            "seed": drawing.seed,
            "nfe": drawing.nfe,
            "seconds_per_image": seconds_per_image(timed),
            "devices": sharing.world_size,
            **({} if (guide := guide_of(drawing.guidance)) is None else {"guide": guide.about}),
            **settings,
        },
        asked=asked,
    )


def seconds_per_image(timed: Sequence[tuple[int, float]]) -> float | None:
    """What an image takes a device, of the pieces that it has drawn: images and seconds of each.

    The first piece, in which libraries choose their kernels and compile, counts only where it is alone. None
    where an earlier start has drawn all images.
    """
    counted = timed[1:] or timed
    return sum(seconds for _, seconds in counted) / sum(n for n, _ in counted) if counted else None
