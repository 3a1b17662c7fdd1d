"""dataset.json, as the tools of StyleGAN and EDM write it: names of images with their labels."""

import json
from collections.abc import Mapping

from ddpm.data.classes import one_hot
from ddpm.data.layout.labels import Labels, named, text
from ddpm.data.layout.match import Known
from ddpm.data.layout.names import counted

NAME = "dataset.json"


def read(contents: bytes, images: Known) -> Labels | None:
    """What it says; None where it is another file of that name, or holds no labels.

    A label is a whole number, or a vector of which one element is 1 and all others are 0. Others, such as the
    camera angles of a face, are no classes.

    Raises:
        ValueError: where it is damaged.
    """
    found = json.loads(contents)
    labels = found.get("labels") if isinstance(found, dict) else None
    pairs = list(labels.items()) if isinstance(labels, Mapping) else labels
    if not isinstance(pairs, list) or not pairs:
        return None
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        return None
    classes = [text(value if isinstance(value, (int, str)) else one_hot(value)) for _, value in pairs]
    if vectors := classes.count(""):
        return Labels(why_none=f"gives {counted(vectors)} numbers that are no class", share=1.0)
    return named([(str(name), label) for (name, _), label in zip(pairs, classes, strict=True)], images)
