"""Where torch.compile keeps what it makes."""

import logging
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

CACHE_DIR = "TORCHINDUCTOR_CACHE_DIR"
"""Environment variable: where torch.compile keeps what it made."""

LEAST_ROOM = 2**28
"""Bytes that are to be free where torch.compile keeps what it makes: it fails where the disk is full."""

log = logging.getLogger(__name__)

COMPILING = "compiling the network: the first step waits for it, a minute or two if it is large"


def has_triton() -> bool:
    """Whether torch.compile has what it needs on a GPU; it is not part of every build of torch."""
    return find_spec("triton") is not None


def keep_compiled(cache: Path) -> str:
    """Let torch.compile keep what it makes in a directory of its own, unless $TORCHINDUCTOR_CACHE_DIR names
    another. Where that has no room torch's own is used, below the system's temporary directory.

    Returns:
        The directory in use.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(CACHE_DIR) in (None, default_cache_dir()):  # torch's own is emptied by the system
        if _has_room(cache):
            os.environ[CACHE_DIR] = str(cache)
        else:
            os.environ[CACHE_DIR] = default_cache_dir()
            log.warning("%s has no room: what is compiled is kept in %s", cache, default_cache_dir())
    return os.environ[CACHE_DIR]


def _has_room(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return os.access(directory, os.W_OK) and shutil.disk_usage(directory).free >= LEAST_ROOM
    except OSError:
        return False
