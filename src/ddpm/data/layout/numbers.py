"""Numbers of images, from columns of the tables among the files of a set."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ddpm.data.encodings import UTF_8, decoded
from ddpm.data.layout import tables
from ddpm.data.layout.match import Known, Several
from ddpm.data.layout.names import counted, folders_of, listed, suffix
from ddpm.data.pixels.decoding import short

MEND = "mend or remove it, or choose other columns"


class Numbers(NamedTuple):
    """What tables say.

    Attributes:
        values: float32 [N, D].
        lacking: bool [N], whether no row names an image; its values are 0 then.
        files: names of the tables.
    """

    values: np.ndarray
    lacking: np.ndarray
    files: Sequence[str]


def numbers(
    names: Sequence[str],
    images: Sequence[int],
    others: Sequence[int],
    columns: Sequence[str],
    contents: Callable[[int], bytes],
    key: str,
) -> Numbers:
    """The numbers of some images.

    Args:
        names: of all files.
        images: numbers of the images that are used, N of them.
        others: numbers of the files that may be tables.
        columns: D of them, which stand in each table that counts.
        contents: reads a file by its number.
        key: that asks for them, for messages.

    Raises:
        ValueError: where no table has them, or one holds something else than a finite number; names the file,
            the image and the column.
    """
    known = Known(names, images)
    at = {index: row for row, index in enumerate(images)}
    values = np.zeros((len(images), len(columns)), np.float32)
    by = np.full(len(images), -1, np.int64)  # the file that named each
    seen: dict[str, Sequence[str]] = {}
    for file in others:
        if suffix(names[file]) not in tables.SUFFIXES:
            continue
        table = _table(names[file], file, contents, known)
        missing = [column for column in columns if column not in table]
        if missing and table:
            seen[names[file]] = list(table)
        if missing:
            continue
        for row, named in enumerate(_named(names[file], table, columns, known, key)):
            image = known.seen_from(folders_of(names[file])).find(named) if named else None
            if isinstance(image, Several):
                raise ValueError(
                    f"{key}: {names[file]} says {named}, which may be any of {listed(image.names, 3)}; write "
                    "the path of the image there"
                )
            if image is None:
                continue
            found = [_number(table[column][row], column, names[file], named, key) for column in columns]
            place = at[image]
            if by[place] >= 0 and values[place].tolist() != np.array(found, np.float32).tolist():
                first = names[by[place]]
                where = "twice" if first == names[file] else f"and {first}"
                raise ValueError(
                    f"{key}: {names[file]} {where} give{'s' if where == 'twice' else ''} {names[image]} "
                    "different numbers; leave one row"
                )
            values[place], by[place] = found, file
    if (by < 0).all():
        raise ValueError(f"{key}: {_no_table(seen, columns)}")
    files = [names[file] for file in sorted(set(by[by >= 0].tolist()))]
    return Numbers(values, by < 0, files)


def check_complete(found: Numbers, names: Sequence[str], key: str) -> None:
    """Refuse, with ValueError, images that no row names.

    Args:
        found: see `numbers`.
        names: of the N images; empty for what need not have any.
        key: that asks for them.
    """
    lacking = [name for name, lacks in zip(names, found.lacking.tolist(), strict=True) if lacks and name]
    if lacking:
        raise ValueError(
            f"{key}: {listed(found.files, 3)} {'has' if len(found.files) == 1 else 'have'} no row for "
            f"{counted(len(lacking))} of {len(names):,}, first {min(lacking)}; add the rows, or move these "
            "images away"
        )


def _table(name: str, file: int, contents: Callable[[int], bytes], known: Known) -> tables.Columns:
    """The columns of a table; nothing where it is none."""
    try:
        read = contents(file)
        return tables.columns_of(name, read if suffix(name) == "parquet" else _in_utf_8(read), known)
    except Exception:  # each kind of file has errors of its own; what cannot be read holds no numbers
        return {}


def _in_utf_8(words: bytes) -> bytes:
    return decoded(words)[0].encode(UTF_8)


def _named(name: str, table: tables.Columns, columns: Sequence[str], known: Known, key: str) -> Sequence[str]:
    """What a table calls the image of each row; nothing where it is not about these images."""
    others = {column: values for column, values in table.items() if column not in columns}
    keys = tables.keys(others, known.seen_from(folders_of(name)))
    if len(keys) > 1:
        raise ValueError(
            f"{key}: {name} has several columns that may name the images ({listed(keys, 6)}); call the one "
            "file_name"
        )
    return table[keys[0]] if keys else ()


def _number(cell: str, column: str, file: str, named: str, key: str) -> float:
    said = f"{key}: {file}, {named}: {column} is"
    if not cell.strip():
        raise ValueError(f"{said} empty; {MEND}")
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite then
            number = float(np.float32(cell))
    except ValueError as error:
        raise ValueError(f"{said} {short(ValueError(cell))}, which is no number; {MEND}") from error
    if not math.isfinite(number):
        raise ValueError(f"{said} {cell}, which is not finite; {MEND}")
    return number


def _no_table(seen: dict[str, Sequence[str]], columns: Sequence[str]) -> str:
    if not seen:
        return (
            "there is no table of such columns beside the images; a metadata.csv with the columns file_name, "
            f"{', '.join(columns)} and a row for each image is one"
        )
    said = [f"{name} has {listed(has, 10)}" for name, has in seen.items()]
    return f"no table has these columns and rows that name the images; {listed(said, 3)}"
