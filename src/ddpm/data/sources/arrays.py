"""Files of arrays: npz and npy, idx, CIFAR's batches, MATLAB's and HDF5."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm.data import kinds, splits
from ddpm.data.arrays.files import contents
from ddpm.data.arrays.held import Held, Workspace
from ddpm.data.arrays.labels import numbered, values_of
from ddpm.data.arrays.layouts import is_plain
from ddpm.data.arrays.roles import (
    Images,
    Part,
    Roles,
    belonging,
    images_like,
    likeness,
    listed,
    named,
    roles,
)
from ddpm.data.arrays.vectors import vectors_of
from ddpm.data.classes import classes_in
from ddpm.data.conditions.paired import Paired
from ddpm.data.conditions.vector import Vector
from ddpm.data.holdout import scattered
from ddpm.data.images import DataSet
from ddpm.data.paths import existing, files_below
from ddpm.data.pixels.decoding import RANGES, Decoded, from_array, short
from ddpm.data.pixels.shaping import Shaping
from ddpm.data.prepared import cache
from ddpm.data.prepared.preparation import Found, Partners, Understood, Vectors, prepared
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
        condition: the array of something beside each image; None for nothing.
        The others: see `ImageSettings`.

    Raises:
        ValueError: from `read`, where there is no such file, it is damaged, nothing says what its arrays
            are, they do not fit, or the range of their numbers is not known.
    """

    path: str | Path
    _: KW_ONLY
    image_key: str | None = None
    label_key: str | None = None
    condition: Paired | Vector | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition is not None and self.condition.key is None:
            raise ValueError(
                f"{self.condition.typed}: says where files are, which data=folder and data=archive read; of "
                "arrays, data.condition.key=ARRAY names one"
            )

    def read(self) -> DataSet:
        path = existing(self.path).resolve()
        files = sorted(files_below(path)) if path.is_dir() else [cache.state(path)]
        identity: dict[str, Any] = {"arrays": str(path), "keys": [self.image_key, self.label_key]}
        if self.condition is not None:
            identity["condition"] = [type(self.condition).__name__, *asdict(self.condition).values()]
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
        beside: list[Held] = []
        if self.condition is not None:
            beside = named("condition.key", str(self.condition.key), found.arrays, self.path)
        arrays = [held for held in found.arrays if held not in beside]
        known = roles(arrays, self.path, self.image_key, self.label_key, self.shaping.planes)
        parts = self._parts(known)
        images = [one for part in parts.all for one in part.images]
        if self.value_range is None:
            self._check_range(images)
        labels, classes, said_by = self._labels(parts, known)
        cut, total = sum(part.count for part in parts.train), sum(part.count for part in parts.all)
        unused = [(listed(names), reason) for reason, names in _by_reason(known.unused).items()]
        return Found(
            [f"image {index} of {one.held.name}" for one in images for index in range(one.layout.count)],
            lambda chosen: self._read(images, chosen, self.shaping),
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
            partners=self._partners(parts, beside),
            vectors=self._vectors(parts, beside),
        )

    def _partners(self, parts: "_Parts", beside: Sequence[Held]) -> Partners | None:
        """The array of images that others are conditioned on."""
        condition = self.condition
        if not isinstance(condition, Paired):
            return None
        shaping = condition.shaping(self.shaping)
        key, planes = condition.typed, shaping.planes
        found = [
            one for part in parts.all for one in images_like(part, belonging(part, beside, key), key, planes)
        ]
        if shaping.value_range is None:
            self._check_range(found, "data.condition.value_range")
        names = [f"image {index} of {one.held.name}" for one in found for index in range(one.layout.count)]
        return Partners(
            names,
            lambda chosen: self._read(found, chosen, shaping, "data.condition"),
            np.arange(len(names)),
            key,
            condition.channels,
            understood=f"the image of the same number in {_called(found, planes)}",
        )

    def _vectors(self, parts: "_Parts", beside: Sequence[Held]) -> Vectors | None:
        """The array of numbers that images are conditioned on."""
        condition = self.condition
        if not isinstance(condition, Vector):
            return None
        values = []
        for part in parts.all:
            arrays = belonging(part, beside, condition.typed)
            try:
                values.append(vectors_of(arrays, part.count, condition.typed))
            except ValueError:
                raise
            except Exception as error:  # a damaged file raises whatever its parts raise
                raise ValueError(f"data.path={self.path}: {short(error)}") from error
        if len({one.shape[1] for one in values}) > 1:
            raise ValueError(
                f"{condition.typed}: the parts hold vectors of different lengths ({listed(beside)})"
            )
        whole, key = np.concatenate(values), str(condition.key)
        names = [key] if whole.shape[1] == 1 else [f"{key}[{index}]" for index in range(whole.shape[1])]
        return Vectors(whole, names, f"of {_some([held.name for held in beside])}")

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

    def _check_range(self, images: Sequence[Images], key: str = "data.value_range") -> None:
        """Refuse numbers whose range nobody knows, where the key says none, and say what they are."""
        unknown = [one for one in images if one.held.dtype.name not in RANGES]
        if not unknown:
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
            f"{key} is not set: {unknown[0].held.name} holds numbers of type "
            f"{unknown[0].held.dtype} from {lowest:g} to {highest:g}, and nothing says which are black and "
            f"white; set it, as in {key}=[{low:g},{high:g}]"
        )

    def _read(
        self, images: Sequence[Images], chosen: Sequence[int], shaping: Shaping, keys: str = "data"
    ) -> Iterator[Decoded]:
        """See `Found.read`; `keys` is where the settings stand that a message may name."""
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
                        said = f"data.path={self.path}"
                        if shaping.value_range:
                            said = (
                                f"{keys}.value_range=[{', '.join(f'{end:g}' for end in shaping.value_range)}]"
                            )
                        why = str(error).replace("data.", f"{keys}.")
                        raise ValueError(f"{said}: image {number} of {one.held.name}: {why}") from error
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
