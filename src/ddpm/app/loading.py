"""A finished, or still running, run as an object: what sample.py and notebooks work with."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.app import check
from ddpm.app.build import build_module
from ddpm.errors import UsageError
from ddpm.runtime.device import default_device
from ddpm.sampling.batches import announced_sampling
from ddpm.training import checkpoints
from ddpm.training.module import DDPM

PARTS = (
    "schedule", "objective", "variance", "weighting", "timesteps", "model", "sampler", "guidance",
    "optimizer",
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
        labels: Sequence[int | str] | None = None,
        batch_size: int | None = None,
        **settings: Any,
    ) -> Tensor:
        """Draw pictures: float32 [n, C, H, W] in [-1, 1], on the CPU. Image i depends on (seed, i) alone.

        Args:
            n: pictures.
            labels: classes by number or name, which the pictures take in turn; by default every class.
            batch_size: pictures drawn at once; by default as many as fit into memory, up to 256.
            settings: `seed`, `sampler`, `weights`, `guidance`, `start` and `known`, as `DDPM.sample` takes
                them.

        Raises:
            ValueError: where a class or a start is none of this model's.
        """
        drawn = announced_sampling(
            self.module, range(n), labels=self.numbered(labels), batch_size=batch_size, **settings
        )
        assert drawn is not None  # nobody asked it to stop
        return drawn

    def own(self, config: dict[str, Any], group: str, allow_targets: Sequence[str] = ()) -> dict[str, Any]:
        """The settings of a group: those of the command line, and where they name no option, the run's own
        with what was set.

        Raises:
            UsageError: where the run has none, or its own has no such key.
        """
        given, own = config[group] or {}, self.config.get(group) or {}
        if "_target_" in given:
            return given
        if "_target_" not in own:
            raise UsageError(f"{group}: this run says nothing about it; choose one with {group}=OPTION")
        settings = {**own, **given}
        try:
            check.check_keys({group: settings}, {group: settings}, allow_targets)
        except UsageError as error:
            kind = own["_target_"].rpartition(".")[2]
            raise UsageError(
                f"{error} ({group} of this run is {kind}; {group}=OPTION chooses another)"
            ) from error
        return settings

    def numbered(self, labels: Sequence[int | str] | None) -> list[int] | None:
        """Classes by name or number as numbers.

        Raises:
            ValueError: for a name that no class has.
        """
        if labels is None or self.module.classes is None:
            return labels if labels is None else list(labels)  # refused by number and by name alike
        return [self._number(label) for label in labels]

    def _number(self, label: int | str) -> int:
        classes = self.module.classes
        if isinstance(label, int) and not isinstance(label, bool):
            return label
        if label in classes:
            return classes.index(label)
        near = difflib.get_close_matches(str(label), classes, n=1)
        hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(classes[:20])}"
        raise ValueError(f"labels: this run has no class {label}; {hint}")


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
    device = device or default_device()
    try:
        module.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device={device}: {str(error).splitlines()[0]}") from error
    return Run(module, config, checkpoint["global_step"], file)
