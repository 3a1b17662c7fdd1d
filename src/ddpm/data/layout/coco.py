"""COCO's annotations: categories and captions of images."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ddpm.data.layout.labels import Labels, named, several
from ddpm.data.layout.match import Known


def read(contents: bytes, images: Known) -> Labels | None:
    """What they say; None where it is another kind of file.

    An image has a class where all its annotations are of one category. Where one image has several, none has
    a class. Of several captions of an image the first is kept.

    Raises:
        ValueError: where it is damaged.
    """
    found = json.loads(contents)
    if not isinstance(found, dict) or not isinstance(found.get("images"), list):
        return None
    files = {
        one["id"]: str(one["file_name"])
        for one in _dicts(found, "images")
        if {"id", "file_name"} <= one.keys()
    }
    if not files or not isinstance(found.get("annotations"), list):
        return None
    names = {one.get("id"): str(one.get("name", one.get("id"))) for one in _dicts(found, "categories")}
    categories: dict[Any, set[str]] = defaultdict(set)
    captions: dict[Any, str] = {}
    for one in _dicts(found, "annotations"):
        image = one.get("image_id")
        if isinstance(one.get("caption"), str):
            captions.setdefault(image, one["caption"].strip())
        elif "category_id" in one:
            categories[image].add(names.get(one["category_id"], str(one["category_id"])))
    many = sum(len(one) > 1 for one in categories.values())
    classes = {} if many else {image: min(one) for image, one in categories.items()}
    labels = named([(file, classes.get(image)) for image, file in files.items()], images)
    at = ((images.find(files[image]), caption) for image, caption in captions.items() if image in files)
    return replace(
        labels,
        captions={index: caption for index, caption in at if isinstance(index, int)},
        why_none=several(many) if many else "",
    )


def _dicts(found: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
    within = found.get(key)
    return (one for one in (within if isinstance(within, list) else []) if isinstance(one, dict))
