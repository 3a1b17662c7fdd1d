"""How fast training is, and how much of the device that uses: the `perf/` metrics."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler
from torch import nn

GIB = 1 << 30

NOTHING = nullcontext()

STEP = 3
"""A training step takes this many times the arithmetic of the forward pass: going back, each layer multiplies
twice, for its input and for its weights."""


@torch.no_grad()
def flops_an_image(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Floating-point operations of a forward pass for one picture; a multiplication and an addition are two.

    Counted is what is multiplied with weights, in convolutions and matrix products; batched products, which
    attention makes of features alone, are not. So the paper's network for CIFAR-10 takes its usual 12.11e9.

    Args:
        network: run once, on the device it is on; as it is, not compiled.
        image_shape: (C, H, W).
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = next(network.parameters()).device
    x, t = torch.zeros(1, *image_shape, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    was_training = network.training
    network.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            network.forward(x, t)
    finally:
        network.train(was_training)
    counts = counter.get_flop_counts().get("Global", {})
    return sum(n for op, n in counts.items() if "attention" not in str(op) and "bmm" not in str(op))


def matmul_peak(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of a large matrix product, measured: the best of a few.

    Takes well under a tenth of a second.

    Args:
        device: to measure.
        precision: "32-true" or "bf16-mixed", whose products are of bfloat16.
    """
    size = 1024 if device.type == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    with torch.autocast(device.type, enabled=False):
        for _ in range(5):  # the first one allocates and chooses a kernel
            wait(device)
            start = time.perf_counter()
            torch.mm(a, a)
            wait(device)
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def peak_memory(device: torch.device) -> int:
    """Most bytes held at once so far: by tensors on an NVIDIA GPU; elsewhere by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class Unprofiled(PassThroughProfiler):
    """Profiles nothing, as Lightning's own that does so, which takes longer to do it, eighty times a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:
        return NOTHING


class DataWait(Callback):
    """Sums the time between the end of a step and the next batch, on its device; the last of the callbacks.

    Validation in between is not counted.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._since: float | None = None

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._since is not None:
            self.seconds += self._clock() - self._since

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._since = self._clock()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self._since is not None:
            self.seconds += self._clock() - self._since

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._since = self._clock()

    def taken(self) -> float:
        """The sum, which then starts anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds
