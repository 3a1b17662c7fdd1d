"""Which columns of a table hold images, labels and captions, and what stands in them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ddpm.data.classes import one_hot
from ddpm.data.pixels.decoding import Decoded, Encoded, decode_or_reason, from_array, short
from ddpm.data.pixels.shaping import Shaping

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "pixels", "bytes")
"""Names of columns that are taken for images though their type alone does not say so."""

LABEL_NAMES = ("label", "fine_label", "labels", "class", "cls", "category")
CAPTION_NAMES = (
    "caption", "text", "txt", "prompt", "description", "sentence", "captions", "texts", "prompts",
    "descriptions", "sentences",
)  # fmt: skip

NOTHING = "there is no image in this row"

LabelValue = int | str
"""A label as a table or a shard has it."""

Image = Encoded | np.ndarray
"""An image as a table has it: encoded, or as numbers."""


class Columns(NamedTuple):
    """The columns of a table that are used.

    Attributes:
        image: name of that of images.
        label: name of that of labels; None where there is none.
        captions: name of that of captions; None where there is none.
        classes: the names of labels 0, 1, ..., where the table says them.
        why: there are no labels, as the end of a sentence.
    """

    image: str
    label: str | None
    captions: str | None
    classes: list[str] | None
    why: str = ""


class NoClassError(ValueError):
    """A value is no label of one class."""


def find_columns(
    schema: "pa.Schema", image_column: str | None, label_column: str | None, where: str = ""
) -> Columns:
    """The columns of a table of this schema, with what `datasets` wrote into it.

    Args:
        schema: of the table.
        image_column: its name; None is the first column of images, else of lists of images, else of bytes,
            else of arrays.
        label_column: its name; None is a column of class labels, else one of `LABEL_NAMES` of a fitting type,
            if any; `none` is none.
        where: the table is, for messages.

    Raises:
        ValueError: where there is no such column.
    """
    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
    features = features.get("features") or {}
    lacks, has = (f"{where} has no", "it has") if where else ("no", "the columns are")
    names = ", ".join(schema.names)
    for key, name in (("image_column", image_column), ("label_column", label_column)):
        if name is not None and name not in schema.names and (key, name) != ("label_column", "none"):
            raise ValueError(f"data.{key}={name}: {lacks} such column; {has} {names}")
    if image_column is None:
        image_column = _image_column(schema)
    if image_column is None:
        addresses = [name for name in schema.names if name.lower() in ("url", "image_url")]
        hint = f"; {addresses[0]} says where images are: img2dataset downloads them" if addresses else ""
        raise ValueError(f"data.image_column=null: {lacks} column of images; {has} {names}{hint}")
    captions = next(
        (
            field.name
            for wanted in CAPTION_NAMES
            for field in schema
            if field.name.lower() == wanted and _holds_words(field.type) and field.name != label_column
        ),
        None,
    )
    if label_column == "none":
        return Columns(image_column, None, captions, None, "as data.label_column=none says")
    if label_column is None:
        named = {name: _class_names(features.get(name)) for name in schema.names if name != image_column}
        said = [name for name in named if named[name] is not None]
        fitting = [name for name in named if _holds_labels(schema.field(name).type)]
        ranked = [name for wanted in LABEL_NAMES for name in fitting if name.lower() == wanted]
        best = [name for name in ranked if name in said] + said + ranked
        label_column = next(iter(best), None)
    if label_column is None:
        return Columns(image_column, None, captions, None, "there is no column of labels")
    return Columns(image_column, label_column, captions, _class_names(features.get(label_column)))


def images(column: "pa.ChunkedArray | pa.Array") -> Iterator[Image | str]:
    """What each row of a column holds: an image, or the reason why there is none."""
    import pyarrow as pa

    kind = column.type
    if isinstance(kind, pa.ExtensionType):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        column = pa.chunked_array([chunk.storage for chunk in chunks], kind.storage_type)
        kind = column.type
    if _depth(kind) and _is_number(_innermost(kind)):
        for scalar in column:
            yield _numbers(scalar)
        return
    for value in column.to_pylist():
        yield _image(value)


def decoded(image: Image | str, shaping: Shaping) -> Decoded | str:
    """The pixels of what `images` gives, or the reason why there are none."""
    if isinstance(image, str):
        return image
    if isinstance(image, np.ndarray):
        try:
            return from_array(image, shaping)
        except ValueError as error:
            return short(error)
    return decode_or_reason(image, shaping)


def label(value: Any) -> LabelValue | None:
    """The class that a value says, also as a truth value, as a whole number of another type, as a list of
    one, or as one 1 among zeros; None where it says none.

    Raises:
        NoClassError: where it is none of these.
    """
    if isinstance(value, list):
        if len(value) <= 1:
            return label(value[0]) if value else None
        if (index := one_hot(value)) is not None:
            return index
        raise NoClassError("it holds several values an image")
    if isinstance(value, float):
        if value != value:
            return None
        if value.is_integer():
            return int(value)
        raise NoClassError(f"{value:g} is neither a whole number nor a word")
    if isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, int | str):
        return value if value != "" else None
    raise NoClassError("it holds neither whole numbers nor words")


def caption(value: Any) -> str | None:
    """The text that a value holds; of several, the first."""
    if isinstance(value, list):
        return caption(value[0]) if value else None
    return value if isinstance(value, str) else None


def known_labels(
    values: Iterable[LabelValue | None], classes: Sequence[str] | None
) -> Iterator[LabelValue | None]:
    """The same, with None for those that are of no class: -1 is how labels that are kept secret are
    published.
    """
    for value in values:
        named = classes is None or (isinstance(value, int) and 0 <= value < len(classes))
        yield value if named else None


def _image_column(schema: "pa.Schema") -> str | None:
    """The first column whose type is most like that of images."""
    import pyarrow as pa

    def encoded(kind: "pa.DataType") -> bool:
        return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0

    def raw(kind: "pa.DataType") -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    kinds = {field.name: field.type for field in schema}
    usual = [name for wanted in IMAGE_NAMES for name in kinds if name.lower() == wanted]
    candidates = (
        (name for name in kinds if encoded(kinds[name])),
        (name for name in kinds if _depth(kinds[name]) == 1 and encoded(_innermost(kinds[name]))),
        (name for name in [*usual, *kinds] if raw(kinds[name])),
        (name for name in usual if _depth(kinds[name]) in (2, 3) and _is_number(_innermost(kinds[name]))),
        (name for name in kinds if _depth(kinds[name]) == 3 and _is_number(_innermost(kinds[name]))),
    )
    return next((name for names in candidates for name in names), None)


def _class_names(feature: Any) -> list[str] | None:
    """The names of classes that a feature says, in the words of `datasets`; None where it says none."""
    while isinstance(feature, Mapping) and feature.get("_type") in ("List", "LargeList", "Sequence"):
        feature = feature.get("feature")
    if isinstance(feature, list) and len(feature) == 1:
        return _class_names(feature[0])
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    return [str(name) for name in names] if names else None


def _holds_labels(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return _depth(kind) <= 1 and (_is_number(_innermost(kind)) or pa.types.is_boolean(kind) or _is_word(kind))


def _holds_words(kind: "pa.DataType") -> bool:
    return _depth(kind) <= 1 and _is_word(_innermost(kind))


def _is_word(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _unwrapped(kind: "pa.DataType") -> "pa.DataType":
    import pyarrow as pa

    return kind.storage_type if isinstance(kind, pa.ExtensionType) else kind


def _depth(kind: "pa.DataType") -> int:
    """How many lists are around each value."""
    kind = _unwrapped(kind)
    return 1 + _depth(kind.value_type) if _is_list(kind) else 0


def _innermost(kind: "pa.DataType") -> "pa.DataType":
    kind = _unwrapped(kind)
    return _innermost(kind.value_type) if _is_list(kind) else kind


def _image(value: Any) -> Encoded | str:
    if isinstance(value, list):
        value = next(iter(value), None)
    if isinstance(value, dict):
        contents, path = value.get("bytes"), value.get("path")
        value = Path(path) if contents is None and path else contents
    return value if isinstance(value, bytes | Path) else NOTHING


def _numbers(scalar: Any) -> np.ndarray | str:
    """Nested lists as an array [H, W, C]."""
    import pyarrow.compute as pc

    values = scalar.values
    if values is None:
        return NOTHING
    lengths = [len(values)]  # how many there are at each depth
    while _is_list(values.type):
        if len(pc.list_value_length(values).unique()) > 1:
            return "its rows differ in length"
        values = values.flatten()
        lengths.append(len(values))
    if values.null_count or 0 in lengths:
        return "some of its numbers are missing"
    sides = [inner // max(1, outer) for outer, inner in zip((1, *lengths), lengths, strict=False)]
    return _channels_last(values.to_numpy(zero_copy_only=False).reshape(sides))


def _channels_last(array: np.ndarray) -> np.ndarray | str:
    if array.ndim == 2 and array.size:
        return array[..., None]
    if array.ndim == 3 and array.size:
        for channels in ((1, 3), (4,)):
            if array.shape[2] in channels:
                return array
            if array.shape[0] in channels:
                return np.ascontiguousarray(np.moveaxis(array, 0, 2))
    return f"an array of shape {list(array.shape)} is no image"
