"""Images that are decoded, cropped and resized once, and from then on mapped from the cache."""

import json
import logging
import math
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm.data.holdout import num_training
from ddpm.data.images import DataSet, ImageSet, survey
from ddpm.data.paths import is_url
from ddpm.data.pixels.decoding import EMPTY, NO_IMAGE, Decoded
from ddpm.data.prepared import cache
from ddpm.data.prepared.cache import Cache, FileState, NoRoomError, size_in_words
from ddpm.data.prepared.earlier import CONDITION_RECORDS, RECORDS, Earlier, joined
from ddpm.data.prepared.image_file import ImageFile
from ddpm.data.prepared.records import RECORD, Records, hashed
from ddpm.data.settings import ImageSettings
from ddpm.data.skipped import NAMED, Skipped, printable
from ddpm.runtime.progress import Countdown

logger = logging.getLogger(__name__)

LEFT_OUT = "left_out.json"
VECTORS = "vectors.npy"
NAMED_CLASSES = 10
SHOWN_EVERY = 16

TRIED = 100
"""Files after which it is reckoned how much room all of them need."""

LEAST_FILLED = 0.1
"""Images whose numbers fill less of their range than this are warned of: they look black, or all alike."""

Label = Callable[[np.ndarray], tuple[np.ndarray | None, Sequence[str] | None]]


class Understood(NamedTuple):
    """What says which images are for what: ends of sentences, such as "the folder train".

    Attributes:
        train: of the images to train on.
        validation: of those held out.
        classes: of their classes, or why there are none.
    """

    train: str = ""
    validation: str = ""
    classes: str = ""


UNKNOWN = Understood()


@dataclass(frozen=True)
class Partners:
    """Images that others are conditioned on: one for each image of `Found`.

    Attributes:
        names: of the N images, for people.
        read: from their numbers, ascending, to what each is, or to the reason why it cannot be read.
        of: int64 [N], the number of the image in `Found` that each belongs to.
        key: that named them, for messages.
        channels: 1 is grey, 3 is colour; see `ImageSettings`.
        states: as in `Found`.
        understood: what they are, the beginning of a sentence.
    """

    names: Sequence[str]
    read: Callable[[Sequence[int]], Iterator[Decoded | str]]
    of: np.ndarray
    key: str
    channels: int | None = None
    states: Sequence[str] | None = None
    understood: str = ""


@dataclass(frozen=True)
class Vectors:
    """Numbers that images are conditioned on.

    Attributes:
        values: float32 [N, D], of the images of `Found`.
        names: of the D numbers.
        understood: what they are, the beginning of a sentence.
    """

    values: np.ndarray
    names: Sequence[str]
    understood: str = ""


@dataclass(frozen=True)
class Found:
    """What a source has found, before it is stored.

    Attributes:
        names: of N images, for people.
        read: from numbers of images, ascending, to what each is, or to the reason why it cannot be read.
        positions: int64 [N], where each goes, ascending in the order in which images are kept; all differ.
        label: from the images that could be read, int64 [K] in the order of their positions, to their labels
            int64 [K] and the names of the classes.
        nothing: what to say where no image can be read.
        cut: positions from here on are for validation; None leaves it to a share.
        channels: see `ImageSettings`.
        states: of the N images, each another whenever the contents of that image may be; None where this is
            not known.
        captions: of the N images; None where there are none.
        left_out: name and reason of what is there and is not among the N.
        understood: see `Understood`.
        partners: what each image is conditioned on; None for nothing, as of `vectors`.
        vectors: the same of numbers.
    """

    names: Sequence[str]
    read: Callable[[Sequence[int]], Iterator[Decoded | str]]
    positions: np.ndarray
    label: Label
    nothing: str
    cut: int | None = None
    channels: int | None = None
    states: Sequence[str] | None = None
    captions: Sequence[str | None] | None = None
    left_out: Sequence[tuple[str, str]] = ()
    understood: Understood = UNKNOWN
    partners: Partners | None = None
    vectors: Vectors | None = None


def prepared(
    settings: ImageSettings,
    name: str,
    identity: Mapping[str, Any],
    files: Iterable[FileState],
    find: Callable[[Path], Found],
) -> DataSet:
    """The images of a source, from the cache; found and stored first where they are not there yet.

    Where the same source was prepared in the same way before, and other files lay there, the images that are
    as they were (by name and state) are copied, and only the others are read.

    Args:
        settings: of the source; its `path`, if it has one, is where the files lie.
        name: of the entry, for people.
        identity: what the source is, beside its settings: where it is, and what is chosen of it.
        files: the state of all that it is prepared from.
        find: called only where there is something to store, with a folder for what is needed meanwhile.

    Raises:
        ValueError: where nothing can be read, sizes differ, the cache cannot be written, there is no room for
            the images, or by `on_error`.
    """
    asked = {
        "identity": dict(identity),
        "settings": {
            **{name: value for name, value in asdict(settings.shaping).items() if name != "side"},
            "split": settings.split,
            "validation_split": settings.validation_split,
        },
    }
    family = cache.key(asked, [])
    entries = Cache(settings.cache_dir, settings.cache_limit)
    source = _local_path(settings)
    state = cache.state(source) if source is not None and source.is_file() else None

    def build(directory: Path) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            about = _store(find(Path(scratch)), directory, settings.on_error, entries, family)
        return {
            "name": name,
            "source": None if source is None else str(source),
            "source_state": None if state is None else state[1:],
            "family": family,
            **asked,
            **about,
        }

    entry = entries.get(name, cache.key(asked, files), build)
    about = entry.about
    images = np.memmap(entry.path / "images.u8", np.uint8, "r", shape=tuple(about["shape"]))
    weakref.finalize(images, entry.release)  # in use as long as it is mapped
    labels = np.load(entry.path / "labels.npy", mmap_mode="r") if about["labels"] else None
    vectors = np.load(entry.path / VECTORS, mmap_mode="r") if VECTORS in about["files"] else None
    captions = _read_json(entry.path / "captions.json") if about["captions"] else None
    left_out: dict[str, list[tuple[str, str]]] = {"skipped": [], "others": []}
    if LEFT_OUT in about["files"]:
        left_out = _read_json(entry.path / LEFT_OUT)
    skipped = Skipped(settings.on_error, [(name, reason) for name, reason in left_out["skipped"]])
    if skipped:
        logger.warning("skipped %s of %s files", f"{len(skipped):,}", f"{about['files_found']:,}")
    if others := [(name, reason) for name, reason in left_out["others"]]:
        logger.warning("left out %s beside the %s images", f"{len(others):,}", f"{about['files_found']:,}")
    if differing := about.get("differing"):
        logger.warning("%s", differing)
    if unused_range := _unused_range(about["facts"]):
        logger.warning("%s: %s", source or name, unused_range)
    cut = about["cut"] or num_training(len(images), settings.validation_fraction)
    whole = ImageSet(images, labels, vectors)
    train, validation = whole.subset(slice(0, cut)), whole.subset(slice(cut, None))
    return DataSet(
        train,
        validation,
        about["classes"],
        [*skipped, *others],
        captions,
        _sentences(Understood(*about["understood"]), len(train), len(validation), about, settings),
        about["facts"],
        window=settings.shaping.window,
        condition_channels=about.get("condition_channels", 0),
        vector_names=about.get("vector_names"),
    )


def _local_path(settings: ImageSettings) -> Path | None:
    """Where the files of a source lie on this machine; None where they come from elsewhere."""
    path = getattr(settings, "path", None)
    if path is None or is_url(path):
        return None
    return Path(os.path.realpath(os.path.expanduser(path)))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _unused_range(facts: Mapping[str, Any]) -> str | None:
    """What to say where the numbers of all images fill only a little of their range."""
    if not facts["filled"] < LEAST_FILLED:
        return None
    (low, high), (lowest, highest) = facts["values"], facts["limits"]
    of = f"in a range from {_plain(lowest)} to {_plain(highest)}"
    if low == high:
        return f"every number of these images is {_plain(low)}, {of}: they are all of one colour"
    low_typed, high_typed = _plain(low, ROUND_FLOOR), _plain(high, ROUND_CEILING)
    return (
        f"the numbers of these images reach from {_plain(low)} to {_plain(high)}, {of}: little can be "
        f"seen of them; data.value_range=[{low_typed},{high_typed}] takes what is there for the range"
    )


def _plain(number: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """A number as a person would type it: whole from 100 on, else of three digits."""
    if not math.isfinite(number) or number.is_integer():
        return f"{number + 0.0:.0f}"  # of the two zeros the one without a sign
    single = np.float32(number)
    exact = Decimal(str(single) if float(single) == number else repr(number))
    if abs(number) >= 100:
        return str(exact.to_integral_value(rounding))
    return f"{float(Context(prec=3, rounding=rounding).plus(exact)):g}"


def _sentences(
    understood: Understood, train: int, validation: int, about: Mapping[str, Any], settings: ImageSettings
) -> list[str]:
    """What was made of prepared images, for people."""
    held_out = understood.validation or f"a share of {settings.validation_fraction:g}"
    lines = sentences(understood._replace(validation=held_out), train, validation, about["classes"])
    lines += [f"condition: {about['condition']}"] if about.get("condition") else []
    return [*lines, "captions: kept beside the images; nothing uses them yet"] if about["captions"] else lines


def sentences(
    understood: Understood, train: int, validation: int, classes: Sequence[str] | None
) -> list[str]:
    """What was made of a source, for people: its parts and its classes, a line each."""
    lines = [
        f"images: {train:,} to train on{_from(understood.train)}, {validation:,} held out"
        f"{_from(understood.validation)}"
    ]
    if classes is None:
        return [*lines, f"classes: none{_from(understood.classes)}"]
    named = ", ".join(printable(name) for name in classes[:NAMED_CLASSES])
    more = ", ..." if len(classes) > NAMED_CLASSES else ""
    return [*lines, f"classes: {len(classes):,}{_from(understood.classes)}: {named}{more}"]


def _from(what: str) -> str:
    return f" ({what})" if what else ""


def _store(found: Found, directory: Path, on_error: str, entries: Cache, family: str) -> Mapping[str, Any]:
    """Write the images into a folder, and say what they are."""
    started = time.monotonic()
    skipped = Skipped(on_error)
    for name, reason in found.left_out[:NAMED]:
        logger.warning("left out %s: %s", printable(name), reason)
    partners = found.partners
    with ExitStack() as stack:
        file = stack.enter_context(closing(ImageFile(directory / "images.u8", found.channels)))
        images = _Written.of(found, file, found.positions, skipped, entries, family)
        others = beside = None
        if partners is not None:
            key = "data.condition.channels"
            beside = stack.enter_context(
                closing(ImageFile(directory / "partners.u8", partners.channels, key))
            )
            positions = found.positions[partners.of]
            others = _Written.of(partners, beside, positions, skipped, entries, family)
            _check_sizes(file.size, beside.size, partners.key)
        filled = np.flatnonzero((images.at >= 0) & (others is None or others.at >= 0))
        taken = images.at[filled]
        cut = None if found.cut is None else int(np.searchsorted(filled, found.cut))
        if not len(filled):
            raise ValueError(_nothing(found, skipped))
        if cut in (0, len(filled)):
            raise ValueError(_empty_part(found, skipped, validates=cut > 0))
        shape, added = file.finish(filled), 0
        if beside is not None:
            added = beside.finish(filled)[1]
            _check_room(directory, shape[0] * added * shape[2] * shape[3], entries)
            file.append_channels(beside, shape[0], shape[1:], added)
            shape = (shape[0], shape[1] + added, *shape[2:])
    (directory / "partners.u8").unlink(missing_ok=True)
    labels, classes = found.label(taken)
    if labels is not None:
        np.save(directory / "labels.npy", labels.astype(np.int64))
    vectors = None if found.vectors is None else found.vectors.values[taken]
    if vectors is not None:
        np.save(directory / VECTORS, vectors)
    if found.captions is not None:
        captions = [found.captions[index] for index in taken]
        (directory / "captions.json").write_text(json.dumps(captions), encoding="utf-8")
    about: dict[str, Any] = {}
    if found.states is not None:
        np.save(directory / RECORDS, images.records.rows[taken])
    if others is not None and partners is not None:
        other = others.at[filled]
        if partners.states is not None:
            np.save(directory / CONDITION_RECORDS, others.records.rows[other])
        about = {
            "condition": f"{added} channel{'s' if added > 1 else ''} of {partners.understood}",
            "condition_channels": added,
            "condition_modes": others.records.modes,
            "differing": _differing(found, images, partners, others, filled),
        }
    if found.vectors is not None:
        names = list(found.vectors.names)
        of = f"{len(names):,} number{'s' if len(names) > 1 else ''} of each image"
        about = {"condition": f"{of}, {found.vectors.understood}", "vector_names": names}
    if skipped or found.left_out:
        left_out = {"skipped": list(skipped), "others": list(found.left_out)}
        (directory / LEFT_OUT).write_text(json.dumps(left_out), encoding="utf-8")
    stored = ImageSet(np.memmap(directory / "images.u8", np.uint8, "r", shape=shape), labels, vectors)
    facts = {**survey([stored], added), **images.records.facts(np.sort(taken))}
    seconds = time.monotonic() - started
    if images.reused:
        new = len(filled) - images.reused
        reused = f"{images.reused:,}"
        logger.info("prepared %s new images, %s as they were, in %.1f s", f"{new:,}", reused, seconds)
    else:
        logger.info("prepared %s images in %.1f s", f"{len(filled):,}", seconds)
    return {
        "shape": list(shape),
        "labels": labels is not None,
        "captions": found.captions is not None,
        "classes": None if classes is None else list(classes),
        "cut": cut,
        "files_found": len(found.positions),
        "skipped": len(skipped),
        "left_out": len(found.left_out),
        "understood": list(found.understood),
        "modes": images.records.modes,
        "facts": facts,
        **about,
    }


class _Written(NamedTuple):
    """Images that were written into a file.

    Attributes:
        records: of all that were found.
        at: int64 [P], the number of the image at each position; -1 where there is none.
        reused: how many were taken over.
    """

    records: Records
    at: np.ndarray
    reused: int

    @classmethod
    def of(
        cls,
        found: Found | Partners,
        file: ImageFile,
        positions: np.ndarray,
        skipped: Skipped,
        entries: Cache,
        family: str,
    ) -> "_Written":
        """Write what can be read, each image at its position."""
        count = len(positions)
        records = Records(np.zeros(count, RECORD))
        at = np.full(1 + int(positions.max(initial=-1)), -1, np.int64)
        earlier, where = _earlier(found, entries, family), np.full(count, -1, np.int64)
        if found.states is not None:
            records.rows["state"] = hashed(found.names, found.states)
        with ExitStack() as stack:
            if earlier is not None:
                stack.enter_context(closing(earlier))
                where = earlier.find(records.rows["state"])
            images = zip(found.names, joined(earlier, where, found.read), strict=True)
            for index, (name, image) in enumerate(_with_progress(images, count)):
                if isinstance(image, str):
                    skipped.add(name, image.replace("data.channels", file.key))
                else:
                    file.put(int(positions[index]), image.pixels, name)
                    at[positions[index]] = index
                    records.put(index, image)
                if index + 1 == TRIED:
                    share = (TRIED - len(skipped)) / TRIED
                    needed = round(share * (count - TRIED)) * file.image_bytes
                    _check_room(file.path.parent, needed, entries)
        return cls(records, at, int((where >= 0).sum()))


def _check_sizes(own: tuple[int, int] | None, other: tuple[int, int] | None, key: str) -> None:
    """Refuse images and partners that are not as large as each other."""
    if own is not None and other is not None and own != other:
        (h, w), (height, width) = own, other
        raise ValueError(
            f"data.image_size is not set, and the images are {h}x{w}, but those of {key} {height}x{width}; "
            f"set it, as in data.image_size={min(h, w)}, and both are brought to it"
        )


def _differing(
    found: Found, images: _Written, partners: Partners, others: _Written, filled: np.ndarray
) -> str | None:
    """What to say where images and their partners were not alike in size or shape before."""
    own = images.records.rows["size"][images.at[filled]].astype(np.int64)
    other = others.records.rows["size"][others.at[filled]].astype(np.int64)
    is_of_another_aspect = own[:, 0] * other[:, 1] != own[:, 1] * other[:, 0]
    for differs, what, so in (
        (is_of_another_aspect, "aspect", "their contents may not lie over each other"),
        ((own != other).any(1), "size", "both are brought to one"),
    ):
        if not differs.any():
            continue
        first = int(np.flatnonzero(differs)[0])
        named = (found.names[images.at[filled[first]]], partners.names[others.at[filled[first]]])
        sizes = ["x".join(map(str, one[first].tolist())) for one in (own, other)]
        return (
            f"{partners.key}: {int(differs.sum()):,} of {len(filled):,} pairs differ in {what}, and {so}; "
            f"the first: {printable(named[0])} is {sizes[0]}, and {printable(named[1])} {sizes[1]} (height x "
            "width)"
        )
    return None


def _nothing(found: Found, skipped: Skipped) -> str:
    """What to say where no image could be read, with the first reason that says what to do."""
    name, reason = next((one for one in skipped if one[1] not in (NO_IMAGE, EMPTY)), ("", ""))
    return f"{found.nothing}; the first, {printable(name)}: {reason}" if name else found.nothing


def _empty_part(found: Found, skipped: Skipped, *, validates: bool) -> str:
    """What to say where no image of a part could be read, with the first reason."""
    assert found.cut is not None
    key, where = (
        ("validation_split", found.understood.validation) if validates else ("split", found.understood.train)
    )
    where = where.partition(";")[0]
    at = dict(zip(found.names, found.positions >= found.cut, strict=True))
    if found.partners is not None:
        at |= {
            name: at[found.names[of]]
            for name, of in zip(found.partners.names, found.partners.of, strict=True)
        }
    name, reason = next((one for one in skipped if at[one[0]] == validates), ("", ""))
    other = ", or hold out a share by data.validation_split=none" if validates else ""
    return (
        f"data.{key}: none of the images of {where or 'this part'} can be read; the first, "
        f"{printable(name)}: {reason}; mend them, or choose another part by data.{key}{other}"
    )


def _earlier(found: Found | Partners, entries: Cache, family: str) -> Earlier | None:
    """What was prepared of the same source before, if it says which image is which."""
    entry = None if found.states is None else entries.latest(family)
    if entry is None:
        return None
    are_partners = isinstance(found, Partners)
    if (CONDITION_RECORDS if are_partners else RECORDS) not in entry.about["files"]:
        entry.release()
        return None
    return Earlier(entry, conditions=are_partners)


def _check_room(directory: Path, needed: int, entries: Cache) -> None:
    """Refuse to begin what there is no room for.

    Args:
        directory: that the images are written into.
        needed: bytes that they will still take.
        entries: of which some could go.

    Raises:
        NoRoomError: where less is free.
    """
    total, _, free = shutil.disk_usage(directory)
    if needed <= free or not total:  # some file systems do not say
        return
    spare = entries.spare()
    prune = f" (python -m ddpm cache prune 0 frees {size_in_words(spare)})" if spare else ""
    raise NoRoomError(
        f"data.cache_dir={entries.directory}: the prepared images need {size_in_words(needed)} more there, "
        f"and {size_in_words(free)} are free; make room{prune}, or name another folder with data.cache_dir= "
        "or DDPM_CACHE"
    )


def _with_progress(images: Iterable[tuple[str, Any]], count: int) -> Iterator[tuple[str, Any]]:
    """The same images; how far they are is shown."""
    with Countdown("preparing images", count) as countdown:
        for index, image in enumerate(images):
            yield image
            if index % SHOWN_EVERY == 0:  # small images come faster than a terminal is worth
                countdown.advance(index + 1)
