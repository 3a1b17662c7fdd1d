"""How the network is computed: in which precision, in which memory layout, compiled or as it is.

None of it changes what is learnt, beyond rounding, or what a checkpoint holds.
"""

import logging
import os
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)

LARGE = {"cpu": 500_000, "cuda": 2_000_000}
"""Parameters from which on bfloat16 is faster: the layers of a smaller network are so short that the
conversions cost more than they save. Measured in docs/benchmarks.md for CPUs.
"""

CACHE_DIR = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable: where torch.compile keeps what it made."""

WORTH_COMPILING = 10_000
"""Uses of the network from which on a GPU makes up for the minute or two that compiling takes."""


@dataclass(frozen=True)
class Computing:
    """The choices for one run, or one sampling.

    Attributes:
        precision: "32-true", or "bf16-mixed": convolutions and matrix products in bfloat16, all else in
            float32.
        channels_last: the memory layout in which the channels of a pixel are neighbours.
        compile: by torch.compile.
    """

    precision: str
    channels_last: bool
    compile: bool

    def __str__(self) -> str:
        names = {"channels last": self.channels_last, "compiled": self.compile}
        return ", ".join([self.precision, *(name for name, is_on in names.items() if is_on)])


AS_IT_IS = Computing("32-true", channels_last=False, compile=False)


def choose(
    device: torch.device,
    parameters: int,
    uses: int,
    *,
    precision: str = "auto",
    channels_last: bool | None = None,
    compile: bool | None = None,
) -> Computing:
    """What a person said, and for the rest what is fastest on this device.

    With bfloat16 units bf16-mixed for a large network, on a GPU in channels last, and compiled where that is
    worth the wait. Everything else: float32 as it is.

    Args:
        device: that computes.
        parameters: of the network.
        uses: how often the network will be asked, or a step will be taken; -1 for no end.
        precision: "auto" leaves it to this function, as None does for the others.
    """
    on_gpu = device.type == "cuda"
    large = device.type in LARGE and parameters >= LARGE[device.type]
    long = not 0 <= uses < WORTH_COMPILING
    if precision == "auto":
        precision = "bf16-mixed" if large and has_bfloat16(device) else "32-true"
    if channels_last is None:
        channels_last = on_gpu and large and has_bfloat16(device)
    if compile is None:
        compile = on_gpu and large and long and _has_triton()
    return Computing(precision, channels_last, compile)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices of bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # AVX512-BF16 and AMX; torch has no public name for them
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def _has_triton() -> bool:
    """Whether torch.compile has what it needs on a GPU; it is not part of every build of torch."""
    return find_spec("triton") is not None


def trains_on(accelerator: str) -> torch.device:
    """The kind of device that Lightning's `accelerator` means on this machine."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


COMPILING = "compiling the network: the first step waits for it, a minute or two if it is large"


def keep_compiled(cache: Path) -> str:
    """Let torch.compile keep what it makes in a directory of its own, unless $TORCHINDUCTOR_CACHE_DIR names
    another.

    Returns:
        The directory in use.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(CACHE_DIR) in (None, default_cache_dir()):  # torch's own is emptied by the system
        os.environ[CACHE_DIR] = str(cache)
    return os.environ[CACHE_DIR]


class Compilation(Callback):
    """Compiles the network before the first step, and says so, and how long that step took.

    Args:
        cache: directory that keeps what was compiled, for the next run; $TORCHINDUCTOR_CACHE_DIR comes first.
    """

    def __init__(self, cache: Path):
        self.cache = keep_compiled(cache)
        self._since: float | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        log.info(COMPILING)
        module.compile_network()
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._since is not None:
            took = time.monotonic() - self._since
            log.info("compiled in %.0f s; the next run finds most of it in %s", took, self.cache)
            self._since = None
