"""Denoising diffusion probabilistic models: an experiment framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ddpm.app.loading import Run

__all__ = ["load"]


def load(path: str | Path, device: str | None = None, allow_targets: Sequence[str] = ()) -> Run:
    """Load a run from its directory or from a checkpoint file: `ddpm.load(RUN_DIR).sample(16, seed=0)`.

    `allow_targets` names packages of your own that the run was built from.
    """
    from ddpm.app.loading import load as load_run  # heavy imports only when asked for

    return load_run(path, device, allow_targets)
