"""What a checkpoint holds: finite tensors in plain containers, under the keys of one layout."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

LAYOUT = 2
"""Which keys a checkpoint has and what they mean. It goes up when an older program would misread a newer
file; what is new and may be missing does not count. Files of version 0.1 do not state theirs: it is 1.
"""

LAYOUT_OF_WHOLE = 1
"""What a checkpoint says that is one file; one in parts would be misread by programs from before there were
such.
"""

COMPUTED = ("state_dict", "ema", "optimizer_states")
"""What a network is computed with and trained by. What callbacks keep may be infinite, as a best loss is."""


class CheckpointError(ValueError):
    """A checkpoint is missing or cannot be used; says which and why."""


def check(content: Any) -> dict[str, Any]:
    """The content of a file, where it is a checkpoint of this project that can be used.

    Raises:
        CheckpointError: where it is none, of a newer layout, or not finite; does not name the file.
    """
    if not isinstance(content, Mapping) or not {"state_dict", "config"} <= content.keys():
        raise CheckpointError("is not a checkpoint of this project (no network and config)")
    layout = content.get("layout", 1)
    if type(layout) is not int or layout < 1:
        raise CheckpointError("is not a checkpoint of this project (its layout is no number)")
    if layout > LAYOUT:
        raise CheckpointError(
            f"was written by a newer version of this program (layout {layout}; this one reads up to {LAYOUT})"
        )
    for key, right, what in (
        ("state_dict", _are_tensors(content["state_dict"]), "tensors by name"),
        ("config", isinstance(content["config"], Mapping | None), "a mapping"),
        ("data", isinstance(content.get("data"), Mapping | None), "a mapping"),
        ("ema", _is_average(content.get("ema", {})), "an average of tensors"),
        ("global_step", _is_count(content.get("global_step", 0)), "a number of steps"),
        ("average", isinstance(content.get("average", {}), Mapping), "a mapping"),
        ("optimizer_states", isinstance(content.get("optimizer_states", []), list), "a list"),
        ("wandb_id", isinstance(content.get("wandb_id"), str | None), "text"),
    ):
        if not right:
            raise CheckpointError(f"is not a checkpoint of this project ({key} is not {what})")
    if (name := first_not_finite(content)) is not None:
        raise CheckpointError(f"is not finite: {name} holds NaN or infinity")
    return dict(content)


def _are_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        type(name) is str and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


def _is_average(value: Any) -> bool:
    return isinstance(value, Mapping) and (
        not value or (_are_tensors(value.get("parameters")) and _is_count(value.get("num_updates")))
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def first_not_finite(content: Mapping[str, Any]) -> str | None:
    """The name of the first tensor of network, average or optimizer that holds NaN or infinity, or None."""
    for key in COMPUTED:
        for name, tensor in tensors_in(content.get(key), key):
            if not is_finite(tensor):
                return name
    return None


def tensors_in(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors within containers, with their dotted names."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from tensors_in(part, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from tensors_in(part, f"{name}.{i}")


def is_finite(tensor: Tensor) -> bool:
    """Takes no memory where numpy knows the numbers: the least and the greatest are NaN where one is."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return True
    if tensor.device.type != "cpu":
        return bool(torch.isfinite(tensor).all())
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()  # bfloat16 and narrower ones
    numbers = tensor.numpy()
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(numbers.min()) and np.isfinite(numbers.max()))


PLAIN: tuple[Any, ...] = (bool, int, float, complex, str, bytes)


def mapped(value: Any, of_tensor: Callable[[Tensor], Tensor], name: str = "checkpoint") -> Any:
    """The same containers with other tensors.

    Raises:
        CheckpointError: as `mapped_by_name`.
    """
    return mapped_by_name(value, lambda _, tensor: of_tensor(tensor), name)


def mapped_by_name(value: Any, of_tensor: Callable[[str, Tensor], Tensor], name: str) -> Any:
    """The same containers with other tensors, made from their dotted names, as of `tensors_in`, and them.

    Raises:
        CheckpointError: where there is something that no reader would take, such as a function or numpy's
            arrays; names its place.
    """
    if isinstance(value, Tensor) and value.layout == torch.strided:
        return of_tensor(name, value.detach())
    if isinstance(value, dict):
        new: dict[Any, Any] = OrderedDict() if isinstance(value, OrderedDict) else {}
        for key, part in value.items():
            new[_plain(key, name)] = mapped_by_name(part, of_tensor, f"{name}.{key}")
        if isinstance(value, OrderedDict):  # a module's state has the versions of its layers
            vars(new).update(mapped_by_name(vars(value), of_tensor, name))
        return new
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        parts = (mapped_by_name(part, of_tensor, f"{name}.{i}") for i, part in enumerate(value))
        return list(parts) if isinstance(value, list) else tuple(parts)
    if isinstance(value, set):
        return {_plain(part, name) for part in value}
    return _plain(value, name)


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, np.generic):  # a callback's own count, say
        value = value.item()
    if isinstance(value, torch.Size | torch.dtype | torch.device | None):
        return value
    for plain in PLAIN:
        if isinstance(value, plain):
            return plain(value)
    raise CheckpointError(f"{name} is a {type(value).__name__}, which no checkpoint can hold")
