"""Samples of a run as evaluate.py measures them: how they are drawn, and what their values are called."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ddpm.app.own import own_settings
from ddpm.data.images import DataSet, ImageSet
from ddpm.diffusion.guidance import ClassifierFree
from ddpm.diffusion.validity import check_combination
from ddpm.errors import UsageError
from ddpm.evaluation.quality.material import Samples
from ddpm.random import permutation
from ddpm.run import Run
from ddpm.runtime.sharing import Sharing
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import to_uint8
from ddpm.targets import build

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
    module = run.module
    if module.num_classes is None and config["guidance"]:
        raise UsageError(
            "guidance: this run was trained without classes; leave it out, or train with conditional=true"
        )
    sampler, guidance = (build(group, own_settings(run, config, group)) for group in ("sampler", "guidance"))
    try:
        check_combination(
            schedule=module.schedule,
            objective=module.objective,
            variance=module.variance,
            weighting=module.weighting,
            sampler=sampler,
            guidance=guidance,
            num_classes=module.num_classes,
            label_drop=run.config.get("data", {}).get("label_drop", 0.0),
        )
        return Drawing(
            module, seed=config["seed"], sampler=sampler, weights=config["weights"], guidance=guidance
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def classes_of(run: Run, data: DataSet, n: int) -> np.ndarray | None:
    """The class that each of n samples is asked to be, int64 [n]: as often as the images that were trained on
    are of it, in an order of its own. None where the network is unconditional.
    """
    if run.module.num_classes is None:
        return None
    train = data.train
    if isinstance(train, ImageSet) and train.labels is not None:
        labels = np.sort(train.labels)
    else:
        labels = np.arange(run.module.num_classes)
    shares = labels[(2 * np.arange(n) + 1) * len(labels) // (2 * n)]
    order = permutation(0, 0, n, np.arange(n))
    return np.asarray(shares[order], np.int64)


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

    def compute(indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
        labels = None if asked is None else torch.from_numpy(asked[indices.start : indices.stop])
        drawn = drawing(indices, labels=labels, on_step=lambda *_: on_step())
        return {"images": to_uint8(drawn).cpu().numpy()}

    like = {"images": ((channels, height, width), np.dtype(np.uint8))}
    pieces = sharing.through(IMAGES, n, size, compute, title="sampling", steps=drawing.steps, like=like)
    return Samples(
        n=n,
        read=lambda indices: pieces.at(indices)["images"],
        name=name_of(drawing),
        about={
            "weights": drawing.weights,
            "steps": drawing.steps,
            "seed": drawing.seed,
            **settings,
        },
        asked=asked,
    )


def name_of(drawing: Drawing) -> str:
    """ema_ancestral1000; ema_ddim50_guided1.5; of somebody's own sampler the name of its class."""
    kind = type(drawing.sampler)
    sampler = kind.__module__.rpartition(".")[2] if kind.__module__.startswith("ddpm.") else kind.__name__
    guidance = drawing.guidance
    guided = f"_guided{guidance.scale:g}" if isinstance(guidance, ClassifierFree) else ""
    return f"{drawing.weights}_{sampler}{drawing.steps}{guided}"
