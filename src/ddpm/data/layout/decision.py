"""One decision for folders, archives and buckets alike: which images are for what, and of which class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ddpm.data import splits
from ddpm.data.classes import classes_in
from ddpm.data.layout.by_folder import by_folder
from ddpm.data.layout.names import Folders, Sorted, folders_of, listed, stem
from ddpm.data.layout.tree import Place, Tree, tree

BESIDE = "it lies beside the folders of images"


@dataclass(frozen=True)
class Asked:
    """The settings that choose among what there is: see `ddpm.data.sources.image_files.ImageFiles`."""

    path: str
    split: str | None = None
    validation_split: str | None = None
    labels: str = "auto"
    class_depth: int | None = None


@dataclass(frozen=True)
class Layout:
    """What was made of the names of a set.

    Attributes:
        train: numbers of the files to train on, in the order of their parts and names.
        validation: of those to validate on; None leaves it to a share.
        classes: of each of these files; None where there are none.
        parts: whether the set has parts.
        left_out: numbers of files that may be images and are not used, with the reason.
        folders: that may be classes, by the name of the class; empty where folders are none.
        understood: ends of sentences on the images to train on, those held out, and the classes.
    """

    train: Sequence[int]
    validation: Sequence[int] | None
    classes: Mapping[int, str] | None
    parts: bool
    left_out: Mapping[int, str]
    folders: Mapping[str, Folders]
    understood: tuple[str, str, str]


@dataclass(frozen=True)
class _Set:
    """A set of files, and the parts of it that are used.

    Attributes:
        asked: the settings.
        names: of all files.
        kinds: of all files.
        where: its wrappers and parts.
        there: its folders.
        places: of what may be an image and does not lie beside the parts.
        sizes: images in each part.
        train: the parts to train on; "" is a set without parts.
        validation: the part to validate on, or None.
        no_validation: why a part that could be is not, or "".
    """

    asked: Asked
    names: Sequence[str]
    kinds: Sorted
    where: Tree
    there: Sequence[Folders]
    places: Mapping[int, Place]
    sizes: Mapping[str, int]
    train: tuple[str, ...]
    validation: str | None
    no_validation: str = ""

    @property
    def used(self) -> tuple[str, ...]:
        """The parts that are used."""
        return self.train if self.validation is None else (*self.train, self.validation)

    def images(self, *parts: str) -> list[int]:
        """Numbers of the images of some parts."""
        return [i for i in self.kinds.images if i in self.places and self.places[i].part in parts]

    def folders(self, *parts: str) -> str:
        """The folders of parts, for people."""
        found = {self.places[i].folder for i in self.places if self.places[i].part in parts}
        return f"the folder{'' if len(found) == 1 else 's'} {listed(sorted(found))}"


@dataclass(frozen=True)
class _Classes:
    """Attributes:
    of: the class of each file that has one; None where there are none.
    said: what says so, or why not.
    folders: see `Layout`.
    """

    of: Mapping[int, str] | None
    said: str
    folders: Mapping[str, Folders]


def decide(names: Sequence[str], kinds: Sorted, there: Iterable[Folders], asked: Asked) -> Layout:
    """What a set is, by the names of its files.

    Args:
        names: relative paths of its files.
        kinds: what they are.
        there: its folders.
        asked: the settings.

    Raises:
        ValueError: where it is not what was asked for, or parts of it do not fit together.
    """
    there = list(there)
    where = tree((folders_of(names[index]) for index in kinds.images), there)
    places = {
        index: place
        for index in (*kinds.images, *kinds.unknown)
        if (place := where.place(folders_of(names[index]))) is not None
    }
    sizes = {part: 0 for part, _ in where.parts.values()}
    for index in kinds.images:
        if sizes and index in places:
            sizes[places[index].part] += 1
    train, validation = splits.chosen(sizes, asked.split, asked.validation_split, asked.path)
    found = _Set(asked, names, kinds, where, there, places, sizes, train or ("",), validation)
    if asked.labels == "none":
        return _layout(found, _Classes(None, "data.labels=none", {}))
    return _layout(*_by_folder(found))


def _by_folder(found: _Set) -> tuple[_Set, _Classes]:
    """The classes that folders say, and the set without a part to validate on if that has none."""
    images = {part: found.images(part) for part in found.used}
    by = by_folder(
        {
            part: [(found.places[index].path, stem(found.names[index])) for index in inside]
            for part, inside in images.items()
        },
        found.asked.class_depth,
    )
    if by.why_none:
        return found, _Classes(None, f"none: {by.why_none}", {})

    def class_at(path: Folders) -> str | None:
        place = found.where.place(path)
        return by.class_of(place.part, place.path) if place is not None and place.part in found.used else None

    of = {i: name for i in found.places if (name := class_at(folders_of(found.names[i]))) is not None}
    classes = {part: {of[index] for index in inside if index in of} for part, inside in images.items()}
    if lacking := [part for part in found.train if not classes[part]]:
        why = f"none: the images of {found.folders(lacking[0])} lie in no folders of classes"
        return found, _Classes(None, why, {})
    trained = set().union(*(classes[part] for part in found.train))
    if found.validation is not None:
        validated = classes[found.validation]
        if not validated or (len(validated) == 1 < len(trained) and validated.isdisjoint(trained)):
            return _by_folder(_without_validation(found, "has no labels"))
        _check_same(found, trained, validated)
    shown = {path[:depth] for path in map(folders_of, found.names) for depth in range(1, len(path) + 1)}
    at = {name: path for path in sorted({*shown, *found.there}) if (name := class_at(path)) is not None}
    return found, _Classes(of, "the folders", at)


def _without_validation(found: _Set, why: str) -> _Set:
    """The same, of which a share is held out."""
    assert found.validation is not None
    folders = found.folders(found.validation)
    if found.asked.validation_split is not None:
        raise ValueError(
            f"data.validation_split={found.asked.validation_split}: {folders} {why}; choose another part, "
            "hold out a share by data.validation_split=none, or train without classes by data.labels=none"
        )
    return replace(found, validation=None, no_validation=f"a share: {folders} {why}")


def _check_same(found: _Set, trained: set[str], validated: set[str]) -> None:
    """Refuse parts of different classes."""
    assert found.validation is not None
    train, validation = found.folders(*found.train), found.folders(found.validation)
    for has, lacks, more in (
        (validation, train, validated - trained),
        (train, validation, trained - validated),
    ):
        if more:
            names = listed(str(name) for name in classes_in(more))
            fewer = ", take fewer folders by data.class_depth=1" if any("/" in name for name in more) else ""
            raise ValueError(
                f"data.path={found.asked.path}: {has} holds classes that {lacks} lacks: {names}; hold out a "
                f"share by data.validation_split=none{fewer}, or train without classes by data.labels=none"
            )


def _layout(found: _Set, classes: _Classes) -> Layout:
    tried = [*found.kinds.images, *found.kinds.unknown]
    plain = not found.where.parts and classes.of is None  # then nothing can lie beside something
    used = {i for i in tried if plain or (i in found.places and found.places[i].part in found.used)}
    if classes.of is not None:
        used &= classes.of.keys()

    def members(parts: Sequence[str]) -> list[int]:
        inside = (i for i in used if plain or found.places[i].part in parts)
        return sorted(
            inside, key=lambda i: (0 if plain else parts.index(found.places[i].part), found.names[i])
        )

    left_out = {
        i: BESIDE
        for i in tried
        if i not in used and (i not in found.places or found.places[i].part in found.used)
    }
    return Layout(
        members(found.train),
        None if found.validation is None else members([found.validation]),
        classes.of,
        bool(found.where.parts),
        left_out,
        classes.folders,
        (_trained_on(found), _held_out(found), classes.said),
    )


def _trained_on(found: _Set) -> str:
    if not found.where.parts:
        return ""
    unused = [part for part, size in found.sizes.items() if size and part not in found.used]
    if found.no_validation or not unused:
        return found.folders(*found.train)
    verb = "is" if len(unused) == 1 else "are"
    return f"{found.folders(*found.train)}; {found.folders(*unused)} {verb} not used"


def _held_out(found: _Set) -> str:
    if found.validation is None:
        return found.no_validation
    said = found.folders(found.validation)
    if found.validation == "test" and found.asked.validation_split is None:
        said += "; there is no part for validation"
    return said
