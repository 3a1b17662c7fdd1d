"""The options of the configuration groups: where they lie and what each says."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ddpm.errors import UsageError

CONF = next(
    (path for path in (Path(__file__).parent / "conf", Path(__file__).parents[2] / "conf") if path.is_dir()),
    Path(__file__).parent / "conf",
)
"""The configuration groups: inside the package where it is installed, at the top of a checkout."""


def options(group: str, *directories: Path) -> list[str]:
    """Names of a group's options, in `conf/` and in further directories like it."""
    return sorted(
        {file.stem for directory in (CONF, *directories) for file in (directory / group).glob("*.yaml")}
    )


def option(group: str, name: str) -> dict[str, Any]:
    """What an option of a group says, plain containers, for groups whose options stand alone.

    Raises:
        UsageError: where there is no such option.
    """
    file = CONF / group / f"{name}.yaml"
    if not file.is_file():
        there = ", ".join(options(group))
        raise UsageError(f"{group}={name}: there is no such option; there are {there}, or give an object")
    return read(file)


def read(file: Path) -> dict[str, Any]:
    """What a yaml file says, plain containers, as Hydra reads it: `1e-3` is a number, which YAML's own rules
    take for a word. Interpolations stay as they are written.

    Raises:
        OSError: where it cannot be read, or holds no keys.
        yaml.YAMLError: where it is no yaml.
    """
    return _keyed(OmegaConf.load(file))


def parsed(text: str) -> dict[str, Any]:
    """The same of what a yaml file holds.

    Raises:
        OSError, yaml.YAMLError: as `read`.
        OmegaConfBaseException: where it holds what no configuration does, such as a date.
    """
    return _keyed(OmegaConf.create(text))


def _keyed(config: Any) -> dict[str, Any]:
    found = OmegaConf.to_container(config)
    if not isinstance(found, dict):
        raise OSError("it holds no keys")
    return {str(key): value for key, value in found.items()}
