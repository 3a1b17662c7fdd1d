"""Images that are files, wherever these lie: what a folder and an archive have in common."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.data import kinds
from ddpm.data.classes import labelled
from ddpm.data.conditions.paired import Paired
from ddpm.data.conditions.vector import Vector
from ddpm.data.files import Files, contents
from ddpm.data.files.anywhere import Opened, located, opened_at
from ddpm.data.files.arrays import array_or_reason
from ddpm.data.holdout import scattered
from ddpm.data.layout.decision import Asked, Layout, decide
from ddpm.data.layout.names import (
    ARRAY,
    IMAGES,
    Sorted,
    counted,
    is_clutter,
    listed,
    may_be_image,
    sort,
    suffix,
)
from ddpm.data.layout.numbers import check_complete, numbers
from ddpm.data.layout.pairs import NO_PARTNER, partners, unmatched
from ddpm.data.paths import is_url
from ddpm.data.pixels.decoding import Decoded, decode_all
from ddpm.data.pixels.shaping import SIDES, Shaping
from ddpm.data.prepared.preparation import Found, Partners, Understood, Vectors
from ddpm.data.settings import ImageSettings

logger = logging.getLogger(__name__)

BETWEEN = ("", 0, 0)
"""Stands between the states of files of two kinds."""

NO_ROW = "no row of a table names it"


@dataclass(frozen=True)
class ImageFiles(ImageSettings):
    """The settings of sources whose images are files: see docs/data.md for what is made of their names.

    Args:
        path: where they are; `~` is the home directory.
        labels: what says their classes: `auto` is a file of labels if there is one, else the folders that
            they lie in; `folders`; `none`; or the name of a file among them.
        label_column: of a file of labels that is a table; None is the one that can be it.
        class_depth: folders of an image's path that are its class; None is all.
        condition: what is read beside each image; None for nothing.
        The others: see `ImageSettings`.
    """

    path: str | Path
    _: KW_ONLY
    labels: str = "auto"
    label_column: str | None = None
    class_depth: int | None = None
    condition: Paired | Vector | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition is not None and self.condition.key is not None:
            others = (
                "path=FOLDER or data.condition.side=right"
                if isinstance(self.condition, Paired)
                else "columns=[age]"
            )
            raise ValueError(
                f"{self.condition.typed}: names an array, which data=arrays reads; of files, "
                f"data.condition.{others} says where it is"
            )
        if self.class_depth is not None and self.class_depth < 1:
            raise ValueError(f"data.class_depth={self.class_depth} must be at least 1, or null")

    @property
    def _chosen(self) -> dict[str, Any]:
        """What is chosen of the files, beside parts."""
        chosen: dict[str, Any] = {"labels": [self.labels, self.label_column, self.class_depth]}
        condition = self.condition
        if isinstance(condition, Paired):
            where = None if condition.path is None else located(condition.path)
            chosen["pairs"] = [where, condition.side, condition.channels, condition.value_range]
            chosen["all_pairs"] = self.on_error == "fail"  # else what is prepared lacks some
        elif condition is not None:
            chosen["numbers"] = condition.names
        return chosen

    @contextmanager
    def _others(self) -> Iterator[Opened | None]:
        """The files of the images of the other kind, where they are not these."""
        if not isinstance(self.condition, Paired) or self.condition.path is None:
            yield None
            return
        with ExitStack() as stack:
            yield opened_at(self.condition.path, "data.condition.path", stack)

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

    def _found(self, files: Files, others: Opened | None = None) -> Found:
        """What is made of the files.

        Args:
            files: all that there are.
            others: where the images of the other kind are.

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
            self.condition.names if isinstance(self.condition, Vector) else (),
        )
        layout = decide(names, sorted_names, there, asked, lambda index: contents(files, index))
        refused = [index for index in sorted(files.refused) if may_be_image(names[index])]
        used = [*layout.train, *(layout.validation or ()), *refused]
        positions = np.append(_positions(layout, names), len(names) + np.arange(len(refused)))
        order = sorted(range(len(used)), key=used.__getitem__)  # the cheap one
        chosen, positions = [used[one] for one in order], positions[order]
        are_arrays = bool(sorted_names.images) and suffix(names[sorted_names.images[0]]) == ARRAY
        shaping, left_out = self.shaping, dict(layout.left_out)
        beside: _Others | None = None
        vectors: Vectors | None = None
        condition = self.condition
        if isinstance(condition, Paired) and condition.side is not None:
            shaping = replace(shaping, side=next(side for side in SIDES if side != condition.side))
            beside = _Others(files, chosen, np.arange(len(chosen)), are_arrays)
        elif isinstance(condition, Paired) and others is not None:
            beside, lacking = self._matched(others, files, chosen, layout)
            left_out |= dict.fromkeys((chosen[index] for index in np.flatnonzero(lacking)), NO_PARTNER)
            chosen = [chosen[index] for index in np.flatnonzero(~lacking)]
            positions = positions[~lacking]
        elif isinstance(condition, Vector):
            kept, vectors = self._numbered(condition, files, sorted_names, chosen)
            left_out |= dict.fromkeys((chosen[index] for index in np.flatnonzero(~kept)), NO_ROW)
            chosen = [chosen[index] for index in np.flatnonzero(kept)]
            positions = positions[kept]

        def read(wanted: Sequence[int]) -> Iterator[Decoded | str]:
            return _read(files, [chosen[index] for index in wanted], shaping, are_arrays)

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
            positions,
            label,
            nothing,
            None if layout.validation is None else len(layout.train),
            self.channels,
            None if files.states is None else [files.states[index] for index in chosen],
            captions=[layout.captions.get(index) for index in chosen] if layout.captions else None,
            left_out=[
                *((files.shown(names[index]), reason) for index, reason in left_out.items()),
                *(() if beside is None else beside.left_out),
            ],
            understood=Understood(*layout.understood),
            partners=None if beside is None else self._partners(beside),
            vectors=vectors,
        )

    def _numbered(
        self, condition: Vector, files: Files, kinds: Sorted, chosen: Sequence[int]
    ) -> tuple[np.ndarray, Vectors]:
        """Which of some images have numbers, bool [N], and the numbers of these. A file that can never be
        read has zeros; one that need not be an image may have none.

        Raises:
            ValueError: where an image has none, or what is said of one is no number.
        """
        known = [index for index in chosen if index not in files.refused]
        found = numbers(
            files.names,
            known,
            kinds.others,
            condition.names,
            lambda index: contents(files, index),
            condition.typed,
        )
        certain = set(kinds.images)
        named = [files.names[index] if index in certain else "" for index in known]
        check_complete(found, named, condition.typed)
        row = {index: row for row, index in enumerate(known)}
        kept = np.array([index not in row or not found.lacking[row[index]] for index in chosen], bool)
        values = np.zeros((int(kept.sum()), len(condition.names)), np.float32)
        for place, one in enumerate(np.flatnonzero(kept).tolist()):
            if chosen[one] in row:
                values[place] = found.values[row[chosen[one]]]
        said = f"{listed(condition.names, 6)} of {listed(found.files, 3)}"
        return kept, Vectors(values, condition.names, said)

    def _matched(
        self, others: Opened, files: Files, chosen: Sequence[int], layout: Layout
    ) -> tuple["_Others", np.ndarray]:
        """The partners of some images, and bool [N], which of these have none.

        Raises:
            ValueError: where none has one, or by `on_error`.
        """
        assert isinstance(self.condition, Paired)
        key = self.condition.typed
        theirs = others.files()
        in_it = sort(theirs.names, theirs.refused)
        there = sorted([*in_it.images, *in_it.unknown])
        names, other_names = (
            [files.names[index] for index in chosen],
            [theirs.names[index] for index in there],
        )
        if theirs.shown("") == files.shown(""):
            raise ValueError(
                f"{key}: is the folder of data.path; name another one, or data.condition.side=left or right "
                "where each picture holds both images side by side"
            )
        if inside := sorted(
            {files.shown(name) for name in names} & {theirs.shown(name) for name in other_names}
        ):
            raise ValueError(
                f"{key}: lies in data.path={self.path}, which would learn its images too, such as "
                f"{inside[0]}; name the folder of the others alone by data.path"
            )
        found = partners(names, other_names)
        said = unmatched(self.path, key, names, other_names, found)
        lacking = found < 0
        if lacking.all():
            raise ValueError(
                f"{key}: {said}; an image and its partner must have the same relative path, or a name of "
                "their own"
            )
        if said is not None and self.on_error == "fail":
            raise ValueError(f"data.on_error=fail: {said}; add what is missing, or leave these out by "
                             "data.on_error=skip")  # fmt: skip
        if said is not None:
            logger.warning("%s; these are left out", said)
        if layout.validation is not None:
            held_out = set(layout.validation)
            for part, where in ((False, "split"), (True, "validation_split")):
                mine = [index for index, one in enumerate(chosen) if (one in held_out) == part]
                if mine and lacking[mine].all():
                    raise ValueError(
                        f"data.{where}: no image of this part has a partner in {key}, such as "
                        f"{names[mine[0]]}; choose another part, or hold out a share by "
                        "data.validation_split=none"
                    )
        of = {partner: index for index, partner in enumerate(found[~lacking].tolist())}
        taken = sorted(of)
        left = [theirs.shown(name) for index, name in enumerate(other_names) if index not in of]
        return _Others(
            theirs,
            [there[one] for one in taken],
            np.array([of[one] for one in taken], np.int64),
            bool(in_it.images) and suffix(theirs.names[in_it.images[0]]) == ARRAY,
            [(name, NO_PARTNER) for name in left],
            f"; {counted(int(lacking.sum()))} without one left out" if lacking.any() else "",
        ), lacking

    def _partners(self, others: "_Others") -> Partners:
        """The images of the other kind, as they are stored."""
        assert isinstance(self.condition, Paired)
        condition, files = self.condition, others.files
        shaping = condition.shaping(self.shaping)
        return Partners(
            [files.shown(files.names[index]) for index in others.chosen],
            lambda wanted: _read(files, [others.chosen[one] for one in wanted], shaping, others.are_arrays),
            others.of,
            condition.typed,
            condition.channels,
            None if files.states is None else [files.states[index] for index in others.chosen],
            f"the image of the same path or name in {condition.path}{others.note}"
            if condition.side is None
            else f"the {condition.side} half of each picture, of which the other is learned",
        )


@dataclass(frozen=True)
class _Others:
    """Images of another kind that belong to images.

    Attributes:
        files: that they are among.
        chosen: their numbers there, ascending.
        of: int64 [N], the number of the image that each belongs to.
        are_arrays: whether they are npy files.
        left_out: name and reason of those that belong to none.
        note: on images without any, the end of a sentence.
    """

    files: Files
    chosen: Sequence[int]
    of: np.ndarray
    are_arrays: bool
    left_out: Sequence[tuple[str, str]] = ()
    note: str = ""


def _read(
    files: Files, numbers: Sequence[int], shaping: Shaping, are_arrays: bool
) -> Iterator[Decoded | str]:
    """Some files as images, by their numbers."""
    encoded = files.read(numbers)
    if are_arrays:
        return (array_or_reason(one, shaping) for one in encoded)
    return decode_all(encoded, shaping)


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
