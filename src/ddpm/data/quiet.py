"""Warnings of the image library, kept off the terminal while any thread uses it."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_rules: list[Any] = []
"""The rule that is added to `warnings.filters`, once for every thread that is inside."""


@contextmanager
def without_warnings() -> Iterator[None]:
    """Inside, and in other threads meanwhile, warnings of Pillow are dropped.

    `warnings.catch_warnings` is of the whole process: threads that leave it in another order than they
    entered it would restore each other's filters.
    """
    with _lock:
        if not _rules:
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _rules.append(warnings.filters[0] if not _rules else _rules[0])
    try:
        yield
    finally:
        with _lock:
            rule = _rules.pop()
            if not _rules and rule in warnings.filters:  # someone else may have restored theirs meanwhile
                warnings.filters.remove(rule)  # type: ignore[attr-defined]
