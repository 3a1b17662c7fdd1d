"""Whether two checkpoints hold the same."""

from collections.abc import Iterator
from typing import Any

import torch


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Where they differ, bit by bit."""
    if type(one) is not type(other):
        yield name
    elif isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield name
    elif isinstance(one, dict):
        if [*one] != [*other]:
            yield name
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield name
        for i, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, f"{name}.{i}")
    elif one != other:
        yield name
