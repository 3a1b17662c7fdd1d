"""What a side file says about images: the class of each, and its caption."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ddpm.data.layout.match import Known, Several
from ddpm.data.layout.names import counted


@dataclass(frozen=True)
class Labels:
    """What a side file says.

    Attributes:
        classes: of images, by their numbers; empty where it says none.
        captions: the same.
        why_none: why it says no classes, where it could; "" else.
        missing: images that it names and that are not there.
        problem: what makes it unfit to label images, for a message; "" where nothing does.
        share: of what it names, how much is there, in [0, 1].
        columns: that could be labels, of a table that has several.
    """

    classes: Mapping[int, str] = field(default_factory=dict)
    captions: Mapping[int, str] = field(default_factory=dict)
    why_none: str = ""
    missing: int = 0
    problem: str = ""
    share: float = 0.0
    columns: tuple[str, ...] = ()


def named(pairs: Iterable[tuple[str, str | None]], images: Known, why_none: str = "") -> Labels:
    """The classes of images by their names.

    Args:
        pairs: name and class; an empty name or class is passed over.
        images: that there are.
        why_none: see `Labels`.
    """
    classes: dict[int, str] = {}
    problem, missing, found = "", set(), 0
    for key, value in pairs:
        if not key:
            continue
        index = images.find(key)
        if isinstance(index, int):
            found += 1
            if not value:
                continue
            if classes.setdefault(index, value) != value and not problem:
                problem = f"has two labels for {images.names[index]}: {classes[index]} and {value}"
        elif isinstance(index, Several):
            found += 1
            problem = problem or f"says {key}, which may be any of {', '.join(index.names[:3])}"
        else:
            missing.add(key)
    share = found / max(1, found + len(missing))
    return Labels(classes, {}, why_none, len(missing), problem, share)


def text(value: object) -> str:
    """A label as it stands in a file: whole numbers without a point, nothing for what is no label."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, (str, int, float)) and value == value else ""


def several(number: int) -> str:
    """Why images with several classes each have none."""
    return f"gives {counted(number)} several classes"
