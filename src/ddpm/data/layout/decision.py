"""One decision for folders, archives and buckets alike: which images are for what, and of which class."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ddpm.data import splits
from ddpm.data.classes import classes_in
from ddpm.data.layout.by_folder import ByFolder, by_folder
from ddpm.data.layout.masks import masks
from ddpm.data.layout.names import Folders, Sorted, counted, folders_of, listed, stem
from ddpm.data.layout.side_files import Said, SideFiles
from ddpm.data.layout.tree import Place, Tree, are_strays, tree

BESIDE = "it lies beside the folders of images"
MASK = "a mask, by the name of its folder, which lies beside one of images"


@dataclass(frozen=True)
class Asked:
    """The settings that choose among what there is: see `ddpm.data.sources.image_files.ImageFiles`.

    Attributes:
        numbers: columns of tables that images are conditioned on, and that are no labels.
        The others: as there.
    """

    path: str
    split: str | None = None
    validation_split: str | None = None
    labels: str = "auto"
    label_column: str | None = None
    class_depth: int | None = None
    numbers: Sequence[str] = ()


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
        captions: of files, by their numbers.
    """

    train: Sequence[int]
    validation: Sequence[int] | None
    classes: Mapping[int, str] | None
    parts: bool
    left_out: Mapping[int, str]
    folders: Mapping[str, Folders]
    understood: tuple[str, str, str]
    captions: Mapping[int, str]


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
    """The classes of a set.

    Attributes:
        of: the class of each file that has one; None where there are none.
        said: what says so, or why not.
        captions: of files.
        folders: see `Layout`.
    """

    of: Mapping[int, str] | None
    said: str
    captions: Mapping[int, str]
    folders: Mapping[str, Folders] = field(default_factory=dict)


def decide(
    names: Sequence[str],
    kinds: Sorted,
    there: Iterable[Folders],
    asked: Asked,
    contents: Callable[[int], bytes],
) -> Layout:
    """What a set is, by the names of its files.

    Args:
        names: relative paths of its files.
        kinds: what they are.
        there: its folders.
        asked: the settings.
        contents: reads a file by its number; only side files are read.

    Raises:
        ValueError: where it is not what was asked for, or parts of it do not fit together.
    """
    there = list(there)
    masked = masks(names, kinds.images)
    kinds = kinds._replace(images=[index for index in kinds.images if index not in masked])
    where = tree((folders_of(names[index]) for index in kinds.images), there)
    tried = [*kinds.images, *kinds.unknown]
    at = {folders: where.place(folders) for folders in {folders_of(names[index]) for index in tried}}
    places = {index: place for index in tried if (place := at[folders_of(names[index])]) is not None}
    sizes = {part: 0 for part, _ in where.parts.values()}
    for index in kinds.images:
        if sizes and index in places:
            sizes[places[index].part] += 1
    train, validation = splits.chosen(sizes, asked.split, asked.validation_split, asked.path)
    found = _Set(asked, names, kinds, where, there, places, sizes, train or ("",), validation)
    wanted = None if asked.labels in ("auto", "none", "folders") else asked.labels
    side = SideFiles(
        asked.path,
        names,
        kinds.images,
        kinds.others,
        where,
        places,
        contents,
        found.images(*found.used),
        labels=asked.labels not in ("none", "folders"),
        wanted=wanted,
        label_column=asked.label_column,
        numbers=asked.numbers,
    )
    said = {part: side.of(part, found.images(part)) for part in found.used}
    layout = _layout(*_classes(found, said))
    return replace(layout, left_out={**layout.left_out, **dict.fromkeys(sorted(masked), MASK)})


def _classes(found: _Set, said: Mapping[str, Said]) -> tuple[_Set, _Classes]:
    """The classes of the images, and the set without a part to validate on if that has none.

    Args:
        found: the set.
        said: what side files say of each part that is used.
    """
    images = {part: found.images(part) for part in found.used}
    captions = {index: text for part in found.used for index, text in said[part].captions.items()}
    notes = list(dict.fromkeys(note for part in found.used for note in said[part].notes))
    if found.asked.labels == "none":
        return found, _Classes(None, "data.labels=none", captions)
    _check_side_files(found, said)
    by = _by_folder(found, [part for part in found.used if not said[part].classes])
    if by.why_none and any(not said[part].classes for part in found.train):
        return found, _Classes(None, "; ".join([by.why_none, *notes]), captions)
    of = _of_folders(found, by)
    for part in found.used:
        of |= said[part].classes
        _check_complete(found, said[part], images[part])
    classes = {part: {of[index] for index in inside if index in of} for part, inside in images.items()}
    if lacking := [part for part in found.train if not classes[part]]:
        why = f"the images of {found.folders(lacking[0])} have no labels"
        return found, _Classes(None, "; ".join([why, *notes]), captions)
    trained = set().union(*(classes[part] for part in found.train))
    if found.validation is not None:
        validated = classes[found.validation]
        if not validated or (len(validated) == 1 < len(trained) and validated.isdisjoint(trained)):
            return _classes(_without_validation(found, "has no labels"), said)
        _check_same(found, trained, validated)
    files = list(dict.fromkeys(file for part in found.used for file in said[part].files))
    if not all(said[part].classes for part in found.used):
        files.append("the folders")
    return found, _Classes(of, "; ".join([" and ".join(files), *notes]), captions, _folders(found, by))


def _by_folder(found: _Set, parts: Sequence[str]) -> ByFolder:
    """What folders say of some parts."""
    images: dict[str, dict[Folders, list[str]]] = {}
    for part in parts:
        images[part] = {}
        for index in found.images(part):
            images[part].setdefault(found.places[index].path, []).append(stem(found.names[index]))
    return by_folder(images, found.asked.class_depth)


def _of_folders(found: _Set, by: ByFolder) -> dict[int, str]:
    """The classes of all that may be an image, as folders say."""
    at = {
        place: by.class_of(place.part, place.path)
        for place in set(found.places.values())
        if place.part in by.steps
    }
    named = ((index, at.get(place)) for index, place in found.places.items())
    return {index: name for index, name in named if name is not None}


def _folders(found: _Set, by: ByFolder) -> dict[str, Folders]:
    """Where each class is that folders say, whether images are there or not."""
    at: dict[str, Folders] = {}
    paths = set(map(folders_of, found.names))
    above = {path[:depth] for path in paths for depth in range(1, len(path) + 1)}
    for path in sorted({*above, *found.there}):
        place = found.where.place(path)
        if place is not None and place.part in by.steps and (name := by.class_of(place.part, place.path)):
            at.setdefault(name, path)
    return at


def _check_side_files(found: _Set, said: Mapping[str, Said]) -> None:
    """Refuse what asks for a file or a column that labels nothing."""
    labelled = any(said[part].classes for part in found.train)
    notes = "; ".join(note for part in found.train for note in said[part].notes)
    because = f" ({notes})" if notes else ""
    asked = found.asked
    if asked.label_column is not None and not labelled:
        columns = listed((column for one in said.values() for column in one.columns), 10)
        there = f"the columns are {columns}" if columns else "there is no table of labels"
        raise ValueError(
            f"data.label_column={asked.label_column} labels no image to train on{because}; {there}"
        )
    if asked.labels not in ("auto", "folders") and not labelled:
        raise ValueError(
            f"data.labels={asked.labels} labels no image to train on{because}; it may be auto, folders, none "
            "or the name of another file"
        )


def _check_complete(found: _Set, said: Said, images: Sequence[int]) -> None:
    """Refuse a file of labels that leaves out some images, but for strays."""
    lacking = [index for index in images if index not in said.classes]
    beside = [index for index in images if not found.places[index].path]
    if set(lacking) == set(beside) and are_strays(len(lacking), len(images)):
        return
    if said.classes and lacking:
        first = min(found.names[index] for index in lacking)
        raise ValueError(
            f"data.path={found.asked.path}: {' and '.join(said.files)}: no label for {counted(len(lacking))} "
            f"of {len(images):,}, first {first}; label or remove them, or choose data.labels=folders or "
            "data.labels=none"
        )


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
    """Refuse a part to validate on with classes that no image to train on is of."""
    assert found.validation is not None
    train, validation = found.folders(*found.train), found.folders(found.validation)
    if more := validated - trained:
        names = listed(str(name) for name in classes_in(more))
        fewer = ", take fewer folders by data.class_depth=1" if any("/" in name for name in more) else ""
        raise ValueError(
            f"data.path={found.asked.path}: {validation} holds classes that {train} lacks: {names}; hold out "
            f"a share by data.validation_split=none{fewer}, or train without classes by data.labels=none"
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
        for i in found.kinds.images
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
        classes.captions,
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
    said = found.no_validation if found.validation is None else found.folders(found.validation)
    if found.asked.validation_split is not None:
        return said
    used = splits.HELD_OUT.index(found.validation) if found.validation in splits.HELD_OUT else None
    if empty := [part for part in splits.HELD_OUT[:used] if found.sizes.get(part) == 0]:
        return f"{said or 'a share'}; the part {' and '.join(empty)} holds no images"
    return f"{said}; there is no part for validation" if found.validation == "test" else said
