"""Guides: networks of other runs whose output a run's own is led away from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm.diffusion.guidance import Autoguidance, Guidance, NoGuidance
from ddpm.diffusion.validity import check_guide
from ddpm.errors import UsageError
from ddpm.training import checkpoints
from ddpm.training.building import rebuild
from ddpm.training.checkpoints.archive import fingerprint
from ddpm.training.module import DDPM

KEY = "guidance.ckpt"


class LoadedGuide:
    """The network of a checkpoint with its averaged weights, on whichever device it is asked.

    Args:
        network: in evaluation mode.
        file: the checkpoint.
        step: completed optimizer steps.
    """

    def __init__(self, network: nn.Module, file: Path, step: int):
        self._network, self._device = network, torch.device("cpu")
        self.file, self.step = file, step

    @property
    def about(self) -> dict[str, Any]:
        """What it is, for what is told beside values: path, step and checksum."""
        return {"ckpt": str(self.file), "step": self.step, "fingerprint": fingerprint(self.file)}

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, **named: Tensor) -> Tensor:
        if x_t.device != self._device:
            self._network, self._device = self._network.to(x_t.device), x_t.device
        output: Tensor = self._network(x_t, t, *(() if labels is None else (labels,)), **named)
        return output


def with_guide(guidance: Guidance, module: DDPM, allow_targets: Sequence[str] = ()) -> Guidance:
    """A guidance that has its guide, where it needs one.

    Args:
        guidance: of the configuration.
        module: that is guided.
        allow_targets: packages of your own that the guide was built from.

    Raises:
        UsageError: where there is no such run, or it does not fit.
    """
    if not isinstance(guidance, Autoguidance) or guidance.guide is not None:
        return guidance
    own = module.guidance
    if isinstance(own, Autoguidance) and own.ckpt == guidance.ckpt and own.guide is not None:
        guidance.guide = own.guide  # once in memory
        return guidance
    try:
        file, checkpoint = checkpoints.find(Path(os.path.expanduser(guidance.ckpt)), KEY)
    except checkpoints.CheckpointError as error:
        raise UsageError(str(error)) from error
    if not isinstance(checkpoint["config"], dict) or not isinstance(checkpoint.get("data"), dict):
        raise UsageError(f"{KEY}={file}: holds no configuration, as of a DDPM made by hand")
    try:
        guide = rebuild(checkpoint, allow_targets, guidance=NoGuidance())
        guide.start_from(checkpoints.averaged_weights(checkpoint))
    except (UsageError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{KEY}={file}: cannot be rebuilt: {error}") from error
    try:
        check_guide(
            schedule=module.schedule,
            objective=module.objective,
            image_shape=module.image_shape,
            classes=module.classes,
            latents=_scale_and_shift(module),
            condition=_condition(module),
            their_schedule=guide.schedule,
            their_objective=guide.objective,
            their_image_shape=guide.image_shape,
            their_classes=guide.classes,
            their_latents=_scale_and_shift(guide),
            their_condition=_condition(guide),
        )
    except ValueError as error:
        raise UsageError(f"{KEY}={file}: {error}") from error
    network = guide.network.eval().requires_grad_(False)
    guidance.guide = LoadedGuide(network, file, checkpoint["global_step"])
    return guidance


def _scale_and_shift(module: DDPM) -> tuple[float, float] | None:
    """By which latents become x_0; None where there are none."""
    latents = (module.data or {}).get("latents")
    return None if latents is None else (float(latents["scale"]), float(latents["shift"]))


def _condition(module: DDPM) -> tuple[object, ...]:
    """What it is conditioned on beside the class: its sizes, its kind, and what its numbers are called."""
    about = (module.data or {}).get("condition") or {}
    return *module.condition_sizes, about.get("kind"), *about.get("names", ())


def contents_of_guide(guidance: Guidance) -> dict[str, str]:
    """The fingerprint of the guide's file, by the key that names it; nothing where there is none."""
    guide = guide_of(guidance)
    return {} if guide is None else {KEY: fingerprint(guide.file)}


def guide_of(guidance: Guidance) -> LoadedGuide | None:
    """The guide that a guidance uses, if it is one of a checkpoint."""
    guide = getattr(guidance, "guide", None)
    return guide if guidance.needs_guide and isinstance(guide, LoadedGuide) else None
