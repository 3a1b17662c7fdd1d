"""The data of a configuration, read and described."""

from collections.abc import Mapping
from typing import Any

from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.targets import build


def build_data(config: Mapping[str, Any]) -> ImageDataModule:
    """The data module, its pictures read.

    Raises:
        UsageError: where there are no pictures.
    """
    data: ImageDataModule = build("data", config["data"], seed=config["seed"])
    try:
        _ = data.data_set
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    return data


def describe(data: ImageDataModule) -> dict[str, Any]:
    """The data set in plain containers, as checkpoints and run.json keep it."""
    return {
        "image_shape": list(data.image_shape),
        "classes": None if data.data_set.classes is None else list(data.data_set.classes),
        "num_train": len(data.data_set.train),
        "num_validation": len(data.data_set.validation),
        "fingerprint": data.fingerprint,
        "facts": dict(data.facts),
    }
