"""Sources that read something beside each image, which the network is conditioned on."""

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING

from ddpm.data.conditions.conditioning import Stored

if TYPE_CHECKING:
    from ddpm.data.sources import Source

READ_BY = "data=folder, archive, arrays and npz"


def reading(source: "Source", condition: Stored) -> "Source":
    """The same source, which reads a condition beside each image.

    Raises:
        ValueError: where it cannot.
    """
    if not is_dataclass(source) or "condition" not in {field.name for field in fields(source)}:
        raise ValueError(
            f"{condition.typed}: {type(source).__name__} reads nothing beside its images; {READ_BY} do: save "
            "the images as files or arrays, beside what they are conditioned on"
        )
    return replace(source, condition=condition)
