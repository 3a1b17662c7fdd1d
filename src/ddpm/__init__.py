"""Denoising diffusion probabilistic models: an experiment framework."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm.run import Run, load
    from ddpm.training.module import DDPM

__all__ = ["DDPM", "Run", "__version__", "load"]

try:
    __version__ = version("ddpm")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0"

_HOMES = {"load": "ddpm.run", "Run": "ddpm.run", "DDPM": "ddpm.training.module"}


def __getattr__(name: str) -> Any:
    """Heavy imports only when asked for: `ddpm.load`, `ddpm.Run`, `ddpm.DDPM`."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ddpm' has no attribute {name!r}")
