"""Files of arrays: npz and npy, idx, CIFAR's batches, MATLAB's and HDF5."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddpm.data import kinds, splits
from ddpm.data.arrays.files import contents
from ddpm.data.arrays.held import Workspace
from ddpm.data.arrays.labels import numbered, values_of
from ddpm.data.arrays.layouts import is_plain
from ddpm.data.arrays.roles import Images, Part, Roles, likeness, listed, roles
from ddpm.data.classes import classes_in
from ddpm.data.holdout import scattered
from ddpm.data.images import DataSet
from ddpm.data.paths import existing, files_below
from ddpm.data.pixels.decoding import RANGES, Decoded, from_array, short
from ddpm.data.prepared import cache
from ddpm.data.prepared.preparation import Found, Understood, prepared
from ddpm.data.settings import ImageSettings

NO_LABELS = "leave labels out with data.label_key=none"
NAMED = 10
LIKELY = ((0, 1), (-1, 1), (0, 255), (0, 65535))
"""What numbers of other types most likely fill, if they lie within."""


@dataclass(frozen=True)
class Arrays(ImageSettings):
    """The images of files that hold arrays, in the parts and with the labels that their names say.

    Nothing that a file may hold beside plain arrays is ever run.

    Args:
        path: a file, or a folder, zip or tar file of such files; `~` is the home directory.
        image_key: name of the array of images; None is the one whose name and shape say so. Its counterparts
            in other parts are meant too: x_test where x_train is named.
        label_key: the same of labels; `none` means that there are none.
        The others: see `ImageSettings`.

    Raises:
        ValueError: from `read`, where there is no such file, it is damaged, nothing says what its arrays
            are, they do not fit, or the range of their numbers is not known.
    """

    path: str | Path
    _: KW_ONLY
    image_key: str | None = None
    label_key: str | None = None

    def read(self) -> DataSet:
        path = existing(self.path).resolve()
        files = sorted(files_below(path)) if path.is_dir() else [cache.state(path)]
        identity = {"arrays": str(path), "keys": [self.image_key, self.label_key]}
        with ExitStack() as stack:
            return prepared(
                self, path.stem, identity, files, lambda scratch: self._find(path, scratch, stack)
            )

    def _find(self, path: Path, scratch: Path, stack: ExitStack) -> Found:
        try:
            found = contents(path, Workspace(scratch, stack))
        except ValueError as error:
            raise ValueError(f"data.path={self.path}: {error}") from error
        if not found.arrays:
            name, reason = found.left_out[0] if found.left_out else ("it", "holds no files")
            said = f"data.path={self.path} holds no arrays: {name}: {reason}"
            raise ValueError(kinds.refused("arrays", self.path, None) or said)
        known = roles(found.arrays, self.path, self.image_key, self.label_key, self.shaping.planes)
        parts = self._parts(known)
        images = [one for part in parts.all for one in part.images]
        self._check_range(images)
        labels, classes, said_by = self._labels(parts, known)
        cut, total = sum(part.count for part in parts.train), sum(part.count for part in parts.all)
        unused = [(listed(names), reason) for reason, names in _by_reason(known.unused).items()]
        return Found(
            [f"image {index} of {one.held.name}" for one in images for index in range(one.layout.count)],
            lambda chosen: self._read(images, chosen),
            positions=scattered(cut) if parts.validation is None else np.arange(total),
            label=lambda kept: (None if labels is None else labels[kept], classes),
            nothing=f"data.path={self.path} holds no images",
            cut=None if parts.validation is None else cut,
            channels=self.channels,
            left_out=[*found.left_out, *unused],
            understood=Understood(
                _called([one for part in parts.train for one in part.images], self.shaping.planes),
                parts.why_share
                if parts.validation is None
                else _called(parts.validation.images, self.shaping.planes),
                said_by,
            ),
        )

    def _parts(self, known: Roles) -> "_Parts":
        """The parts that are used."""
        sizes = {name: part.count for name, part in known.parts.items()}
        names = splits.chosen(sizes, self.split, self.validation_split, self.path)
        train = [known.parts[name] for name in names.train]
        if names.validation is None:
            return _Parts(train, None)
        validation = known.parts[names.validation]
        lacking = [part for part in (*train, validation) if part.labels is None]
        if not lacking or len(lacking) == len(train) + 1:
            return _Parts(train, validation)
        images = lacking[0].images[0].held.name
        if lacking == [validation] and self.validation_split is None:
            return _Parts(train, None, f"a share of {self.validation_fraction:g}: {images} has no labels")
        raise ValueError(
            f"data.path={self.path}: {images} has no labels, and other images have; choose parts with "
            f"data.split and data.validation_split, or {NO_LABELS}"
        )

    def _labels(self, parts: "_Parts", known: Roles) -> tuple[np.ndarray | None, list[str] | None, str]:
        """Labels of all images, the names of their classes, and what says so."""
        if self.label_key == "none":
            return None, None, "data.label_key=none"
        held = [one for part in parts.all for one in part.labels or ()]
        if not held:
            return None, None, "no array of labels"
        try:
            values = {one.name: values_of(one) for one in held}
        except Exception as error:  # a damaged file raises whatever its parts raise
            raise ValueError(f"data.path={self.path}: {short(error)}; {NO_LABELS}") from error
        self._check_classes(parts, values)
        candidates = sorted(known.names, key=lambda one: likeness(one, held[0]))
        names = ((one.name, values_of(one).tolist()) for one in candidates)
        labels, classes, named_by = numbered(list(values.values()), names)
        said_by = ", ".join(_some([one.name for one in part.labels or ()]) for part in parts.all)
        return labels, classes, said_by if named_by is None else f"{said_by}, named by {named_by}"

    def _check_classes(self, parts: "_Parts", values: Mapping[str, np.ndarray]) -> None:
        """Refuse to validate on classes that are not trained on."""
        if parts.validation is None:
            return

        def of(part: Part) -> set[int | str]:
            return set().union(*(values[one.name].tolist() for one in part.labels or ()))

        if more := of(parts.validation) - set().union(*map(of, parts.train)):
            said = ", ".join(str(value) for value in classes_in(more)[:NAMED])
            raise ValueError(
                f"data.path={self.path}: {_called(parts.validation.images)} holds classes that "
                f"{_called(parts.train[0].images)} lacks: {said}; hold out a share by "
                f"data.validation_split=none, or {NO_LABELS}"
            )

    def _check_range(self, images: Sequence[Images]) -> None:
        """Refuse numbers whose range nobody knows, and say what they are."""
        unknown = [one for one in images if one.held.dtype.name not in RANGES]
        if self.value_range is not None or not unknown:
            return
        lowest, highest = np.inf, -np.inf
        for one in unknown:
            for first, block in self._blocks(one):
                if not np.isfinite(block).all():
                    index = first + int(np.flatnonzero(~np.isfinite(block).all((1, 2, 3)))[0])
                    raise ValueError(
                        f"data.path={self.path}: image {index} of {one.held.name} holds a number that is not "
                        "finite; mend it"
                    )
                lowest, highest = min(lowest, float(block.min())), max(highest, float(block.max()))
        low, high = next((r for r in LIKELY if r[0] <= lowest and highest <= r[1]), (lowest, highest))
        raise ValueError(
            f"data.value_range is not set: {unknown[0].held.name} holds numbers of type "
            f"{unknown[0].held.dtype} from {lowest:g} to {highest:g}, and nothing says which are black and "
            f"white; set it, as in data.value_range=[{low:g},{high:g}]"
        )

    def _read(self, images: Sequence[Images], chosen: Sequence[int]) -> Iterator[Decoded]:
        """See `Found.read`."""
        shaping = self.shaping
        wanted = iter(chosen)
        index, start = next(wanted, None), 0
        for one in images:
            end = start + one.layout.count
            if index is None or index >= end:
                start = end
                continue
            for first, block in self._blocks(one):
                while index is not None and index - start < first + len(block):
                    number = index - start
                    image = block[number - first]
                    try:
                        yield from_array(np.ascontiguousarray(image), shaping)
                    except ValueError as error:
                        key = (
                            f"value_range={list(self.value_range)}"
                            if self.value_range
                            else f"path={self.path}"
                        )
                        raise ValueError(f"data.{key}: image {number} of {one.held.name}: {error}") from error
                    index = next(wanted, None)
            start = end

    def _blocks(self, one: Images) -> Iterator[tuple[int, np.ndarray]]:
        """An array of images, a few megabytes at a time: the number of the first there, and [K, H, W, C]."""
        blocks = one.held.blocks(one.layout.axis)
        while True:
            try:
                first, block = next(blocks)
            except StopIteration:
                return
            except Exception as error:  # a damaged file raises whatever its parts raise
                raise ValueError(
                    f"data.path={self.path}: {one.held.name} could not be read ({short(error)})"
                ) from error
            yield first, one.layout.turned(block)


class _Parts(NamedTuple):
    """The parts that are used: those to train on, that to validate on, and why there is none."""

    train: list[Part]
    validation: Part | None
    why_share: str = ""

    @property
    def all(self) -> list[Part]:
        return [*self.train, *([] if self.validation is None else [self.validation])]


def _called(images: Sequence[Images], channels: int | None = None) -> str:
    """The arrays of a part, and how images lie in them where that is not the usual."""
    held, layout = images[0]
    how = "" if is_plain(held.shape, layout, channels) else f" as {layout.name}"
    return _some([one.held.name for one in images]) + how


def _some(names: Sequence[str]) -> str:
    return " and ".join(names) if len(names) < 3 else f"{names[0]} to {names[-1]}"


def _by_reason(unused: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in unused:
        reasons.setdefault(reason, []).append(name)
    return reasons
