"""How far the colours of samples are from those of the data."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.training.metrics import log_scalars


def log_colours(trainer: Trainer, data: Mapping[str, Any] | None, samples: Tensor) -> None:
    """Log mean and deviation of each channel of samples and, where those of the data are known, how far off
    they are.

    `samples/mean_C` and `samples/deviation_C` are of channel C; `samples/mean_shift` and
    `samples/deviation_shift` are samples minus data, of the channel that differs most. All are on the scale
    of the network, where black is -1 and white 1. To be called by the rank that has the samples.

    Args:
        trainer: that logs.
        data: the data set, described: `facts` has `mean` and `std` of each channel in [0, 1].
        samples: [N, C, H, W].
    """
    deviations, means = torch.std_mean(samples.float(), dim=(0, 2, 3), correction=0)
    found = {"mean": means.tolist(), "deviation": deviations.tolist()}
    row = {f"samples/{name}_{c}": value for name, values in found.items() for c, value in enumerate(values)}
    facts = (data or {}).get("facts") or {}
    if "mean" in facts and "std" in facts:
        of_data = {"mean": facts["mean"], "deviation": facts["std"]}
        if (data or {}).get("latents") is None:  # whose figures are on this scale already
            of_data = {
                "mean": [2 * mean - 1 for mean in facts["mean"]],
                "deviation": [2 * s for s in facts["std"]],
            }
        for name, values in found.items():
            differences = [ours - theirs for ours, theirs in zip(values, of_data[name], strict=True)]
            row[f"samples/{name}_shift"] = max(differences, key=abs)
    log_scalars(trainer, row)
