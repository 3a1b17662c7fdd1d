"""Files beside images, called as these are: captions, labels, and what img2dataset writes."""

import json
import re
from collections.abc import Callable, Mapping, Sequence

from ddpm.data.layout.names import suffix

CAPTIONS = ("caption", "txt", "text")
LABEL = "cls"
META = "json"

Words = Callable[[Sequence[int]], Sequence[str]]
"""What is in files, by their numbers."""

BOXES = re.compile(r"(\s*\d+(\s+[-+.0-9eE]+){4,}\s*)+")
"""How YOLO writes boxes, a line each; no caption."""


def beside(names: Sequence[str], images: Sequence[int], others: Sequence[int]) -> dict[int, dict[str, int]]:
    """The files beside images that are called as these are, by image and suffix."""
    ends = (*CAPTIONS, LABEL, META)
    by_stem: dict[str, dict[str, int]] = {}
    for index in others:
        end = suffix(names[index])
        if end in ends:
            by_stem.setdefault(names[index][: -len(end) - 1], {})[end] = index
    stems = ((index, names[index][: -len(suffix(names[index])) - 1]) for index in images)
    return {index: by_stem[one] for index, one in stems if one in by_stem}


def captions(found: Mapping[int, Mapping[str, int]], words: Words) -> dict[int, str]:
    """The captions of images, by their numbers."""
    ends = ((image, next((one for one in (*CAPTIONS, META) if one in found[image]), None)) for image in found)
    # a compressed archive is read from its beginning to go back
    wanted = sorted((found[image][end], image, end) for image, end in ends if end is not None)
    every = words([file for file, _, _ in wanted])
    said = {}
    for (_, image, end), text in zip(wanted, map(str.strip, every), strict=True):
        caption = _in_json(text) if end == META else text
        if caption and not BOXES.fullmatch(caption):
            said[image] = caption
    return said


def classes(found: Mapping[int, Mapping[str, int]], words: Words) -> dict[int, str]:
    """The labels of images, by their numbers."""
    wanted = sorted((files[LABEL], image) for image, files in found.items() if LABEL in files)
    every = words([file for file, _ in wanted])
    said = ((image, text.strip()) for (_, image), text in zip(wanted, every, strict=True))
    return {image: label for image, label in said if label}


def _in_json(words: str) -> str:
    try:
        found = json.loads(words)
    except ValueError:
        return ""
    said = found.get("caption") or found.get("text") if isinstance(found, dict) else None
    return said.strip() if isinstance(said, str) else ""
