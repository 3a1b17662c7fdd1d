"""Which arrays are images, which are their labels, and of which part, by their names and shapes."""

import fnmatch
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ddpm.data import splits
from ddpm.data.arrays.held import Held
from ddpm.data.arrays.labels import is_line
from ddpm.data.arrays.layouts import Layout, layout_of
from ddpm.data.classes import natural

IMAGES = {
    **dict.fromkeys(("x", "image", "images", "img", "imgs", "pixels", "picture", "pictures"), 0),
    **dict.fromkeys(("data", "sample", "samples", "input", "inputs", "feature", "features", "arr"), 1),
}
"""Words that name images; where several do, the lower number wins."""

LABELS = {
    "y", "label", "labels", "lab", "labs", "lbl", "target", "targets", "class", "classes", "cls", "category",
    "categories", "ans", "answer", "answers", "gt", "truth",
}  # fmt: skip
"""Words that name labels."""

PARTS = {"tr": "train", "te": "test", "ts": "test"}
"""Short for parts, beside those of `splits.MEANINGS`."""

NAMES = {"name", "names"}
"""Words that, beside those of labels, say that classes are named."""

GENERAL = {
    "idx",
    "ubyte",
    "set",
    "sets",
    "split",
    "batch",
    "batches",
    "array",
    "arrays",
    "all",
    "orig",
    "list",
}
"""Words that say nothing."""

NO_LABELS = {
    "id", "ids", "index", "indices", "number", "numbers", "order", "size", "sizes", "shape", "shapes", "file",
    "files", "filename", "filenames", "path", "paths", "name", "names", "seed", "seeds", "weight", "weights",
    "score", "scores", "time", "times", "date", "fold", "folds",
}  # fmt: skip
"""Words of arrays that hold one thing an image and are no labels."""

NUMBERS = "biuf"
SIZE = re.compile(r"[0-9]+x[0-9]+")
POSITIONAL = re.compile(r"(^|/)arr_[0-9]+$")
"""What NumPy calls arrays that nobody named: their numbers count roles, not pieces."""

LISTED = 20
NEITHER = "an array that is neither images nor labels"


class Images(NamedTuple):
    """An array of images, and how they lie in it."""

    held: Held
    layout: Layout


@dataclass(frozen=True)
class Part:
    """The images of one part and their labels, array by array.

    Attributes:
        images: at least one array, in natural order.
        labels: arrays that have together a label for each image; None where there are none.
    """

    images: tuple[Images, ...]
    labels: tuple[Held, ...] | None

    @property
    def count(self) -> int:
        """How many images there are."""
        return sum(one.layout.count for one in self.images)


class Roles(NamedTuple):
    """What arrays are for.

    Attributes:
        parts: by name; one has a meaning of `splits` wherever its arrays say so.
        names: arrays of strings that may name the classes, the likeliest first.
        unused: name and reason of all other arrays.
    """

    parts: dict[str, Part]
    names: tuple[Held, ...]
    unused: tuple[tuple[str, str], ...]


def roles(
    arrays: Sequence[Held],
    path: object,
    image_key: str | None = None,
    label_key: str | None = None,
    channels: int | None = None,
) -> Roles:
    """What arrays are for.

    Args:
        arrays: all that there are.
        path: where they are, for messages.
        image_key: the array of images; its counterparts in other parts are meant too.
        label_key: the same of labels; `none` means that there are none.
        channels: that images have; None where this is not known.

    Raises:
        ValueError: where there are no images, several arrays could be meant, or labels do not fit.
    """
    meant = [held for held in arrays if _role(held.name) == "labels"]
    if label_key not in (None, "none"):
        meant = named("label_key", str(label_key), arrays, path)
    counts: dict[str, set[int]] = {}
    for held in meant:
        if (count := _label_count(held)) is not None:
            counts.setdefault(_part(held.name), set()).add(count)
    possible = [
        Images(held, layout)
        for held in arrays
        if held.dtype.kind in NUMBERS
        and (layout := layout_of(held.shape, counts.get(_part(held.name)) or counts.get("") or (), channels))
    ]
    chosen = _images(arrays, possible, path, image_key)
    used = {one.held.name for images in chosen.values() for one in images}
    others = [held for held in arrays if held.name not in used]
    pool = [held for held in meant if held.name not in used] if label_key is not None else others
    parts = {}
    for part, images in chosen.items():
        labels = None if label_key == "none" else _labels(part, images, pool, path, label_key)
        parts[part] = Part(images, labels)
        used |= {held.name for held in labels or ()}
    if label_key not in (None, "none") and all(part.labels is None for part in parts.values()):
        raise ValueError(
            f"data.label_key={label_key}: {path} has no such labels beside {listed(used)}, which are images; "
            f"it holds {listed(arrays)}"
        )
    names = tuple(held for held in others if held.name not in used and _names_classes(held))
    parts, nameless = _called(parts)
    unused = [
        (held.name, _why(held, {one.held.name for one in possible}))
        for held in arrays
        if held.name not in used and held not in names
    ]
    return Roles(parts, names, (*unused, *nameless))


def belonging(part: Part, arrays: Sequence[Held], key: str) -> list[Held]:
    """The arrays, of those that hold something for each image, that belong to the images of a part: of its
    name, else those whose names say no part.

    Raises:
        ValueError: where there are none.
    """
    name = _part(part.images[0].held.name)
    found = [held for held in arrays if _part(held.name) == name]
    found = found or [held for held in arrays if not _part(held.name)]
    if not found:
        raise ValueError(
            f"{key}: {listed(arrays)} is of other images than {listed(one.held for one in part.images)}; "
            "choose the part by data.split, and hold out a share by data.validation_split=none"
        )
    return sorted(found, key=lambda held: natural(held.name))


def images_like(part: Part, arrays: Sequence[Held], key: str, channels: int | None) -> list[Images]:
    """Arrays that hold one image for each image of a part.

    Args:
        part: of the images.
        arrays: see `belonging`.
        key: that names them, for messages.
        channels: that they have; None where this is not known.

    Raises:
        ValueError: where they are no images, or not as many.
    """
    counts = {part.count, *(one.layout.count for one in part.images)}
    layouts = [(held, layout_of(held.shape, counts, channels)) for held in arrays]
    found = [Images(held, layout) for held, layout in layouts if layout and held.dtype.kind in NUMBERS]
    if len(found) != len(arrays) or sum(one.layout.count for one in found) != part.count:
        raise ValueError(
            f"{key}: {listed(arrays)} must hold one image for each of the {part.count:,} of "
            f"{listed(one.held for one in part.images)}"
        )
    return found


def likeness(one: Held, other: Held) -> int:
    """How many words, beside those for roles and parts, only one of two names has."""
    return len(set(_own_words(one.name)) ^ set(_own_words(other.name)))


def listed(arrays: Iterable[Held | str]) -> str:
    """Arrays by their names, types and shapes, or by their names alone, for messages."""
    held = [str(one) for one in arrays]
    more = f" and {len(held) - LISTED:,} others" if len(held) > LISTED else ""
    return ", ".join(held[:LISTED]) + more if held else "nothing"


def tokens(name: str) -> list[str]:
    """The words in one component of a name; those that are grown together, as in `Xtrain`, taken apart."""
    found = []
    for word in splits.words(SIZE.sub("", name)):
        if word in splits.MEANINGS or word in IMAGES or word in LABELS:
            found.append(word)
            continue
        for part in sorted((*splits.MEANINGS, *PARTS), key=len, reverse=True):
            rest = word.removeprefix(part) if word.startswith(part) else word.removesuffix(part)
            if rest != word and (rest in IMAGES or rest in LABELS or len(rest) == 1):
                found += [part, rest]
                break
        else:
            found.append(word)
    return found


def _meaning(component: str) -> str | None:
    """The part that a component of a name says."""
    return splits.meaning("_".join(PARTS.get(word, word) for word in tokens(component)))


def _part(name: str) -> str:
    """The part of an array: the innermost component that says one does; else what its file is called, if
    that says more than that it holds images or labels.
    """
    components = name.split("/")
    for component in reversed(components):
        if (meaning := _meaning(component)) is not None:
            return meaning
    if len(components) == 1:
        return ""
    return "_".join(_own_words(components[0]))


def _own_words(name: str) -> list[str]:
    """The words of a name that say neither what an array is for nor of which part it is."""
    return [
        word
        for component in name.split("/")
        for word in tokens(component)
        if not (
            word in IMAGES
            or word in LABELS
            or word in GENERAL
            or word in splits.MEANINGS
            or word in PARTS
            or word.isdigit()
        )
    ]


def _role(name: str) -> str | None:
    """images or labels where the innermost component that says one of them does; names of classes are
    neither.
    """
    for component in reversed(name.split("/")):
        words = set(tokens(component))
        if words & LABELS:
            return "names" if words & NAMES else "labels"
        if words & IMAGES.keys():
            return "images"
    return None


def _images(
    arrays: Sequence[Held], possible: Sequence[Images], path: object, image_key: str | None
) -> dict[str, tuple[Images, ...]]:
    """The arrays of images of each part."""
    what = "images, which are numbers [N, H, W], [N, H, W, C] or [N, C, H, W]"
    if image_key is not None:
        meant = [held.name for held in named("image_key", image_key, arrays, path)]
        found = [one for one in possible if one.held.name in meant]
        if not found:
            raise ValueError(
                f"data.image_key={image_key}: {path} has no such array of {what}; it holds {listed(arrays)}"
            )
    else:
        called = [one for one in possible if _role(one.held.name) == "images"]
        found = called or [one for one in possible if _role(one.held.name) is None]
        if not found:
            raise ValueError(
                f"data.path={path}: none of its arrays are {what}; it holds {listed(arrays)}; "
                "if one is all the same, name it by data.image_key, and how many channels it has by "
                "data.channels"
            )
    by_part: dict[str, list[Images]] = {}
    for one in found:
        by_part.setdefault(_part(one.held.name), []).append(one)
    return {part: _likeliest(images, path) for part, images in by_part.items()}


def _likeliest(images: Sequence[Images], path: object) -> tuple[Images, ...]:
    """Of the images of one part those whose names say it best: one array, or several that are numbered."""
    series: dict[object, list[Images]] = {}
    for one in images:
        key = _series(one.held.name), one.held.dtype, one.layout.name, one.layout.shape
        series.setdefault(key, []).append(one)
    ranked = sorted(series.values(), key=lambda ones: _image_rank(ones[0]))
    best = [ones for ones in ranked if _image_rank(ones[0]) == _image_rank(ranked[0][0])]
    if len(best) > 1:
        raise ValueError(
            f"data.path={path}: several of its arrays can be the images, "
            f"{listed(one.held for ones in best for one in ones)}; choose, as in "
            f"data.image_key={best[0][0].held.name}"
        )
    return tuple(sorted(best[0], key=lambda one: natural(one.held.name)))


def _image_rank(images: Images) -> tuple[int, ...]:
    words = [IMAGES[word] for word in tokens(images.held.name.split("/")[-1]) if word in IMAGES]
    is_flat = len(images.held.shape) == 2
    return min(words, default=2), len(_own_words(images.held.name)), is_flat


def _labels(
    part: str, images: Sequence[Images], pool: Sequence[Held], path: object, label_key: str | None
) -> tuple[Held, ...] | None:
    """The arrays that hold a label for each image of a part."""
    is_named = label_key is not None
    here = [held for held in pool if _part(held.name) == part and (is_named or _label_count(held))]
    if part and not here:
        here = [held for held in pool if not _part(held.name) and _fits((held,), images)]
    called = [held for held in here if is_named or _role(held.name) == "labels"]
    series: dict[str, list[Held]] = {}
    for held in called:
        series.setdefault(_series(held.name), []).append(held)
    fitting = [tuple(sorted(ones, key=lambda one: natural(one.name))) for ones in series.values()]
    fitting += [(held,) for held in called if (held,) not in fitting]
    fitting = [ones for ones in fitting if _fits(ones, images)]
    of_numbers = [held for held in called if held.dtype.kind in NUMBERS]
    if not fitting and (called if is_named else of_numbers):
        raise ValueError(
            f"data.{f'label_key={label_key}' if is_named else f'path={path}'}: labels and images do not fit: "
            f"{listed(called)} for {listed(one.held for one in images)}, which hold "
            f"{sum(one.layout.count for one in images):,} images; leave labels out with data.label_key=none"
        )
    if not called:
        fitting = [(held,) for held in here if _may_be_labels(held) and _fits((held,), images)]
    if not fitting:
        return None
    rank = {ones: _label_rank(ones[0], images[0].held) for ones in fitting}
    best = [ones for ones in fitting if rank[ones] == min(rank.values())]
    if len(best) > 1:
        raise ValueError(
            f"data.path={path}: several of its arrays can be the labels of {images[0].held.name}, "
            f"{listed(held for ones in best for held in ones)}; choose, as in "
            f"data.label_key={best[0][0].name}, or leave labels out with data.label_key=none"
        )
    return best[0]


def _label_rank(held: Held, images: Held) -> tuple[int, bool]:
    return likeness(held, images), "fine" not in _own_words(held.name)


def _fits(labels: Sequence[Held], images: Sequence[Images]) -> bool:
    """Whether there is one label for each image, array by array or in one array."""
    counts = [_label_count(held) for held in labels]
    wanted = [one.layout.count for one in images]
    return counts == wanted or counts == [sum(wanted)]


def _label_count(held: Held) -> int | None:
    """How many labels an array holds by its shape: [N], if need be among axes of one, or [N, K]."""
    if held.dtype.kind not in NUMBERS + "US" or 0 in held.shape or not held.shape:
        return None
    if is_line(held.shape):
        return math.prod(held.shape)
    return held.shape[0] if len(held.shape) == 2 else None


def _may_be_labels(held: Held) -> bool:
    """Whether an array whose name does not say so can be labels."""
    is_unnamed = _role(held.name) is None or POSITIONAL.search(held.name) is not None
    words = {word for component in held.name.split("/") for word in tokens(component)}
    return is_unnamed and is_line(held.shape) and held.dtype.kind in "iuUS" and not words & NO_LABELS


def _names_classes(held: Held) -> bool:
    words = {word for component in held.name.split("/") for word in tokens(component)}
    return held.dtype.kind in "US" and bool(words & (LABELS | NAMES)) and _label_count(held) is not None


def _series(name: str) -> str:
    """What the names of an array's pieces have in common: all but their numbers."""
    return name if POSITIONAL.search(name) else re.sub("[0-9]+", "#", name)


def named(key: str, wanted: str, arrays: Sequence[Held], path: object) -> list[Held]:
    """The arrays that a person names by a key of data, and their counterparts in other parts.

    Raises:
        ValueError: where there is none.
    """
    found = [
        held for held in arrays if held.name.endswith(f"/{wanted}") or fnmatch.fnmatchcase(held.name, wanted)
    ]
    if not found:
        raise ValueError(f"data.{key}={wanted}: {path} has no such array; it holds {listed(arrays)}")
    words = {_without_part(held.name) for held in found}
    return [held for held in arrays if held in found or _without_part(held.name) in words]


def _without_part(name: str) -> tuple[str, ...]:
    found = [word for component in name.split("/") for word in tokens(component)]
    return tuple(word for word in found if word not in splits.MEANINGS and word not in PARTS)


def _called(parts: dict[str, Part]) -> tuple[dict[str, Part], list[tuple[str, str]]]:
    """The parts as they are called, and what belongs to none: one without a name is the one to train on."""
    others = [name for name in parts if name not in splits.ORDER]
    if "train" not in parts and others:
        nameless = "" if "" in parts else others[0]
        if nameless == "" or len(others) == 1:
            parts = {("train" if name == nameless else name): part for name, part in parts.items()}
    reason = "images of no part, where others are of one called train"
    left = [(one.held.name, reason) for one in parts[""].images] if "" in parts else []
    return {name: part for name, part in parts.items() if name}, left


def _why(held: Held, possible: Collection[str]) -> str:
    role = _role(held.name)
    if held.name in possible and role != "labels":
        return f"an array that is not among the images; data.image_key={held.name} takes it"
    if role == "labels" and _label_count(held) is not None:
        return f"an array that is not among the labels; data.label_key={held.name} takes it"
    return NEITHER
