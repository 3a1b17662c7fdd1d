"""Rows of parquet shards, as the Hugging Face hub has them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import IO, TYPE_CHECKING

from ddpm.data import columns
from ddpm.data.columns import LabelValue, NoClassError
from ddpm.data.stream.sample import Counted, Sample
from ddpm.data.stream.unpacking import check_unpacked

if TYPE_CHECKING:
    import pyarrow.parquet as pq

ROWS_AT_ONCE = 64
VALUES_AT_ONCE = 4096


def open_file(file: IO[bytes]) -> "pq.ParquetFile":
    """The tables of an opened file."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(file)


def count(path: str, file: IO[bytes], image_column: str | None, label_column: str | None) -> Counted:
    """What a file holds; the labels are all looked at, the images are not.

    Args:
        path: of the file, for messages.
        file: opened for reading.
        image_column, label_column: see `ddpm.data.columns.find_columns`.

    Raises:
        ValueError: where there is no such column, its values are no labels, or the images would unpack to
            very much more than the file.
    """
    opened = open_file(file)
    metadata = opened.metadata
    if not metadata.num_rows:
        return Counted()
    unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    check_unpacked(path, unpacked, file.seek(0, 2))
    used = columns.find_columns(opened.schema_arrow, image_column, label_column, path)
    found = Counted(image_column=used.image, classes=used.classes)
    if used.captions is not None:
        found.captions.add(f"the column {used.captions}")
    try:
        for value in _labels(opened, used.label, used.classes):
            found.add(value)
    except NoClassError as error:
        if label_column is not None:
            raise ValueError(
                f"data.label_column={label_column} must hold whole numbers or words, one for each image "
                f"({path}: {error})"
            ) from error
        why = f"the column {used.label} is none of classes: {error}"
        return replace(found, rows=metadata.num_rows, unlabelled=metadata.num_rows, labels=set(), why=why)
    if used.label is not None and found.labels:
        found.label_columns.add(used.label)
        found.labels_from.add(f"the column {used.label}")
    return found


def rows(
    path: str, file: IO[bytes], first: int, image_column: str, label_column: str | None
) -> Iterator[Sample]:
    """The rows of a file from row `first` on.

    Args:
        path: of the file, for names.
        file: opened for reading.
        first: rows before it are passed over.
        image_column: of the images.
        label_column: of the labels; None gives none.
    """
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
        for image, label in zip(columns.images(batch[image_column]), labels, strict=True):
            yield Sample(f"row {row} of {path}", image, columns.label(label))
            row += 1


def _labels(
    opened: "pq.ParquetFile", column: str | None, classes: list[str] | None
) -> Iterator[LabelValue | None]:
    if column is None:
        yield from [None] * opened.metadata.num_rows
        return
    for batch in opened.iter_batches(VALUES_AT_ONCE, columns=[column]):
        yield from columns.known_labels(map(columns.label, batch[column].to_pylist()), classes)
