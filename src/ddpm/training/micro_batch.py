"""The largest micro-batch that a device has memory for, by an estimate that a GPU then confirms."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ddpm.runtime.computing import DTYPES
from ddpm.runtime.memory import free_memory, is_out_of_memory
from ddpm.training.module import DDPM

WEIGHT = 4
"""Bytes."""

STATE = 16
"""Bytes for each weight beside it: gradient, two moments of the optimizer, average."""

BEYOND_TENSORS = 1.3
"""What a CPU's kernels and its allocator take for a byte of tensors. A U-Net of 64 channels took
34.3 MB for each image of 32x32 where its tensors were 27.9 (one core, oneDNN).
"""

SHARE = 0.9
"""Of the memory, that a training step may take."""


@dataclass(frozen=True)
class Room:
    """The memory that a training step may take.

    Attributes:
        device: whose memory it is.
        taken: bytes of it that something else will hold: images that live there.
        processes: of the run that share it.
        shards: devices that share the weights and their state.
    """

    device: torch.device
    taken: int = 0
    processes: int = 1
    shards: int = 1


def largest(module: DDPM, sizes: Sequence[int], room: Room) -> int | None:
    """The largest micro-batch that there is room for; None where the smallest is too large.

    On a GPU, where kernels choose how much they take, real passes confirm the estimate, and what is computed
    in half precision is taken to need half of it. Where the estimate or the memory is not known, the largest
    is taken.

    Args:
        module: as it will be trained; is left as it was.
        sizes: images, from the largest to the smallest.
        room: for them.
    """
    device = room.device
    free = SHARE * free_memory(device) / room.processes - room.taken
    state = (WEIGHT + STATE) * module.num_parameters / room.shards
    image = module.training_bytes
    if device.type == "cuda":
        image *= DTYPES[module.computing.precision].itemsize / 4
    elif device.type == "cpu":
        image *= BEYOND_TENSORS
    is_known = free_memory(device) > 0 and not math.isnan(image)
    fitting = [size for size in sizes if state + size * image <= free] if is_known else list(sizes)
    if device.type != "cuda" or room.shards > 1:
        return fitting[0] if fitting else None
    beside = int(STATE * module.num_parameters + room.taken + (1 - SHARE) * free_memory(device))
    return confirmed(fitting or sizes[-1:], lambda images: fits(module, images, device, beside))


def confirmed(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The first size that fits; after one that does not, the next that is at most half as large.

    Args:
        sizes: images, from the largest to the smallest.
        fits: tries one.
    """
    while sizes:
        if fits(sizes[0]):
            return sizes[0]
        sizes = [size for size in sizes if 2 * size <= sizes[0]]
    return None


def fits(module: DDPM, images: int, device: torch.device, beside: int = 0) -> bool:
    """Whether a forward and a backward pass find memory on a device.

    Weights, buffers, gradients and random state are left as they were, where they were, and what was taken is
    given back.

    Args:
        module: as it will be trained.
        images: of the micro-batch.
        device: to try.
        beside: bytes that something else will hold.
    """
    try:
        with _left_as_it_was(module, device):
            _pass(module, images, device, beside)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:  # the error and what its frames hold are gone by then
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
    return True


def _pass(module: DDPM, images: int, device: torch.device, beside: int) -> None:
    module.to(device)
    held = torch.empty(beside, dtype=torch.uint8, device=device)
    x_0 = torch.zeros(images, *module.image_shape, device=device)
    t = torch.zeros(images, dtype=torch.int64, device=device)
    labels = None if module.num_classes is None else t
    with module.computing.autocast(device):
        module.losses(x_0, t, x_0, labels, module.no_condition(images)).mean().backward()
    del held


@contextmanager
def _left_as_it_was(module: DDPM, device: torch.device) -> Iterator[None]:
    """Give a module back its buffers, gradients and place, and every generator its state."""
    home = module.device
    buffers = [buffer.clone() for buffer in module.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for parameter, _ in gradients:
                parameter.grad = None
            module.to(home)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for buffer, value in zip(module.buffers(), buffers, strict=True):
                buffer.copy_(value)
