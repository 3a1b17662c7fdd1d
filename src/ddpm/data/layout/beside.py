"""Files beside images, called as these are: captions, labels, and what img2dataset writes."""

import json
import re
from collections.abc import Callable, Mapping, Sequence

from ddpm.data.layout.names import suffix

CAPTIONS = ("caption", "txt", "text")
LABEL = "cls"
META = "json"

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


def captions(found: Mapping[int, Mapping[str, int]], contents: Callable[[int], bytes]) -> dict[int, str]:
    """The captions of images, by their numbers."""
    ends = ((image, next((one for one in (*CAPTIONS, META) if one in found[image]), None)) for image in found)
    wanted = ((found[image][end], image, end) for image, end in ends if end is not None)
    said = {}
    for file, image, end in sorted(wanted):  # a compressed archive is read from its beginning to go back
        words = contents(file).decode("utf-8-sig", "replace").strip()
        caption = _in_json(words) if end == META else words
        if caption and not BOXES.fullmatch(caption):
            said[image] = caption
    return said


def classes(found: Mapping[int, Mapping[str, int]], contents: Callable[[int], bytes]) -> dict[int, str]:
    """The labels of images, by their numbers."""
    wanted = sorted((files[LABEL], image) for image, files in found.items() if LABEL in files)
    said = {image: contents(file).decode("utf-8-sig", "replace").strip() for file, image in wanted}
    return {image: label for image, label in said.items() if label}


def _in_json(words: str) -> str:
    try:
        found = json.loads(words)
    except ValueError:
        return ""
    said = found.get("caption") or found.get("text") if isinstance(found, dict) else None
    return said.strip() if isinstance(said, str) else ""
