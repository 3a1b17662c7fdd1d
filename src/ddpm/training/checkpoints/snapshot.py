"""A copy of a checkpoint in the memory of the host, which training stops for, and nothing else."""

import mmap
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ddpm.training.checkpoints.layout import mapped, tensors_in

ALIGNED = 64
"""Bytes: tensors begin at multiples of it, as torch's own do."""

SPARE = 1 << 20
"""Bytes beyond those that were asked for: the tensors of callbacks are small, and come and go."""

PIECE = 1 << 24
"""Bytes that are written at once when memory is taken."""


class HostMemory:
    """Memory that snapshots are copied into, as large as one checkpoint, and used again for the next.

    New memory is slow, up to seconds for a GiB, so it is kept, in large pages where the system has them, and
    can be had before the first snapshot. For a GPU it is pinned: copies then run at the speed of the bus, and
    one wait is enough for all of them.
    """

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._pinned = 0  # the address, where the memory is pinned

    def snapshot(self, content: Any) -> Any:
        """The content with its tensors copied into this memory, where they stay until the next snapshot.

        Raises:
            CheckpointError: where the content holds what no checkpoint can.
            MemoryError, OSError: where the host has too little memory.
        """
        originals = {_key(tensor): tensor.detach() for _, tensor in tensors_in(content, "")}
        on_gpu = {tensor.device for tensor in originals.values() if tensor.device.type == "cuda"}
        self.reserve(room(originals.values()), next(iter(on_gpu), None))
        copies, begin = {}, 0
        for key, original in originals.items():
            copies[key] = self._like(original, begin)
            copies[key].copy_(original, non_blocking=original.device in on_gpu)
            begin += room([original])
        for device in on_gpu:
            torch.cuda.current_stream(device).synchronize()
        return mapped(content, lambda tensor: copies[_key(tensor)])

    def release(self) -> None:
        """Give the memory back, as soon as nothing refers to a snapshot."""
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._pinned)
        self._memory, self._pinned = None, 0

    def reserve(self, size: int, gpu: torch.device | None = None) -> None:
        """Have memory for a snapshot.

        Args:
            size: bytes.
            gpu: that it is copied from, if it is from one.

        Raises:
            OSError: where the host has too little.
        """
        if self._memory is not None and size <= len(self._memory):
            return
        self.release()
        # private, so that it counts as the process's own; not for workers of a loader, as sharing it with
        # them would have it copied page by page at the next snapshot
        flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        self._memory = mmap.mmap(-1, size + SPARE, **flags)
        for advice in ("MADV_HUGEPAGE", "MADV_DONTFORK"):
            if hasattr(mmap, advice):
                self._memory.madvise(getattr(mmap, advice))
        memory = torch.frombuffer(self._memory, dtype=torch.uint8)
        for piece in memory.split(PIECE):
            piece.zero_()  # the system gives memory when it is first written to
        if gpu is not None:
            with torch.cuda.device(gpu):  # else a thread of its own would begin to use the first one
                failed = int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), len(memory), 0))
            self._pinned = 0 if failed else memory.data_ptr()

    def _like(self, tensor: Tensor, begin: int) -> Tensor:
        """A tensor of its shape in this memory, with its strides where they leave no gaps."""
        outline = torch.empty_like(tensor, device="meta")
        if not tensor.numel():
            return torch.empty_like(outline, device="cpu")
        assert self._memory is not None
        flat = torch.frombuffer(self._memory, dtype=tensor.dtype, count=tensor.numel(), offset=begin)
        return flat.as_strided(outline.size(), outline.stride())


def _key(tensor: Tensor) -> tuple[Any, ...]:
    """The same for tensors that are one: a weight under two names is copied, and written, once."""
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def room(tensors: Iterable[Tensor]) -> int:
    """The bytes that a snapshot of tensors takes."""
    return sum(-(-tensor.nbytes // ALIGNED) * ALIGNED for tensor in tensors)
