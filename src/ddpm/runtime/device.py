"""Which device computes, and what it can do."""

import torch


def default_device() -> torch.device:
    """The device that a program takes by itself: an NVIDIA or AMD GPU, else a Mac's, else the CPU."""
    return device_of("auto")


def device_of(accelerator: str) -> torch.device:
    """The kind of device that Lightning's `accelerator` means on this machine.

    Args:
        accelerator: "auto", "gpu", "cuda", "mps" or "cpu". What this machine has not got is the CPU; to
            refuse it is Lightning's.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether it is known that the device multiplies matrices of bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # AVX512-BF16 and AMX; torch has no public name for them
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def wait(device: torch.device) -> None:
    """Until the device has done all that was asked of it, so that a clock can be read."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
