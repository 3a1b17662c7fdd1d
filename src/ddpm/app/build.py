"""The data of a configuration, read and described."""

from collections.abc import Mapping
from typing import Any

from ddpm.app.groups import SWITCHES
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.targets import build


def build_data(config: Mapping[str, Any]) -> ImageDataModule:
    """The data module over the source that `data` names, its images read.

    Raises:
        UsageError: where there are no images.
    """
    node = config["data"]
    source = build("data", {name: value for name, value in node.items() if name not in SWITCHES["data"]})
    settings = {name: node[name] for name in SWITCHES["data"] if name in node and name != "micro_batch"}
    if settings.get("condition") is not None:
        settings["condition"] = build("data.condition", settings["condition"])
    try:
        data = ImageDataModule(source, seed=config["seed"], **settings)
        _ = data.data_set
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    if data.condition is not None and data.condition_sizes == (0, 0):
        raise UsageError(
            f"data.condition: {type(data.condition).__name__} gives neither an image nor numbers; one of "
            "your own has what ddpm.data.conditions.Derived says"
        )
    return data


def describe(data: ImageDataModule) -> dict[str, Any]:
    """The data set in plain containers, as checkpoints and run.json keep it."""
    return {
        "image_shape": list(data.image_shape),
        "classes": None if data.data_set.classes is None else list(data.data_set.classes),
        "num_train": len(data.data_set.train),
        "num_validation": len(data.data_set.validation),
        "fingerprint": data.fingerprint,
        "understood": list(data.data_set.understood),
        "facts": dict(data.facts),
        **({} if data.data_set.latents is None else {"latents": dict(data.data_set.latents)}),
        **({} if data.condition is None else {"condition": data.about_condition}),
    }
