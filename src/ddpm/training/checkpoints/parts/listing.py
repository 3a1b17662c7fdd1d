"""What the head of a checkpoint says of its parts."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.training.checkpoints.archive import RefusedFileError
from ddpm.training.checkpoints.layout import COMPUTED, is_finite, tensors_in

DIRECTORY = "parts"
"""Where the parts lie, beside the heads."""

KEY = "parts"
"""What a head says of its parts."""

NAME = re.compile(r"[A-Za-z0-9_=+,@-]{1,100}\.[0-9a-f]{16}\.ckpt")
"""Of the file of a part: that of the checkpoint, in these letters, and a fingerprint of the contents."""

MAX_PARTS = 100_000


class Parts(NamedTuple):
    """What a head says of its parts.

    Attributes:
        files: in `parts/`, in the order of the processes that wrote them.
        shapes: of whole tensors, by their dotted names in the checkpoint.
        dtypes: of them.
    """

    files: Sequence[str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]


def rows(part: int, of: int, n: int) -> range:
    """Which of n rows are in a part, the others of which are as large, but for the last ones."""
    size = -(-n // of)
    return range(min(part * size, n), min((part + 1) * size, n))


def listed(head: Any) -> Parts | None:
    """What a checkpoint says of its parts; None for one that is whole.

    Args:
        head: as it was read.

    Raises:
        RefusedFileError: where that is no list of parts, or not of this head.
    """
    if not isinstance(head, Mapping) or KEY not in head:
        return None
    files, shapes = files_and_shapes(head[KEY])
    dtypes: dict[str, torch.dtype] = {}
    for key, value in head.items():
        for name, tensor in tensors_in(value, str(key)):
            if name in dtypes and name in shapes:
                raise RefusedFileError(f"two tensors are called {name[:80]}")
            dtypes[name] = tensor.dtype
    if missing := shapes.keys() - dtypes.keys():
        raise RefusedFileError(f"it has no place for {min(missing)[:80]}")
    return Parts(files, shapes, dtypes)


def files_and_shapes(listing: Any) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Files and shapes of a list of parts."""
    match listing:
        case {"files": list() as files, "shapes": dict() as shapes} if (
            0 < len(files) <= MAX_PARTS
            and all(type(name) is str and NAME.fullmatch(name) for name in files)
            and all(type(name) is str and _is_shape(shape) for name, shape in shapes.items())
        ):
            return files, {name: tuple(shape) for name, shape in shapes.items()}
    raise RefusedFileError("its list of parts is damaged")


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(n) is int and 0 <= n < 1 << 62 for n in value)


def stem_of(name: str) -> str:
    """What the names of the parts of a checkpoint begin with."""
    return re.sub(r"[^A-Za-z0-9_=+,@-]", "_", name)[:100]


def first_not_finite(part: Mapping[str, Tensor]) -> str | None:
    return next(
        (
            name
            for name, tensor in part.items()
            if name.partition(".")[0] in COMPUTED and not is_finite(tensor)
        ),
        None,
    )
