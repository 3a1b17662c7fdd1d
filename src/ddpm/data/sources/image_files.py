"""Images that are files, wherever these lie: what a folder and an archive have in common."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.data import kinds
from ddpm.data.classes import labelled
from ddpm.data.decoding import Decoded, decode_all
from ddpm.data.files import Files, contents
from ddpm.data.files.arrays import array_or_reason
from ddpm.data.holdout import scattered
from ddpm.data.layout.decision import Asked, Layout, decide
from ddpm.data.layout.names import ARRAY, IMAGES, is_clutter, may_be_image, sort, suffix
from ddpm.data.paths import is_url
from ddpm.data.preparation import Found, Understood
from ddpm.data.settings import ImageSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFiles(ImageSettings):
    """The settings of sources whose images are files: see docs/data.md for what is made of their names.

    Args:
        path: where they are; `~` is the home directory.
        labels: what says their classes: `auto` is a file of labels if there is one, else the folders that
            they lie in; `folders`; `none`; or the name of a file among them.
        label_column: of a file of labels that is a table; None is the one that can be it.
        class_depth: folders of an image's path that are its class; None is all.
        The others: see `ImageSettings`.
    """

    path: str | Path
    _: KW_ONLY
    labels: str = "auto"
    label_column: str | None = None
    class_depth: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_depth is not None and self.class_depth < 1:
            raise ValueError(f"data.class_depth={self.class_depth} must be at least 1, or null")

    @property
    def _chosen(self) -> dict[str, Any]:
        """What is chosen of the files, beside parts."""
        return {"labels": [self.labels, self.label_column, self.class_depth]}

    def _nothing(self, names: Sequence[str]) -> str:
        """What to say where none of these files is an image."""
        if not names:
            return f"data.path={self.path}: it holds no files; name a folder or an archive with images in it"
        option = type(self).__name__.lower()
        is_named = any(suffix(name) in IMAGES for name in names)
        if not is_named and not is_url(self.path) and (said := kinds.refused(option, self.path, most=None)):
            return said
        return (
            f"data.path={self.path}: none of the {len(names):,} files in it can be read as an image; name a "
            "folder or an archive with images in it"
        )

    def _found(self, files: Files) -> Found:
        """What is made of the files.

        Raises:
            ValueError: where they are not what is asked for.
        """
        names = files.names
        sorted_names = sort(names, files.refused)
        nothing = self._nothing(names)
        if not (sorted_names.images or files.refused):
            raise ValueError(nothing)
        there = [tuple(folder.split("/")) for folder in files.folders if not is_clutter(f"{folder}/x")]
        asked = Asked(
            str(self.path),
            self.split,
            self.validation_split,
            self.labels,
            self.label_column,
            self.class_depth,
        )
        layout = decide(names, sorted_names, there, asked, lambda index: contents(files, index))
        refused = [index for index in sorted(files.refused) if may_be_image(names[index])]
        used = [*layout.train, *(layout.validation or ()), *refused]
        positions = np.append(_positions(layout, names), len(names) + np.arange(len(refused)))
        order = sorted(range(len(used)), key=used.__getitem__)  # the cheap one
        chosen = [used[one] for one in order]

        def read(wanted: Sequence[int]) -> Iterator[Decoded | str]:
            numbers = [chosen[index] for index in wanted]
            encoded = files.read(numbers)
            if not sorted_names.images or suffix(names[sorted_names.images[0]]) != ARRAY:
                return decode_all(encoded, self.shaping)
            return (array_or_reason(one, self.shaping) for one in encoded)

        def label(kept: np.ndarray) -> tuple[np.ndarray | None, Sequence[str] | None]:
            if layout.classes is None:
                return None, None
            labels, classes = labelled([layout.classes[chosen[index]] for index in kept])
            for name, folder in layout.folders.items():
                if name not in classes and not any(other.startswith(f"{name}/") for other in classes):
                    where = files.shown("/".join(folder))
                    logger.warning("%s holds no image that can be read: it is no class", where)
            return labels, classes

        return Found(
            [files.shown(names[index]) for index in chosen],
            read,
            positions[order],
            label,
            nothing,
            None if layout.validation is None else len(layout.train),
            self.channels,
            None if files.states is None else [files.states[index] for index in chosen],
            captions=[layout.captions.get(index) for index in chosen] if layout.captions else None,
            left_out=[(files.shown(names[index]), reason) for index, reason in layout.left_out.items()],
            understood=Understood(*layout.understood),
        )


def _positions(layout: Layout, names: Sequence[str]) -> np.ndarray:
    """Where each image goes, int64 [N]: those to train on first, each part in the order of its names.

    Where a share is held out, which images these are depends on all names that are there, images or not, in
    their order.
    """
    if layout.validation is not None:
        return np.arange(len(layout.train) + len(layout.validation))
    if layout.parts:
        return scattered(len(layout.train))
    at = np.empty(len(names), np.int64)
    at[sorted(range(len(names)), key=names.__getitem__)] = scattered(len(names))
    return at[list(layout.train)]
