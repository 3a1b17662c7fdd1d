"""Whether this machine has the GPUs that a program is told to take."""

from collections.abc import Mapping
from typing import Any

from ddpm.errors import UsageError

ON_GPUS = ("gpu", "cuda")
"""Accelerators that are GPUs whatever there is."""


def check(trainer: Mapping[str, Any]) -> None:
    """Refuse GPUs that are not there; torch is imported to see them. CPU processes may be any number.

    Args:
        trainer: settings of a trainer.

    Raises:
        UsageError: naming the key.
    """
    import torch

    from ddpm.runtime.device import device_of

    accelerator, devices = str(trainer.get("accelerator")), trainer.get("devices")
    kind = device_of(accelerator).type
    if kind == "cpu":
        if accelerator in ON_GPUS:
            raise UsageError(
                f"trainer.accelerator={accelerator}: torch {torch.__version__} sees no GPU here; use "
                "trainer.accelerator=cpu, or a torch that is built for this machine's GPU"
            )
        return
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if isinstance(devices, int) and devices > there:
        raise UsageError(
            f"trainer.devices={devices}: there {'is 1 GPU' if there == 1 else f'are {there} GPUs'} here; use "
            f"trainer.devices={there}, or trainer.accelerator=cpu"
        )
