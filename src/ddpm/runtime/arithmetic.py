"""Arithmetic and memory of a network, counted on shapes alone, and what a device reaches."""

import copy
import logging
import math
import time
import weakref
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm.runtime.computing import DTYPES
from ddpm.runtime.device import wait

log = logging.getLogger(__name__)

SMALLEST, LARGEST = 256, 8192
"""Rows and columns of the products that a device is measured by."""

ENOUGH = 0.003
"""Seconds; a product that takes so long shows what the device can do."""

STEP = 3
"""A training step takes this many times the arithmetic of the forward pass: going back, each layer multiplies
twice, for its input and for its weights."""


def flops_per_image(network: nn.Module, image_shape: tuple[int, int, int]) -> float:
    """Floating-point operations of a forward pass for one image; a multiplication and an addition are two.

    Counted is what is multiplied with weights, in convolutions and matrix products, by the layers as they are
    written; a device may know a shorter way. Batched products, which attention makes of features alone, are
    left out. So the paper's network for CIFAR-10 takes its usual 12.11e9.

    Args:
        network: as it is, not compiled.
        image_shape: (C, H, W).

    Returns:
        NaN for a network that cannot be run without values.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    if not _run_on_shapes(network, image_shape, 1, counter):
        return math.nan
    counts = counter.get_flop_counts().get("Global", {})
    return sum(n for op, n in counts.items() if "attention" not in str(op) and "bmm" not in str(op))


def activation_bytes(network: nn.Module, image_shape: tuple[int, int, int]) -> float:
    """Most bytes that a forward pass holds at once beside the weights, for each image of a batch, in
    float32, where nothing is kept for a backward pass.

    Args:
        network: as it is, not compiled.
        image_shape: (C, H, W).

    Returns:
        NaN for a network that cannot be run without values.
    """
    live, images = _LiveBytes(), 16  # what does not grow with the batch is shared by so many
    return live.most / images if _run_on_shapes(network, image_shape, images, live) else math.nan


def training_bytes(network: nn.Module, image_shape: tuple[int, int, int]) -> float:
    """Most bytes that a forward and a backward pass hold at once beside weights and gradients, for each image
    of a batch, in float32: what is kept for the backward pass included.

    Args:
        network: as it is, not compiled.
        image_shape: (C, H, W).

    Returns:
        NaN for a network that cannot be run without values.
    """
    few, many = 8, 16  # the difference is free of what does not grow with the batch
    most = []
    for images in (few, many):
        live = _LiveBytes()
        if not _run_on_shapes(network, image_shape, images, live, training=True):
            return math.nan
        most.append(live.most)
    return (most[1] - most[0]) / (many - few)


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made under it and not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._live: dict[weakref.ref[torch.UntypedStorage], int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {weakref.ref(storage) for storage in _storages((args, kwargs))}
        for storage in _storages(out):  # a view has that of what it views
            if (reference := weakref.ref(storage, self._live.pop)) not in given:
                self._live[reference] = storage.nbytes()
        self.most = max(self.most, sum(self._live.values()))
        return out


def _storages(tensors: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tensors) if isinstance(leaf, torch.Tensor)]


def _run_on_shapes(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    images: int,
    context: AbstractContextManager[Any],
    *,
    training: bool = False,
) -> bool:
    """Run a copy of a network that has shapes in place of values, within `context`: no time, no memory. With
    `training` also back, and with what it does in training only.

    Returns:
        Whether it can be copied and run so. Nothing that it raises matters to what asks for a measurement.
    """
    values = [*network.parameters(), *network.buffers()]
    try:
        outlines = {id(value): _outline(value) for value in values}
        shapes = copy.deepcopy(network, outlines).train(training)
        x = torch.zeros(images, *image_shape, device="meta")
        t = torch.zeros(images, dtype=torch.int64, device="meta")
        with context, torch.set_grad_enabled(training):
            output = shapes.forward(x, t)
            if training:
                output.square().mean().backward()
    except Exception as error:
        log.debug("not run on shapes alone: %s", error)
        return False
    return True


def _outline(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to("meta").requires_grad_(value.requires_grad)


def matmul_peak(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of a large matrix product, measured: the best of a few.

    Large is what the device is busy with for `ENOUGH` seconds, so that starting it does not count: 1024 rows
    and columns on a CPU of a few cores, 8192 on a GPU of a data centre. Its numbers are random, since a GPU
    that lacks power clocks higher for plain ones: an H200 reaches 890 TFLOP/s with ones and 790 with these.
    Takes about a tenth of a second.

    Args:
        device: to measure.
        precision: one of `ddpm.runtime.computing.DTYPES`; products are of that type.
    """
    dtype = DTYPES.get(precision, torch.float32)
    with torch.autocast(device.type, enabled=False):
        size = SMALLEST
        while (seconds := _seconds_a_product(size, dtype, device)) < ENOUGH and size < LARGEST:
            size *= 2
    return 2 * size**3 / seconds


def _seconds_a_product(size: int, dtype: torch.dtype, device: torch.device) -> float:
    generator = torch.Generator(device).manual_seed(0)  # torch's own is a run's
    a = torch.randn(size, size, dtype=dtype, device=device, generator=generator)
    best = math.inf
    for _ in range(5):  # the first one allocates and chooses a kernel
        wait(device)
        start = time.perf_counter()
        torch.mm(a, a)
        wait(device)
        best = min(best, time.perf_counter() - start)
    return best
