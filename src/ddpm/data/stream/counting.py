"""What shards hold: rows, labels and columns, looked at once, and whether they fit together."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ddpm.data.classes import classes_in, listed, strangers
from ddpm.data.columns import LabelValue
from ddpm.data.encodings import LATIN, as_bytes, guessed, is_surely_utf_8, is_utf_8
from ddpm.data.git_lfs import check_fetched
from ddpm.data.pixels.decoding import short
from ddpm.data.stream import parquet, webdataset
from ddpm.data.stream.parts import ShardParts
from ddpm.data.stream.sample import Counted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BEGINNING = 64
"""Bytes at the beginning of a shard that are looked at first."""

Said = TypeVar("Said")


def is_parquet(path: str) -> bool:
    """Whether a shard is of parquet; else it is a tar file."""
    return path.lower().endswith(".parquet")


def counted(
    filesystem: "AbstractFileSystem", parts: ShardParts, image_column: str | None, label_column: str | None
) -> dict[str, Any]:
    """How many rows each shard has, and what they hold."""
    used = [*parts.train, *parts.validation]
    found = {path: _counted_in(filesystem, path, image_column, label_column) for path in used}
    images = _the_same("image_column", {path: one.image_column for path, one in found.items() if one.rows})
    named = {path: tuple(one.classes) for path, one in found.items() if one.classes is not None}
    names = _the_same("label_column", named)
    train, validation = ([found[path] for path in paths] for paths in parts[:2])
    values, why = _labels(train, validation, names, label_column)
    sources = set[str]().union(*(one.label_columns for one in found.values()))
    is_tar = images is None
    if values is None:
        label_column = "none" if is_tar else None
    elif is_tar:
        label_column = sources.pop() if len(sources) == 1 else label_column
    else:
        label_column = _the_same(
            "label_column",
            {path: min(one.label_columns) for path, one in found.items() if one.label_columns},
        )
    captions = set[str]().union(*(one.captions for one in found.values()))
    notes = [f"captions: {' and '.join(sorted(captions))}; nothing uses them yet"] if captions else []
    if any(one.several for one in found.values()):
        notes.append("samples of several images: that whose suffix comes first in the alphabet is taken")
    classes = None if values is None or names is None else list(names)
    if is_tar and values is not None and not all(is_utf_8(str(value)) for value in values):
        by_name, encoding = _read_alike(values)
        values = [by_name[str(name)] for name in classes_in(by_name)]
        classes = [str(name) for name in classes_in(by_name)]
        notes.append(f"labels that are not UTF-8 are read as {encoding}")
    return {
        "counts": [one.rows for one in found.values()],
        "values": None if values is None else list(values),
        "classes": classes,
        "why": why,
        "notes": notes,
        "image_column": images,
        "label_column": label_column,
    }


def _read_alike(values: Sequence[LabelValue]) -> tuple[dict[str, LabelValue], str]:
    """Labels by the names that they have in the encoding that all of them seem to have that are not surely
    UTF-8; and this.

    Raises:
        ValueError: where two of them have one name.
    """
    words = [as_bytes(value) for value in values if isinstance(value, str) and not value.isascii()]
    encoding = guessed([word for word in words if not is_surely_utf_8(word)])
    found: dict[str, LabelValue] = {}
    for value in values:
        name = str(value)
        is_open = not name.isascii() and not is_surely_utf_8(as_bytes(name))
        if is_open and (encoding or not is_utf_8(name)):
            name = as_bytes(name).decode(encoding or LATIN)
        if name in found:
            raise ValueError(
                f"data.path: some shards say the label {name} in one encoding and some in another; write all "
                "as UTF-8"
            )
        found[name] = value
    return found, encoding or LATIN


def _counted_in(
    filesystem: "AbstractFileSystem", path: str, image_column: str | None, label_column: str | None
) -> Counted:
    try:
        with filesystem.open(path, "rb") as file:
            check_fetched(path, file.read(BEGINNING))
            file.seek(0)
            if is_parquet(path):
                return parquet.count(path, file, image_column, label_column)
            return webdataset.count(path, file, label_column)
    except Exception as error:  # a damaged file raises whatever its parts raise
        if str(error).startswith("data."):
            raise
        raise ValueError(f"data.path: {path} is damaged ({short(error)}); mend or remove it") from error


def _the_same(key: str, said: Mapping[str, Said]) -> Said | None:
    """What all shards say; None where there is none.

    Raises:
        ValueError: where two say different things.
    """
    for path, one in said.items():
        first, before = next(iter(said.items()))
        if one != before:
            raise ValueError(
                f"data.{key}: {path} has {_spoken(one)} where {first} has {_spoken(before)}; name shards "
                "that are alike, as a pattern in data.path"
            )
    return next(iter(said.values()), None)


def _spoken(what: object) -> str:
    return f"the classes {listed(what)}" if isinstance(what, tuple) else f"the column {what}"


def _labels(
    train: Sequence[Counted],
    validation: Sequence[Counted],
    names: Sequence[str] | None,
    label_column: str | None,
) -> tuple[Sequence[LabelValue] | None, str]:
    """The label of each class, and where they come from; or None, and why there are none."""
    every = [*train, *validation]
    if label_column == "none":
        return None, "as data.label_column=none says"
    if reasons := [one.why for one in every if one.why]:
        return None, reasons[0]
    shown, held_out = (set[LabelValue]().union(*(one.labels for one in part)) for part in (train, validation))
    if not shown:
        if label_column is not None:
            raise ValueError(f"data.label_column={label_column}: no image of the shards has such a label")
        return None, "no image has a label"
    columns = set[str]().union(*(one.label_columns for one in every))
    if lacking := sum(one.unlabelled for one in every):
        named = f"data.label_column={label_column or ' and '.join(sorted(columns))}"
        ways = "choose shards whose labels are known, or data.label_column=none for no labels"
        share = f"{lacking:,} of {sum(one.rows for one in every):,}"
        if names is None:
            raise ValueError(
                f"{named}: some samples of the shards have a label and some have none ({share}); {ways}"
            )
        raise ValueError(
            f"{named}: some images are of none of the {len(names)} classes that the shards name ({share}); "
            f"{ways}"
        )
    if strange := strangers(shown, held_out, named=names is not None):
        raise ValueError(
            "data.validation_split: no image to train on is of the classes "
            f"{listed(strange)} of those held out; choose other shards, or none for some of the first"
        )
    spoken = set[str]().union(*(one.labels_from for one in every))
    return classes_in(shown) if names is None else range(len(names)), " and ".join(sorted(spoken))
