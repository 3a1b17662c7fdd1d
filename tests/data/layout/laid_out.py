"""Sets of files that are names and contents alone, and what is made of them."""

import json
from collections.abc import Iterable, Mapping

from ddpm.data.layout.decision import Asked, Layout, decide
from ddpm.data.layout.names import sort


def images(*folders: str, n: int = 2, end: str = "png") -> list[str]:
    return [f"{folder}/{i}.{end}" if folder else f"{i}.{end}" for folder in folders for i in range(n)]


CATS_DOGS = images("cat", "dog")


def under(*folders: str, names: Iterable[str] = CATS_DOGS) -> list[str]:
    return [f"{folder}/{name}" for folder in folders for name in names]


def laid_out(
    names: Iterable[str],
    there: Iterable[str] = (),
    files: Mapping[str, object] | None = None,
    **asked: object,
) -> tuple[list[str], Layout]:
    """The names of a set, and what it is.

    Args:
        names: of images.
        there: folders without any.
        files: side files with their contents: bytes, text, or what is written as JSON.
        asked: settings.
    """
    files = files or {}
    every = [*names, *files]
    folders = [tuple(folder.split("/")) for folder in there]

    def contents(index: int) -> bytes:
        found = files[every[index]]
        if isinstance(found, bytes):
            return found
        return (found if isinstance(found, str) else json.dumps(found)).encode()

    return every, decide(every, sort(every), folders, Asked("SET", **asked), contents)


def meant(*args: object, **kwargs: object) -> tuple[dict, dict | None]:
    """Class by name of the images to train on, and of those to validate on; None where that is a share."""
    every, found = laid_out(*args, **kwargs)
    classes = found.classes or {}
    train = {every[i]: classes.get(i) for i in found.train}
    validation = None if found.validation is None else {every[i]: classes.get(i) for i in found.validation}
    return train, validation


def by_class(*args: object, **kwargs: object) -> list[dict | None]:
    """Number of images by class, of each part that is used."""
    counts = []
    for part in meant(*args, **kwargs):
        values = None if part is None else list(part.values())
        counts.append(
            None if values is None else {name: values.count(name) for name in sorted(set(values), key=str)}
        )
    return counts
