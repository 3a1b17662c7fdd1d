"""What Pillow and its libraries print by themselves, kept off the terminal while any thread uses them."""

import ctypes
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from PIL import Image

NEVER = logging.CRITICAL + 1

_lock = threading.Lock()
_inside: list[tuple[Any, int]] = []
"""For each thread that is inside: the rule among `warnings.filters`, and the level of the log before."""

if hasattr(os, "register_at_fork"):  # else a worker could begin with a lock that nobody is left to release
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, and in other threads meanwhile, Pillow neither warns nor logs: its exceptions say enough.

    `warnings.catch_warnings` is of the whole process: threads that leave it in another order than they
    entered it would restore each other's filters.
    """
    log = logging.getLogger("PIL")
    with _lock:
        if not _inside:
            _silence_libtiff()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _inside.append((warnings.filters[0], log.level))
            log.setLevel(NEVER)
        else:
            _inside.append(_inside[0])
    try:
        yield
    finally:
        with _lock:
            rule, level = _inside.pop()
            if not _inside:
                log.setLevel(level)
                with suppress(ValueError):  # someone may have restored other filters meanwhile
                    warnings.filters.remove(rule)  # type: ignore[attr-defined]  # a list, whatever its type says


@cache
def _silence_libtiff() -> None:
    """libtiff writes what is wrong with a file to the terminal, and Pillow stops its warnings only."""
    with suppress(OSError, AttributeError):  # where it is part of Pillow's own library, as on Windows
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)
