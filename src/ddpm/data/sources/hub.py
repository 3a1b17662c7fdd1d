"""Data sets of the Hugging Face hub, downloaded or from disk."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpm.data import splits
from ddpm.data.decoding import Encoded, decode_all, short
from ddpm.data.holdout import scattered
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_folder, files_below
from ddpm.data.preparation import Found, prepared
from ddpm.data.settings import ImageSettings
from ddpm.data.stream.parquet import LABEL_NAMES

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True)
class Hub(ImageSettings):
    """A data set of the Hugging Face hub, by its name there or from a copy of its files.

    Without a network, what the `datasets` library has in its cache is used. The images are prepared once and
    kept in a cache of our own, until the data set, or a setting that they depend on, changes.

    Args:
        name: on the hub, as in `uoft-cs/cifar10`.
        image_size: pixels, or [height, width], to resize and crop to; None where all images have one size.
        path: a folder that holds the data set, instead of a download: its parquet files as on the hub,
            images in folders (train/CLASS/x.png), or what `save_to_disk` wrote.
        subset: the configuration, in the hub's words, of a data set that has several.
        image_column: None is the first column of images.
        label_column: None is the first column of class labels, or one called `label` or `fine_label`, if any.
        channels: 1 or 3; None is 1 if every image is grey, else 3.
        train_split: the part to train on.
        validation_split: the part to validate on; where there is none of that name, a share of `train_split`.
        validation_fraction: this share, in [0, 1).
        on_error: what to do about a row that holds no image: `skip` names it in a warning and lists it in
            `skipped`, `fail` refuses it.
        cache_dir: where prepared images are kept; None is $DDPM_CACHE or ~/.cache/ddpm.

    Raises:
        ValueError: for settings that cannot be; from `read`, where the data set, or what was asked of it, is
            not there.
    """

    name: str
    _: KW_ONLY
    path: str | Path | None = None
    subset: str | None = None
    image_column: str | None = None
    label_column: str | None = None

    def read(self) -> DataSet:
        identity: dict[str, Any] = {
            "subset": self.subset,
            "columns": [self.image_column, self.label_column],
        }
        if self.path is None:
            parts = self._parts(self._fetch())
            identity["rows"] = [part._fingerprint for _, part in parts]
            return prepared(self, self.name, identity, [], lambda _: self._find(parts))
        # Absolute: `datasets` takes a bare "csv" for a format, even where a folder is so called.
        folder = existing_folder(self.path).absolute()
        files = sorted(files_below(folder.resolve()))
        identity["folder"] = str(folder.resolve())

        def find(scratch: Path) -> Found:  # reading it takes seconds, so only where there is need
            return self._find(self._parts(self._from_disk(folder, scratch)))

        return prepared(self, self.name, identity, files, find)

    def _find(self, parts: list[tuple[str, "datasets.Dataset"]]) -> Found:
        first = parts[0][1]
        image_column, label_column = self._image_column(first), self._label_column(first)
        labels, classes = None, None
        if label_column is not None:
            labels, classes = _labels([part for _, part in parts], label_column)
        rows = [part.num_rows for _, part in parts]
        encoded = [one for name, part in parts for one in _encoded(name, part, image_column)]
        return Found(
            [name for name, _ in encoded],
            lambda chosen: decode_all((encoded[index][1] for index in chosen), self.shaping),
            positions=scattered(rows[0]) if len(parts) == 1 else np.arange(sum(rows)),
            label=lambda kept: (None if labels is None else labels[kept], classes),
            nothing=f"data.image_column={image_column}: none of its {rows[0]} rows is an image; "
            f"the columns are {', '.join(first.column_names)}",
            cut=None if len(parts) == 1 else rows[0],
            channels=self.channels,
        )

    def _parts(self, found: "datasets.DatasetDict") -> list[tuple[str, "datasets.Dataset"]]:
        """The part to train on and, where there is one, the part to validate on, with their names."""
        sizes = {splits.meaning(name) or name: part.num_rows for name, part in found.items()}
        named = {splits.meaning(name) or name: name for name in found}
        train, validation = splits.chosen(sizes, self.split, self.validation_split, self.path or self.name)
        return [(name, found[named[name]]) for name in (*train[:1], validation) if name is not None]

    def _fetch(self) -> "datasets.DatasetDict":
        import datasets
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

        from_disk = "data.path=FOLDER takes the same files from disk"
        # Without a network `datasets` tries for half a minute before it turns to its cache. One question, put
        # first, tells; the types of its errors are those of whichever HTTP library is in use.
        unreachable = None
        try:
            HfApi().dataset_info(self.name, timeout=SECONDS_TO_ANSWER)
        except HFValidationError as error:
            raise ValueError(f"data.name={self.name} is no name of the hub; {from_disk}") from error
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"data.name={self.name}: the hub has no such data set, or not for you; {from_disk}"
            ) from error
        except Exception as error:
            unreachable = error
        offline = datasets.config.HF_HUB_OFFLINE
        datasets.config.HF_HUB_OFFLINE = offline or unreachable is not None
        try:
            # By its bare name, a folder of that name in the current directory would be read instead.
            return datasets.load_dataset(f"hf://datasets/{self.name}", self.subset)
        except Exception as error:
            raise ValueError(
                f"data.name={self.name} could not be fetched from the hub "
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
            # It writes all rows out again, in a format of its own.
            return datasets.load_dataset(str(folder), self.subset, cache_dir=str(scratch))
        except Exception as error:
            reason = short(error.__cause__ or error)
            hint = "; rename the folder, brackets in its name hide its files" if "[" in str(folder) else ""
            raise ValueError(
                f"data.path={self.path}: no data set could be read from this folder ({reason}){hint}"
            ) from error

    def _image_column(self, part: "datasets.Dataset") -> str:
        import datasets

        columns = part.features
        if self.image_column is not None:
            if self.image_column in columns:
                return self.image_column
        else:
            for name, feature in columns.items():
                if isinstance(feature, datasets.Image) or _is_encoded(feature):
                    return name
        raise ValueError(
            f"data.image_column={self.image_column or 'null'}: no such column of images; "
            f"the columns are {', '.join(columns)}"
        )

    def _label_column(self, part: "datasets.Dataset") -> str | None:
        import datasets

        columns = part.features
        if self.label_column is not None:
            if self.label_column in columns:
                return self.label_column
            raise ValueError(
                f"data.label_column={self.label_column}: no such column; the columns are {', '.join(columns)}"
            )
        for name, feature in columns.items():
            if isinstance(feature, datasets.ClassLabel):
                return name
        return next((name for name in LABEL_NAMES if name in columns), None)


def _encoded(name: str, part: "datasets.Dataset", column: str) -> Iterator[tuple[str, Encoded]]:
    """Every row's image, still encoded: a file on this disk or its contents."""
    row = 0
    for table in part.select_columns(column).with_format("arrow").iter(batch_size=100):
        for value in table[column].to_pylist():
            yield f"row {row} of {name}", _encoded_in(value)
            row += 1


def _labels(parts: Sequence["datasets.Dataset"], column: str) -> tuple[np.ndarray, list[str]]:
    """Labels int64 [N] of all rows of all parts, from 0, and the names of the classes."""
    import datasets

    values: list[Any] = []
    for part in parts:
        values += part.select_columns(column).with_format("arrow")[:][column].to_pylist()
    feature = parts[0].features[column]
    if isinstance(feature, datasets.ClassLabel):
        # -1 and null are how parts whose labels are kept secret are published.
        if any(value is None or value < 0 for value in values):
            raise ValueError(
                f"data.label_column={column}: some images have no label; choose splits that have them, "
                "with data.split and data.validation_split"
            )
        return np.array(values, np.int64), list(feature.names)
    if not all(isinstance(value, int) for value in values) and not all(
        isinstance(value, str) for value in values
    ):
        raise ValueError(f"data.label_column={column} must hold whole numbers or words, one for each image")
    classes, labels = np.unique(values, return_inverse=True)
    return labels.astype(np.int64), [str(name) for name in classes]


def _encoded_in(value: Any) -> Encoded:
    if isinstance(value, dict):
        contents, path = value.get("bytes"), value.get("path")
        return Path(path) if contents is None and path else contents or b""
    return value if isinstance(value, bytes) else b""


def _is_encoded(feature: Any) -> bool:
    """Whether it is how parquet holds images, of a file that does not say that they are."""
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}
