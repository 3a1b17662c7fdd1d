"""Samples that a model draws to be measured: the classes that they are asked to be of, and their name."""

import numpy as np

from ddpm.data.images import DataSet, ImageSet
from ddpm.diffusion.guidance import Autoguidance, ClassifierFree
from ddpm.random import permutation
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.model import Model


def classes_of(model: Model, data: DataSet, n: int) -> np.ndarray | None:
    """The class that each of n samples is asked to be, int64 [n]: as often as the images that were trained on
    are of it, in an order of its own; those of the conditions that the samples are drawn under, where they
    have some. None where the network is unconditional.
    """
    if model.num_classes is None:
        return None
    if model.conditions is not None and (own := model.conditions.labels(range(n))) is not None:
        return np.array(own, np.int64)
    train = data.train
    if isinstance(train, ImageSet) and train.labels is not None:
        labels = np.sort(train.labels)
    else:
        labels = np.arange(model.num_classes)
    shares = labels[(2 * np.arange(n) + 1) * len(labels) // (2 * n)]
    order = permutation(0, 0, n, np.arange(n))
    return np.asarray(shares[order], np.int64)


def name_of(drawing: Drawing) -> str:
    """ema_ancestral1000; ema_ddim50_guided1.5; ema0.05_ddim50 of an average that was made after training."""
    length = "" if drawing.model.sigma_rel is None else f"{drawing.model.sigma_rel:g}"
    return f"{drawing.weights}{length}_{sampler_of(drawing)}"


def sampler_of(drawing: Drawing) -> str:
    """ancestral1000; ddim50_guided1.5; of somebody's own sampler the name of its class; ddim50_eta1,
    heun39_churn30 and dpm_solver20_stochastic where it adds noise that it need not.
    """
    kind = type(drawing.sampler)
    sampler = kind.__module__.rpartition(".")[2] if kind.__module__.startswith("ddpm.") else kind.__name__
    guidance = drawing.guidance
    guided = ""
    if isinstance(guidance, ClassifierFree | Autoguidance):
        way = "guided" if isinstance(guidance, ClassifierFree) else "autoguided"
        shape = "" if guidance.shape == "constant" else guidance.shape
        guided = f"_{way}{guidance.scale:g}{shape}"
    noise = ""
    for name in ("eta", "churn", "stochastic"):
        value = getattr(drawing.sampler, name, 0)
        if value and isinstance(value, int | float):
            noise += f"_{name}" if value is True else f"_{name}{value:g}"
    return f"{sampler}{drawing.steps}{noise}{guided}"
