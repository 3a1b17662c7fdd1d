"""Tables with a row an image: csv, tsv, jsonl, parquet, or words in lines."""

import csv
import io
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ddpm.data.columns import CAPTION_NAMES
from ddpm.data.layout.labels import Labels, named, text
from ddpm.data.layout.match import Known
from ddpm.data.layout.names import IMAGES, listed, suffix

SUFFIXES = ("csv", "tsv", "jsonl", "ndjson", "parquet", "txt")

_LABELS = (
    "label labels label_name class classes class_name classname class_label category category_name "
    "target targets breed species variety diagnosis dx y class_id classid class_idx label_id "
    "category_id"
)
LABELS = tuple(_LABELS.split())
"""What columns of labels are called, in small letters and with _ for blanks."""

_FILES = (
    "file_name filename file_names filenames file filepath filepaths file_path image_path path image "
    "image_id imageid image_name img img_name name id id_code image_index"
)
FILES = tuple(_FILES.split())
"""What columns of names of images are called."""

_NO_LABELS = (
    "split set dataset data_set subset fold part partition usage width height size x y xmin ymin xmax "
    "ymax w h x_1 y_1 index url md5 sha256 license"
)
NO_LABELS = tuple(_NO_LABELS.split())
"""What columns are called that are no labels, though their values repeat, unless they are asked for."""

TRIED = 1000
"""Values of a column that are looked at first."""

LEAST_MATCH = 0.5
"""Share of the rows, or of the images, that have to match for a table to be one of images."""

ONES = frozenset({"1", "1.0"})
ZEROS = frozenset({"0", "0.0"})

Columns = Mapping[str, Sequence[str]]


def read(
    name: str,
    contents: bytes,
    images: Known,
    label_column: str | None = None,
    numbers: Collection[str] = (),
) -> Labels | None:
    """What a table says; None where it is not about these images.

    Args:
        name: of the file.
        contents: of it; words are in UTF-8.
        images: that there are.
        label_column: that is asked for; None is the one that can be it.
        numbers: columns that are no labels unless they are asked for: images are conditioned on them.

    Raises:
        ValueError: where it is damaged.
    """
    columns = columns_of(name, contents, images)
    named_by = keys(columns, images)
    if not named_by:
        return None
    if len(named_by) > 1:
        why = f"has several columns that may name the images ({listed(named_by, 6)}): call the one file_name"
        return Labels(why_none=why, share=1.0, columns=tuple(columns))
    [key] = named_by
    captions = _captions(columns, columns[key], images)
    others = tuple(one for one in columns if one != key)
    if label_column is not None:
        if label_column not in others:
            return Labels(captions=captions, share=1.0, columns=others)
        values = columns[label_column]
    else:
        candidates = _candidates({one: columns[one] for one in columns if one not in numbers}, key)
        if len(candidates) > 1:
            shown = listed(candidates, 6)
            why = f"has several columns that may be labels ({shown}): choose by data.label_column="
            return Labels(captions=captions, why_none=why, share=1.0, columns=others)
        if not candidates:
            return Labels(captions=captions, share=1.0, columns=others)
        [values] = candidates.values()
    keyed = zip(columns[key], map(str.strip, values), strict=True)
    return replace(named(keyed, images), captions=captions)


def columns_of(name: str, contents: bytes, images: Known) -> Columns:
    """What stands in each column of a table, as words, by its name.

    Args:
        name: of the file.
        contents: of it; words are in UTF-8.
        images: that there are: a line that names one is no header.
    """
    end = suffix(name)
    if end == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(io.BytesIO(contents))
        return {column: list(map(text, table[column].to_pylist())) for column in table.column_names}
    decoded = contents.decode("utf-8")
    if end in ("jsonl", "ndjson"):
        rows = [json.loads(line) for line in decoded.splitlines() if line.strip()]
        rows = [row for row in rows if isinstance(row, dict)]
        every = dict.fromkeys(column for row in rows for column in row)
        return {column: [text(row.get(column)) for row in rows] for column in every}
    lines = _rows(decoded, end)
    if not lines:
        return {}
    width = len(lines[0])
    has_header = not any(isinstance(images.find(cell), int) and suffix(cell) in IMAGES for cell in lines[0])
    if end == "txt" and (width < 2 or has_header):
        return {}
    header = [cell.strip() for cell in lines[0]] if has_header else [f"column {i + 1}" for i in range(width)]
    cells = ([cell.strip() for cell in line] for line in lines[has_header:])
    columns = itertools.zip_longest(*cells, fillvalue="")
    return dict(zip(header, columns, strict=False))


def _rows(decoded: str, end: str) -> list[list[str]]:
    first = decoded.partition("\n")[0]
    if end == "txt" and "\t" not in first and "," not in first:
        return [line.split() for line in decoded.splitlines() if line.strip()]
    delimiter = max("\t", ",", ";", key=first.count) if end != "tsv" else "\t"
    try:
        return [row for row in csv.reader(io.StringIO(decoded, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def keys(columns: Columns, images: Known) -> list[str]:
    """The column that names images, if there is one: of files and called so, or the one that fits best;
    several where they fit equally well and mean other images.
    """
    if called := [column for column in columns if _names_files(column, columns[column])]:
        return called[:1]
    shares = {one: _share(columns[one], images) for one in columns if _plain(one) not in LABELS}
    rank = {one: _key_rank(one, columns[one], share) for one, share in shares.items() if share >= LEAST_MATCH}
    best = [one for one in rank if rank[one] == max(rank.values())]
    meant = {tuple(map(str, map(images.find, columns[one]))) for one in best}
    return best if len(meant) > 1 else best[:1]


def _key_rank(column: str, values: Sequence[str], share: float) -> tuple[bool, int, float, bool]:
    """How likely a column that fits names images: by its values, by what it is called, by how well it fits.

    Numbers of rows and of classes fit as well as names that are numbers.
    """
    of_files = 2 * sum(suffix(value) in IMAGES for value in values) > len(values)
    called = _plain(column)
    name = len(FILES) - FILES.index(called) if called in FILES else 0
    return of_files, name, round(share, 1), 2 * len(set(values)) > len(values)


def _share(values: Sequence[str], images: Known) -> float:
    """How many of some values name images, or how many of the images they name: the larger share."""
    some = values[:: len(values) // TRIED + 1]
    found = sum(images.find(value) is not None for value in some)
    if not found:
        return 0.0
    every = {images.find(value) for value in set(values)} if 2 * found < len(some) else set()
    return max(found / len(some), sum(isinstance(one, int) for one in every) / max(1, len(images)))


def _names_files(column: str, values: Sequence[str]) -> bool:
    """Whether a column names images, be they there or not."""
    if _plain(column) not in FILES or not values:
        return False
    return 2 * sum(suffix(value) in IMAGES for value in values) > len(values)


def _candidates(columns: Columns, key: str) -> Columns:
    """The columns that may be labels: those called so, else those whose values repeat."""
    distinct = {one: set(columns[one]) for one in columns if one != key}
    of_classes = [one for one in distinct if len(distinct[one] - {""}) > 1]
    boxes = any(_plain(one) == "x" for one in columns)
    called = [one for one in of_classes if _plain(one) in LABELS and not (boxes and _plain(one) == "y")]
    if called:
        return _same({one: columns[one] for one in called})
    if hot := _one_hot({one: columns[one] for one in of_classes if distinct[one] <= {*ONES, *ZEROS}}):
        return {"the columns": hot}
    repeating = [
        one
        for one in of_classes
        if _plain(one) not in (*NO_LABELS, *CAPTION_NAMES, *FILES)
        and len(distinct[one]) <= len(columns[one]) / 2
        and not any(map(_is_fraction, distinct[one]))
    ]
    return _same({one: columns[one] for one in repeating})


def _same(columns: Columns) -> Columns:
    """One of several columns that part images in the same way, of words rather than of numbers."""
    together = len(set(zip(*columns.values(), strict=True)))
    if not columns or any(len(set(found)) != together for found in columns.values()):
        return columns
    words = [one for one in columns if not all(map(_is_number, columns[one]))]
    one = [*words, *columns][0]
    return {one: columns[one]}


def _one_hot(columns: Columns) -> list[str]:
    """The one column that is 1 in each row, all others being 0; nothing where that is not so."""
    rows = [[value in ONES for value in row] for row in zip(*columns.values(), strict=True)]
    if len(columns) < 2 or any(sum(row) != 1 for row in rows):
        return []
    names = list(columns)
    return [names[row.index(True)] for row in rows]


def _captions(columns: Columns, keys: Sequence[str], images: Known) -> dict[int, str]:
    column = next((one for one in columns if _plain(one) in CAPTION_NAMES), None)
    captions: dict[int, str] = {}
    for key, value in zip(keys, columns[column] if column is not None else (), strict=False):
        index = images.find(key)
        if isinstance(index, int) and value.strip():
            captions.setdefault(index, value.strip())
    return captions


def _plain(column: str) -> str:
    return "_".join(column.strip().lower().replace("-", " ").split())


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_fraction(value: str) -> bool:
    return _is_number(value) and not float(value).is_integer()
