"""Images as PNG files, as other programs read them from a folder: grey or RGB, named by index and class."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ddpm.runtime.writing import whole_folder
from ddpm.sampling.figures import png

DIGITS = 6
"""Of an index in a name, at least."""

MOST_OF_A_NAME = 100
"""Bytes that the name of a class may take; file systems allow 255 for all of a name."""

UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\s/\\:*?\"<>|]+")
"""What some file system, or a pattern in a shell, reads as something else."""


def names(n: int, classes: Sequence[str | None] | None = None) -> list[str]:
    """Names of the files of n images, which sort as the images are numbered: 000017_cat.png, 000017.png.

    Args:
        n: images.
        classes: the name of each one's class, None where it has none.
    """
    digits = max(DIGITS, len(str(n - 1)))
    given = [None] * n if classes is None else classes
    return [f"{i:0{digits}d}{'' if name is None else f'_{safe(name)}'}.png" for i, name in enumerate(given)]


def safe(name: str) -> str:
    """The name of a class as part of a file name: in any script, shortened if need be."""
    # a surrogate stands for a byte that is no text, which not every file system takes
    kept = UNSAFE.sub("_", name.encode("utf-8", "replace").decode("utf-8"))
    return kept.encode("utf-8")[:MOST_OF_A_NAME].decode("utf-8", "ignore")


def write_images(
    folder: Path, images: Iterable[np.ndarray], names: Sequence[str], on_image: Callable[[int], None]
) -> None:
    """Write a folder that is there when all of its images are. It takes memory for a part.

    Args:
        folder: which is not there.
        images: uint8 [N, H, W, C] at a time, as many as there are names.
        names: of the files.
        on_image: called with how many are written, after each.

    Raises:
        ddpm.runtime.writing.WriteError: where the disk refuses them.
    """
    numbered = enumerate(names)
    with whole_folder(folder) as temporary:
        for part in images:
            for image in part:
                i, name = next(numbered)
                (temporary / name).write_bytes(png(image))
                on_image(i + 1)
