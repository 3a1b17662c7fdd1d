"""Files of labels and captions among the files of a set: which there are, and what they say of whom."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ddpm.data import splits
from ddpm.data.encodings import UTF_8, decoded, guessed
from ddpm.data.layout import beside, coco, stylegan, tables
from ddpm.data.layout.labels import Labels
from ddpm.data.layout.match import Known
from ddpm.data.layout.names import Folders, counted, folders_of, listed, stem, suffix
from ddpm.data.layout.tree import Place, Tree
from ddpm.data.pixels.decoding import short

FOLDERS = frozenset({"annotation", "annotations", "anno", "labels", "meta", "metadata", "csv"})
"""Folders without images that hold such files, beside those with images."""

LISTS = frozenset(
    {"label", "labels", "class", "classes", "annotation", "annotations", "target", "targets", "gt", "truth"}
)
"""A word of these makes a text file one of labels."""

NEVER = frozenset({"submission", "submissions", "readme", "requirements", "license"})
"""A word of these makes it none: what contests ask for holds made-up labels."""

METADATA = "metadata"


@dataclass(frozen=True)
class Said:
    """What side files say about the images of a part.

    Attributes:
        classes: of images, by their numbers; empty where none says any.
        files: names of the files that say so.
        captions: of images, by their numbers.
        notes: what to say about files, ends of sentences.
        columns: of tables that could not label them.
    """

    classes: Mapping[int, str] = field(default_factory=dict)
    files: Sequence[str] = ()
    captions: Mapping[int, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class SideFiles:
    """The side files of a set.

    Attributes:
        path: of the set, for messages.
        names: of all files.
        images: numbers of all images.
        others: numbers of those that are no images.
        where: wrappers and parts.
        places: of the images.
        contents: reads a file by its number.
        used: numbers of the images of all parts that are used.
        labels: whether classes are wanted; else captions alone.
        wanted: the file that is asked for, or None.
        label_column: see `ddpm.data.layout.tables`.
        numbers: the same.
    """

    path: str
    names: Sequence[str]
    images: Sequence[int]
    others: Sequence[int]
    where: Tree
    places: Mapping[int, Place]
    contents: Callable[[int], bytes]
    used: Sequence[int]
    labels: bool = True
    wanted: str | None = None
    label_column: str | None = None
    numbers: Sequence[str] = ()

    def of(self, part: str, images: Sequence[int]) -> Said:
        """What is said about the images of a part.

        Raises:
            ValueError: where a file of labels is damaged, labels none of the images or one of them twice.
        """
        own, here = Known(self.names, images), set(images)
        near = beside.beside(self.names, images, self.others)
        taken = {index for files in near.values() for index in files.values()}
        captions = beside.captions(near, self._words)
        found: dict[int, list[tuple[int, Labels]]] = {}
        notes: list[str] = []
        columns: list[str] = []
        for index in self._candidates(part, taken):
            # A name in a file of all parts is looked for in all of them: it may be that of several images.
            known = own if self._part_of(self.names[index]) else self._every
            said = self._read(index, known)
            if said is None:
                continue
            if known is not own:
                said = replace(said, classes=_of(said.classes, here), captions=_of(said.captions, here))
            captions = {**said.captions, **captions}
            columns += said.columns
            if not self.labels:
                continue
            if said.classes or said.problem:
                found.setdefault(_rank(self.names[index]), []).append((index, said))
            elif said.why_none:
                notes.append(f"{self.names[index]} {said.why_none}")
            elif not said.share and not self._is_of_others(index):
                raise self._refused(index, "labels none of the images")
        if found:
            return self._merged(found[min(found)], captions)
        if self.labels and self.wanted is None and (classes := beside.classes(near, self._words)):
            files = [f"the .{beside.LABEL} files beside the images"]
            return Said(classes, files, captions, [*notes, *self._read_as(taken)])
        return Said({}, [], captions, [*notes, *self._read_as(taken)], columns)

    def _candidates(self, part: str, taken: Collection[int]) -> list[int]:
        """The files that may speak of a part, dataset.json first."""
        inside = [place.path for place in self.places.values() if place.part == part]
        common = min(inside)[: _shared(min(inside), max(inside))] if inside else ()
        found = []
        for index in self.others:
            name = self.names[index]
            if self.wanted is not None:
                if name == self.wanted or name.endswith(f"/{self.wanted}"):
                    found.append(index)
            elif index not in taken and self._may_label(name) and self._is_near(name, part, common):
                found.append(index)
        if self.wanted is not None and not found:
            raise ValueError(
                f"data.labels={self.wanted}: there is no such file in {self.path}; it may be auto, folders, "
                "none or the name of a file there"
            )
        return [index for index in found if self._part_of(self.names[index]) in (None, part)]

    def _may_label(self, name: str) -> bool:
        said = splits.words(stem(name))
        if not NEVER.isdisjoint(said):
            return False
        end = suffix(name)
        if end == "txt":
            return not LISTS.isdisjoint(said) or splits.meaning(stem(name)) is not None
        return end == "json" or end in tables.SUFFIXES

    def _is_near(self, name: str, part: str, common: Folders) -> bool:
        """Whether it lies above all images of a part, or in a folder for such files there."""
        folder = folders_of(name)
        if folder and folder[-1].lower() in FOLDERS and suffix(name) != "txt":
            folder = folder[:-1]
        if folder == self.where.wrappers[: len(folder)]:
            return True
        place = self.where.place(folder)
        return place is not None and place.part == part and place.path == common[: len(place.path)]

    def _part_of(self, name: str) -> str | None:
        """The part that a file belongs to by where it lies or by its name, if it says so."""
        place = self.where.place(folders_of(name))
        if place is not None and place.part:
            return place.part
        means = splits.meaning(stem(name))
        return means if any(means == part for part, _ in self.where.parts.values()) else None

    @cached_property
    def _encodings(self) -> dict[int, str]:
        """Of the files that were read and are not in UTF-8."""
        return {}

    def _words(self, indices: Sequence[int]) -> list[str]:
        """What is in files of words that are alike."""
        contents = [self.contents(index) for index in indices]
        all_in = guessed(contents)
        found = [decoded(words, all_in) for words in contents]
        for index, (_, encoding) in zip(indices, found, strict=True):
            if encoding != UTF_8:
                self._encodings[index] = encoding
        return [words for words, _ in found]

    def _read_as(self, used: Iterable[int]) -> list[str]:
        """What to say about the encodings of files."""
        by: dict[str, list[str]] = {}
        for index in used:
            if index in self._encodings:
                by.setdefault(self._encodings[index], []).append(self.names[index])
        return [f"{listed(names, 3)} read as {encoding}, not being UTF-8" for encoding, names in by.items()]

    @cached_property
    def _every(self) -> Known:
        return Known(self.names, self.used)

    def _is_of_others(self, index: int) -> bool:
        """Whether it names images that are there and not used, as a table of another part does."""
        said = self._read(index, Known(self.names, self.images))
        return said is not None and said.share > 0

    def _read(self, index: int, known: Known) -> Labels | None:
        name = self.names[index]
        seen = known.seen_from(folders_of(name))
        end = suffix(name)
        try:
            contents = self.contents(index) if end == "parquet" else self._words([index])[0].encode(UTF_8)
            if end == "json":
                said = stylegan.read(contents, seen) or coco.read(contents, seen)
            else:
                said = tables.read(name, contents, seen, self.label_column, self.numbers)
        except Exception as error:  # each kind of file has errors of its own
            if not self.labels or (self.wanted is None and not _is_known(name)):
                return None
            raise self._refused(index, f"cannot be read ({short(error)})") from error
        if said is None and self.wanted is not None:
            read_as = f", read as {self._encodings[index]}," if index in self._encodings else ""
            raise self._refused(index, f"says nothing{read_as} about the images that are there")
        return said

    def _merged(self, found: Sequence[tuple[int, Labels]], captions: Mapping[int, str]) -> Said:
        """What several files of one kind say together."""
        classes: dict[int, str] = {}
        by: dict[int, int] = {}
        for index, said in found:
            if said.problem:
                raise self._refused(index, said.problem)
            for image, label in said.classes.items():
                if classes.setdefault(image, label) != label:
                    raise ValueError(
                        f"data.path={self.path}: {self.names[by[image]]} and {self.names[index]} give "
                        f"{self.names[image]} other labels; choose one, as in data.labels={self.names[index]}"
                    )
                by.setdefault(image, index)
        notes = [
            f"{self.names[index]} names {counted(said.missing)} not there"
            for index, said in found
            if said.missing
        ]
        files = [self.names[index] for index, _ in found]
        return Said(classes, files, captions, [*notes, *self._read_as(index for index, _ in found)])

    def _refused(self, index: int, why: str) -> ValueError:
        parts = {self.places[image].part for image in self.used if image in self.places}
        none = "or no classes by data.labels=none"
        if len(parts) > 1:
            none = "no classes by data.labels=none, or use one part alone by data.validation_split=none"
        return ValueError(
            f"data.path={self.path}: {self.names[index]} {why}; mend it, take the folders for classes by "
            f"data.labels=folders, another file by data.labels=FILE, {none}"
        )


def _of(said: Mapping[int, str], images: Collection[int]) -> dict[int, str]:
    return {index: value for index, value in said.items() if index in images}


def _rank(name: str) -> int:
    """Which of several files is believed: the lowest."""
    base = name.rpartition("/")[2].lower()
    if base == stylegan.NAME:
        return 0
    if stem(base) == METADATA:
        return 1
    return 3 if suffix(base) == "json" else 2


def _is_known(name: str) -> bool:
    """Whether a file is one of labels by its name alone."""
    return _rank(name) < 2


def _shared(first: Folders, last: Folders) -> int:
    """How many folders two paths have in common, from the outermost."""
    return next(
        (depth for depth, (one, other) in enumerate(zip(first, last, strict=False)) if one != other),
        min(len(first), len(last)),
    )
