"""From a checked configuration to the objects of an experiment."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from ddpm.app.check import SWITCHES
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError

Config = Mapping[str, Any]


def build(config: Config, group: str, /, **arguments: Any) -> Any:
    """Build what a group's configuration names, with further arguments.

    Raises:
        UsageError: where the constructor refuses its arguments.
    """
    switches = SWITCHES.get(group, ())
    settings = {name: value for name, value in config[group].items() if name not in switches}
    waits = settings.pop("_partial_", False)
    try:
        # a partial first, so that Hydra leaves the further arguments as they are
        make = instantiate({**settings, "_partial_": True}, _convert_="all")
        return partial(make, **arguments) if waits else make(**arguments)
    except (InstantiationException, TypeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        message = str(cause or error).splitlines()[0]
        raise UsageError(message if message.startswith(group) else f"{group}: {message}") from error


def build_data(config: Config) -> ImageDataModule:
    """The data module, its pictures read.

    Raises:
        UsageError: where there are no pictures.
    """
    data = build(config, "data", seed=config["seed"])
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
