"""Rows of parquet shards, as the Hugging Face hub has them."""

import json
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from ddpm.data.stream.sample import LabelValue, Sample

if TYPE_CHECKING:
    import pyarrow.parquet as pq

LABEL_NAMES = ("label", "fine_label")
ROWS_AT_ONCE = 64


def open_file(file: IO[bytes]) -> "pq.ParquetFile":
    """The tables of an opened file."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(file)


def columns(
    path: str, opened: "pq.ParquetFile", image_column: str | None, label_column: str | None
) -> tuple[str, str | None, list[str] | None]:
    """The columns of images and of labels, and the names of the classes if the file says them.

    Args:
        path: of the file, for messages.
        opened: the file.
        image_column: None is the first column of images.
        label_column: None is one called `label` or `fine_label`, if any.

    Raises:
        ValueError: where there is no such column.
    """
    import pyarrow as pa

    schema = opened.schema_arrow
    names_there = ", ".join(schema.names)
    if image_column is None:
        encoded = [
            field.name
            for field in schema
            if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        ]
        if not encoded:
            raise ValueError(f"data.image_column=null: {path} has no column of images; it has {names_there}")
        image_column = encoded[0]
    if label_column is None:
        label_column = next((name for name in LABEL_NAMES if name in schema.names), None)
    for key, name in (("image_column", image_column), ("label_column", label_column)):
        if name is not None and name not in schema.names:
            raise ValueError(f"data.{key}={name}: {path} has no such column; it has {names_there}")
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
    names = info.get("features", {}).get(label_column, {}).get("names") if label_column else None
    return image_column, label_column, names


def label_values(opened: "pq.ParquetFile", column: str | None) -> set[LabelValue | None]:
    """Every label that occurs in a file; None for a row without one.

    Raises:
        ValueError: where they are neither whole numbers nor words.
    """
    if column is None:
        return {None}
    values = opened.read(columns=[column])[column].unique().to_pylist()
    if not all(value is None or isinstance(value, int | str) for value in values):
        raise ValueError(f"data.label_column={column} must hold whole numbers or words")
    return set(values)


def rows(
    path: str, file: IO[bytes], first: int, image_column: str, label_column: str | None
) -> Iterator[Sample]:
    """The rows of a file from row `first` on."""
    opened = open_file(file)
    row = 0
    groups: list[int] = []
    for group in range(opened.num_row_groups):
        held = opened.metadata.row_group(group).num_rows
        if row + held <= first and not groups:
            row += held
        else:
            groups.append(group)
    wanted = [image_column] if label_column is None else [image_column, label_column]
    for batch in opened.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=wanted):
        skipped = min(max(0, first - row), len(batch))
        row += skipped
        batch = batch.slice(skipped)
        labels = [None] * len(batch) if label_column is None else batch[label_column].to_pylist()
        for value, label in zip(batch[image_column].to_pylist(), labels, strict=True):
            contents = value.get("bytes") if isinstance(value, dict) else value
            image = contents if isinstance(contents, bytes) else "there is no image in this row"
            yield Sample(f"row {row} of {path}", image, label)
            row += 1
