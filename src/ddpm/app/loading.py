"""A finished, or still running, run as an object: what sample.py and notebooks work with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.app import check
from ddpm.app.build import build_module
from ddpm.app.errors import UsageError
from ddpm.diffusion.samplers import Sampler
from ddpm.training import checkpoints
from ddpm.training.module import DDPM, Weights
from ddpm.training.progress import announced_sampling

PARTS = (
    "schedule", "objective", "variance", "weighting", "timesteps", "model", "sampler", "optimizer",
)  # fmt: skip
"""Groups that a model is built from; a run's callbacks, data and loggers are not built again."""


@dataclass(frozen=True)
class Run:
    """A trained model with what is known about it.

    Attributes:
        module: the LightningModule, in evaluation mode on its device.
        config: its configuration, plain containers.
        step: completed optimizer steps.
        path: the checkpoint file.
    """

    module: DDPM
    config: dict[str, Any]
    step: int
    path: Path

    def sample(
        self,
        n: int = 16,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        weights: Weights = "ema",
        batch_size: int = 256,
    ) -> Tensor:
        """Draw pictures: float32 [n, C, H, W] in [-1, 1], on the CPU. Image i depends on (seed, i) alone."""
        drawn = announced_sampling(
            self.module, range(n), seed=seed, sampler=sampler, weights=weights, batch_size=batch_size
        )
        assert drawn is not None  # nobody asked it to stop
        return drawn


def load(
    path: str | Path, device: str | torch.device | None = None, allow_targets: Sequence[str] = ()
) -> Run:
    """Load a run from its directory or from a checkpoint file.

    The checkpoint's configuration may build objects of this project and its libraries only, and none of its
    own code runs.

    Args:
        path: run directory or checkpoint file.
        device: where the network goes; the first GPU by default, or the CPU.
        allow_targets: packages of your own that the run was built from.

    Raises:
        UsageError: where there is no checkpoint that can be read.
    """
    try:
        file, checkpoint = checkpoints.find(Path(path))
    except checkpoints.CheckpointError as error:
        raise UsageError(str(error)) from error
    config = checkpoint["config"]
    parts = {name: config[name] for name in PARTS if name in config}
    check.check_keys(parts, parts, allow_targets)
    check.check_foreign_targets(parts)
    try:
        module = build_module(config, checkpoint["data"])
        module.load_state_dict(checkpoint["state_dict"])
        module.ema.load_state_dict(checkpoint["ema"])
    except (UsageError, RuntimeError, KeyError) as error:
        raise UsageError(f"ckpt={file}: does not fit this version of the project: {error}") from error
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        module.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device={device}: {str(error).splitlines()[0]}") from error
    return Run(module, config, checkpoint["global_step"], file)
