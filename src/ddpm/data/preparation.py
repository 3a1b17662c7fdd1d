"""Images that are decoded, cropped and resized once, and from then on mapped from the cache."""

import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm.data import cache
from ddpm.data.cache import FileState
from ddpm.data.decoding import Decoded
from ddpm.data.holdout import num_training
from ddpm.data.images import DataSet, ImageSet, survey
from ddpm.data.quantiles import quantiles
from ddpm.data.settings import ImageSettings
from ddpm.data.skipped import Skipped, printable
from ddpm.runtime.progress import Countdown

logger = logging.getLogger(__name__)

LISTED_SIZES = 20
NAMED_CLASSES = 10
COPIED_AT_ONCE = 1 << 24
SHOWN_EVERY = 16

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
        channels: 1 or 3; None is 1 if every image is grey, else 3.
        states: of the N images, each another whenever the contents of that image may be; None where this is
            not known.
        captions: of the N images; None where there are none.
        left_out: name and reason of what is there and is not among the N.
        understood: see `Understood`.
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


def prepared(
    settings: ImageSettings,
    name: str,
    identity: Mapping[str, Any],
    files: Iterable[FileState],
    find: Callable[[Path], Found],
) -> DataSet:
    """The images of a source, from the cache; found and stored first where they are not there yet.

    Args:
        settings: of the source.
        name: of the entry, for people.
        identity: what the source is, beside its settings: where it is, and what is chosen of it.
        files: the state of all that it is prepared from.
        find: called only where there is something to store, with a folder for what is needed meanwhile.

    Raises:
        ValueError: where nothing can be read, sizes differ, the cache cannot be written, or by `on_error`.
    """
    shaping = asdict(settings.shaping)
    parts = [settings.split, settings.validation_split]
    key = cache.key({"source": dict(identity), "shaping": shaping, "parts": parts}, files)

    def build(directory: Path) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            return _store(find(Path(scratch)), directory, settings.on_error)

    entry = cache.Cache(settings.cache_dir).get(name, key, build)
    about = entry.about
    skipped = Skipped(settings.on_error, [(name, reason) for name, reason in about["skipped"]])
    if skipped:
        logger.warning("skipped %s of %s files", f"{len(skipped):,}", f"{about['files_found']:,}")
    images = np.memmap(entry.path / "images.u8", np.uint8, "r", shape=tuple(about["shape"]))
    labels = np.load(entry.path / "labels.npy", mmap_mode="r") if about["labels"] else None
    captions = None
    if about["captions"]:
        captions = json.loads((entry.path / "captions.json").read_text(encoding="utf-8"))
    cut = about["cut"] or num_training(len(images), settings.validation_fraction)
    whole = ImageSet(images, labels)
    train, validation = whole.subset(slice(0, cut)), whole.subset(slice(cut, None))
    return DataSet(
        train,
        validation,
        about["classes"],
        skipped,
        captions,
        _sentences(Understood(*about["understood"]), len(train), len(validation), about, settings),
        about["facts"],
        window=settings.shaping.window,
    )


def _sentences(
    understood: Understood, train: int, validation: int, about: Mapping[str, Any], settings: ImageSettings
) -> list[str]:
    """What was made of a source, for people: its parts and its classes, a line each."""
    share = f"a share of {settings.validation_fraction:g}"
    held_out = understood.validation or share
    lines = [
        f"images: {train:,} to train on{_from(understood.train)}, {validation:,} held out{_from(held_out)}"
    ]
    classes = about["classes"]
    if classes is None:
        lines.append(f"classes: none{_from(understood.classes)}")
    else:
        named = ", ".join(printable(name) for name in classes[:NAMED_CLASSES])
        more = ", ..." if len(classes) > NAMED_CLASSES else ""
        lines.append(f"classes: {len(classes):,}{_from(understood.classes)}: {named}{more}")
    if about["captions"]:
        lines.append("captions: kept beside the images; nothing uses them yet")
    return lines


def _from(what: str) -> str:
    return f" ({what})" if what else ""


def _store(found: Found, directory: Path, on_error: str) -> Mapping[str, Any]:
    """Write the images into a folder, and say what they are."""
    started = time.monotonic()
    count = len(found.positions)
    skipped = Skipped(on_error)
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    originals: list[tuple[int, int]] = []
    source_at = np.full(1 + max(found.positions, default=-1), -1, np.int64)
    store = _Store(directory / "images.u8", len(source_at), found.channels)
    with store.file:
        images = zip(found.names, found.read(range(count)), strict=True)
        for index, (name, image) in enumerate(_with_progress(images, count)):
            if isinstance(image, str):
                skipped.add(name, image)
                continue
            position = found.positions[index]
            store.put(int(position), image.pixels, name)
            source_at[position] = index
            sizes["{}x{}".format(*image.size)] += 1
            originals.append(image.size)
            modes[image.mode] += 1
    filled = np.flatnonzero(source_at >= 0)
    kept = source_at[filled]
    cut = None if found.cut is None else int(np.searchsorted(filled, found.cut))
    if not len(filled) or cut == 0:
        raise ValueError(found.nothing)
    shape = store.finish(filled)
    labels, classes = found.label(kept)
    if labels is not None:
        np.save(directory / "labels.npy", labels.astype(np.int64))
    if found.captions is not None:
        captions = json.dumps([found.captions[index] for index in kept], ensure_ascii=False)
        (directory / "captions.json").write_text(captions, encoding="utf-8")
    stored = ImageSet(np.memmap(store.path, np.uint8, "r", shape=shape), labels)
    facts = {
        **survey([stored]),
        "sizes": dict(sizes.most_common(LISTED_SIZES)),
        "other_sizes": max(0, len(sizes) - LISTED_SIZES),
        "modes": dict(modes.most_common()),
        **quantiles(np.array(originals)),
    }
    logger.info("prepared %s images in %.1f s", f"{len(filled):,}", time.monotonic() - started)
    return {
        "shape": list(shape),
        "labels": labels is not None,
        "captions": found.captions is not None,
        "classes": None if classes is None else list(classes),
        "cut": cut,
        "files_found": count,
        "skipped": list(skipped),
        "left_out": list(found.left_out),
        "understood": list(found.understood),
        "facts": facts,
    }


class _Store:
    """A file of bytes that images are written into, each at its position.

    Plain writes, since a full disk then is an error; in a memory map it would kill the process.
    """

    def __init__(self, path: Path, count: int, channels: int | None):
        self.path = path
        self.file = path.open("w+b")
        self.count = count
        self.channels = channels
        self.size: tuple[int, int] | None = None
        self.is_colour = channels == 3

    def put(self, position: int, pixels: np.ndarray, name: str) -> None:
        """Write uint8 [C, H, W]; `name` is for the error where its size is another than that of the first."""
        height, width = pixels.shape[1:]
        if self.size is None:
            self.size = height, width
        if (height, width) != self.size:
            h, w = self.size
            raise ValueError(
                f"data.image_size is not set, and the images differ in size: {printable(name)} is "
                f"{height}x{width}, those before it {h}x{w}; set it, as in data.image_size={min(h, w)}"
            )
        self.is_colour |= len(pixels) == 3
        stored = self.channels or 3
        self.file.seek(position * stored * height * width)
        self.file.write(np.broadcast_to(pixels, (stored, height, width)).tobytes())

    def finish(self, filled: np.ndarray) -> tuple[int, int, int, int]:
        """Close the gaps, and drop colour where there is none: the shape [N, C, H, W] of what is left."""
        stored, channels = self.channels or 3, 3 if self.is_colour else 1
        shape = (len(filled), channels, *(self.size or (1, 1)))
        if len(filled) == self.count and channels == stored:
            return shape
        images = np.memmap(self.path, np.uint8, "r", shape=(int(filled[-1]) + 1, stored, *shape[2:]))
        final = self.path.with_suffix(".final")
        at_once = max(1, COPIED_AT_ONCE // images[0].nbytes)
        with final.open("wb") as file:
            for first in range(0, len(filled), at_once):
                file.write(images[filled[first : first + at_once], :channels].tobytes())
        final.replace(self.path)
        return shape


def _with_progress(images: Iterable[tuple[str, Any]], count: int) -> Iterator[tuple[str, Any]]:
    """The same images; how far they are is shown."""
    with Countdown("preparing images", count) as countdown:
        for index, image in enumerate(images):
            yield image
            if index % SHOWN_EVERY == 0:  # small images come faster than a terminal is worth
                countdown.advance(index + 1)
