"""Where torch.compile keeps what it makes."""

import os
from importlib.util import find_spec
from pathlib import Path

CACHE_DIR = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable: where torch.compile keeps what it made."""

COMPILING = "compiling the network: the first step waits for it, a minute or two if it is large"


def has_triton() -> bool:
    """Whether torch.compile has what it needs on a GPU; it is not part of every build of torch."""
    return find_spec("triton") is not None


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
