"""Properties that hypothesis tries: on a few examples every day, on many among the slow forms."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def short_and_long(
    check: Callable[..., None], *strategies: st.SearchStrategy[Any], everyday: int, long: int
) -> tuple[Callable[..., None], Callable[..., None]]:
    """The two tests of a property, of so many examples each."""
    short, full = (
        settings(max_examples=count, deadline=None)(given(*strategies)(check)) for count in (everyday, long)
    )
    return short, pytest.mark.slow(full)
