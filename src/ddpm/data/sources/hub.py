"""Data sets of the Hugging Face hub, downloaded or from disk."""

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ddpm.data import columns, git_lfs, splits
from ddpm.data.classes import labelled, listed, strangers
from ddpm.data.columns import Columns, LabelValue, NoClassError
from ddpm.data.holdout import scattered
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_folder, files_below
from ddpm.data.pixels.decoding import Decoded, decode_all, short
from ddpm.data.prepared.preparation import Found, Understood, prepared
from ddpm.data.settings import ImageSettings
from ddpm.data.skipped import printable

if TYPE_CHECKING:
    import datasets

SECONDS_TO_ANSWER = 10.0

IMAGES_AT_ONCE = 16
"""Rows whose images are taken from a table together."""

VALUES_AT_ONCE = 4096
"""Rows whose labels or captions are taken from a table together."""


class Part(NamedTuple):
    """A part of a data set, a split in the hub's words.

    Attributes:
        name: as the data set calls it.
        table: its rows.
    """

    name: str
    table: "datasets.Dataset"


@dataclass(frozen=True)
class Hub(ImageSettings):
    """A data set of the Hugging Face hub, by its name there or from a copy of its files.

    Without a network, what the `datasets` library has in its cache is used. The images are prepared once and
    kept in a cache of our own, until the data set, or a setting that they depend on, changes.

    Args:
        name: on the hub, as in `uoft-cs/cifar10`; None where `path` is given.
        path: a folder that holds the data set, instead of a download: its files as on the hub (parquet,
            arrow, webdataset), images in folders (train/CLASS/x.png), or what `save_to_disk` wrote, whole or
            each part in a folder of its own.
        subset: the configuration, in the hub's words, of a data set that has several.
        image_column: None is the first column of images (see `ddpm.data.columns`).
        label_column: None is a column of class labels, or one called `label`, `fine_label` or the like, if
            any; `none` takes no labels.
        The others: see `ImageSettings`.

    Raises:
        ValueError: for settings that cannot be; from `read`, where the data set, or what was asked of it, is
            not there.
    """

    name: str | None = None
    _: KW_ONLY
    path: str | Path | None = None
    subset: str | None = None
    image_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name is None and self.path is None:
            raise ValueError(
                "data.name is missing: give a data set of the hub as data.name=OWNER/NAME, or a folder of "
                "its files as data.path=FOLDER"
            )
        if self.channels not in (None, 1, 3):
            raise ValueError(
                f"data.channels={self.channels} must be 1, 3 or null: columns of the hub hold grey or colour "
                "images; others are read by data=folder and data=arrays"
            )

    def read(self) -> DataSet:
        identity: dict[str, Any] = {
            "subset": self.subset,
            "columns": [self.image_column, self.label_column],
        }
        if self.path is None:
            assert self.name is not None  # the constructor has seen to it
            train, validation = self._parts(self._fetch(self.name))
            every = [*train, *([] if validation is None else [validation])]
            identity["rows"] = [part.table._fingerprint for part in every]
            return prepared(self, self.name, identity, [], lambda _: self._find(train, validation))
        # Absolute: `datasets` takes a bare "csv" for a format, even where a folder is so called.
        folder = existing_folder(self.path).absolute()
        files = sorted(files_below(folder.resolve()))
        identity["folder"] = str(folder.resolve())

        def find(scratch: Path) -> Found:  # reading it takes seconds, so only where there is need
            return self._find(*self._parts(self._from_disk(folder, scratch)))

        return prepared(self, self.name or folder.resolve().name, identity, files, find)

    def _find(self, train: list[Part], validation: Part | None) -> Found:
        parts = [*train, *([] if validation is None else [validation])]
        schema = parts[0].table.features.arrow_schema
        used = columns.find_columns(schema, self.image_column, self.label_column)
        for part in parts[1:]:
            self._check_alike(parts[0], part, used)
        labels, classes, why = self._labels(train, validation, used)
        ends = np.cumsum([part.table.num_rows for part in parts])
        count, cut = int(ends[-1]), None if validation is None else int(ends[-2])
        captions = None
        if used.captions is not None:
            values = itertools.chain.from_iterable(_values(part.table, used.captions) for part in parts)
            captions = [columns.caption(value) for value in values]
        named = " and ".join(printable(part.name) for part in train)
        held_out = ""
        if validation is not None:
            held_out = f"the split {printable(validation.name)}"
            if splits.meaning(validation.name) == "test" and self.validation_split is None:
                held_out += "; there is none for validation"
        return Found(
            _Names(parts, ends),
            lambda chosen: _read(parts, ends, used.image, chosen, self),
            positions=scattered(count) if cut is None else np.arange(count),
            label=lambda kept: (None if labels is None else labels[kept], classes),
            nothing=f"data.image_column={used.image}: none of its {cut or count} rows is an image; "
            f"the columns are {', '.join(schema.names)}",
            cut=cut,
            channels=self.channels,
            captions=captions,
            understood=Understood(
                f"the split{'s' if len(train) > 1 else ''} {named}",
                held_out,
                why or f"the column {used.label}",
            ),
        )

    def _parts(self, found: "datasets.DatasetDict") -> tuple[list[Part], Part | None]:
        """The parts to train on and, where there is one, the part to validate on."""
        sizes = {name: part.num_rows for name, part in found.items()}
        train, validation = splits.chosen_by_name(
            sizes, self.split, self.validation_split, self.path or self.name
        )
        held_out = None if validation is None else Part(validation, found[validation])
        return [Part(name, found[name]) for name in train], held_out

    def _check_alike(self, first: Part, other: Part, used: Columns) -> None:
        """Refuse a part that lacks a column, or whose classes are others."""
        schema = other.table.features.arrow_schema
        for name in (used.image, used.label):
            if name is not None and name not in schema.names:
                raise ValueError(
                    f"data.split: {printable(other.name)} has no column {name} as {printable(first.name)} "
                    f"has, but {', '.join(schema.names)}; choose other parts"
                )
        classes = columns.find_columns(schema, used.image, used.label or "none").classes
        if classes != used.classes:
            raise ValueError(
                f"data.label_column={used.label}: the classes of {printable(other.name)} "
                f"({listed(classes)}) are others than those of {printable(first.name)} "
                f"({listed(used.classes)}); choose parts that fit, with data.split and data.validation_split"
            )

    def _labels(
        self, train: list[Part], validation: Part | None, used: Columns
    ) -> tuple[np.ndarray | None, list[str] | None, str]:
        """Labels int64 [N] of all rows of all parts, from 0, and the names of the classes; or why there are
        none.
        """
        if used.label is None:
            return None, None, used.why
        if used.classes and all(splits.MEANINGS.get(name.lower()) for name in used.classes):
            # `datasets` takes train/ and test/ for classes too, where nothing lies between them and images.
            return None, None, f"{' and '.join(used.classes)} are parts"
        parts = [*train, *([] if validation is None else [validation])]
        values: list[list[LabelValue | None]] = []
        for part in parts:
            try:
                found = [columns.label(value) for value in _values(part.table, used.label)]
            except NoClassError as error:
                if self.label_column is None:
                    return None, None, f"the column {used.label} is none of classes: {error}"
                raise ValueError(
                    f"data.label_column={used.label} must hold whole numbers or words, one for each image "
                    f"({error})"
                ) from error
            values.append(list(columns.known_labels(found, used.classes)))
        shown = list(itertools.chain.from_iterable(values[: len(train)]))
        if self.label_column is None and all(value is None for value in shown):
            return None, None, f"no image has one in the column {used.label}"
        for part, found in zip(parts, values, strict=True):
            if lacking := sum(value is None for value in found):
                raise ValueError(
                    f"data.label_column={used.label}: some images have no label ({lacking:,} of "
                    f"{len(found):,} in {printable(part.name)}); choose parts that have them, with "
                    "data.split and data.validation_split, or data.label_column=none for no labels"
                )
        known = {value for value in shown if value is not None}
        held_out = {value for found in values[len(train) :] for value in found if value is not None}
        if validation and (strange := strangers(known, held_out, named=used.classes is not None)):
            raise ValueError(
                f"data.validation_split={validation.name}: no image to train on is of its classes "
                f"{listed(strange)}; choose another part, or none for a share"
            )
        every = [value for value in itertools.chain.from_iterable(values) if value is not None]
        if used.classes is not None:
            return np.array(every, np.int64), used.classes, ""
        return *labelled(every), ""

    def _fetch(self, name: str) -> "datasets.DatasetDict":
        import datasets
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

        from_disk = "data.path=FOLDER takes the same files from disk"
        # Without a network `datasets` tries for half a minute before it turns to its cache. One question, put
        # first, tells; the types of its errors are those of whichever HTTP library is in use.
        unreachable = None
        try:
            HfApi().dataset_info(name, timeout=SECONDS_TO_ANSWER)
        except HFValidationError as error:
            raise ValueError(f"data.name={name} is no name of the hub; {from_disk}") from error
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"data.name={name}: the hub has no such data set, or not for you; {from_disk}"
            ) from error
        except Exception as error:
            unreachable = error
        offline = datasets.config.HF_HUB_OFFLINE
        datasets.config.HF_HUB_OFFLINE = offline or unreachable is not None
        try:
            # By its bare name, a folder of that name in the current directory would be read instead.
            return datasets.load_dataset(f"hf://datasets/{name}", self.subset)
        except Exception as error:
            raise ValueError(
                f"data.name={name} could not be fetched from the hub "
                f"({short(unreachable or error.__cause__ or error)}); {from_disk}"
            ) from error
        finally:
            datasets.config.HF_HUB_OFFLINE = offline

    def _from_disk(self, folder: Path, scratch: Path) -> "datasets.DatasetDict":
        import datasets

        try:
            if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
                saved = datasets.load_from_disk(str(folder))
                if isinstance(saved, datasets.DatasetDict):
                    return saved
                return datasets.DatasetDict({"train": saved})
            if saved_parts := sorted(file.parent for file in folder.glob("*/state.json")):
                loaded = {part.name: datasets.load_from_disk(str(part)) for part in saved_parts}
                return datasets.DatasetDict(loaded)
            # It writes all rows out again, in a format of its own.
            return datasets.load_dataset(str(folder), self.subset, cache_dir=str(scratch))
        except Exception as error:
            for name, size, _ in files_below(folder):
                if size < git_lfs.LARGEST:
                    git_lfs.check_fetched(folder / name, (folder / name).read_bytes())
            reason = short(error.__cause__ or error)
            hint = "; rename the folder, brackets in its name hide its files" if "[" in str(folder) else ""
            raise ValueError(
                f"data.path={self.path}: no data set could be read from this folder ({reason}){hint}"
            ) from error


class _Names(Sequence[str]):
    """Names of the rows of parts, for people."""

    def __init__(self, parts: Sequence[Part], ends: np.ndarray):
        self.parts = [part.name for part in parts]
        self.ends = ends

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: Any) -> Any:
        part = int(np.searchsorted(self.ends, index, "right"))
        if part == len(self.parts):
            raise IndexError(index)
        return f"row {index - (self.ends[part - 1] if part else 0)} of {self.parts[part]}"


def _read(
    parts: Sequence[Part], ends: np.ndarray, column: str, chosen: Sequence[int], settings: ImageSettings
) -> Iterator[Decoded | str]:
    """The images of some rows, of which a few are held at once."""
    found = _images(parts, ends, column, chosen)
    for is_array, group in itertools.groupby(found, lambda image: isinstance(image, np.ndarray)):
        if is_array:
            yield from (columns.decoded(image, settings.shaping) for image in group)
        else:
            encoded = (image for image in group if not isinstance(image, np.ndarray))
            yield from decode_all(encoded, settings.shaping)


def _images(
    parts: Sequence[Part], ends: np.ndarray, column: str, chosen: Sequence[int]
) -> Iterator[columns.Image | str]:
    begin = 0
    for part, end in zip(parts, ends, strict=True):
        table = part.table.select_columns(column).with_format("arrow")
        here = chosen[bisect_left(chosen, begin) : bisect_left(chosen, end)]
        for first in range(0, len(here), IMAGES_AT_ONCE):
            rows = [index - begin for index in here[first : first + IMAGES_AT_ONCE]]
            yield from columns.images(table[rows][column])
        begin = int(end)


def _values(table: "datasets.Dataset", column: str) -> Iterator[Any]:
    """Every value of a column."""
    for batch in table.select_columns(column).with_format("arrow").iter(VALUES_AT_ONCE):
        yield from batch[column].to_pylist()
