"""What the `hydra:` part of a composed configuration may name: Hydra builds it, by its own rules."""

import inspect
import logging
import logging.handlers
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm.errors import UsageError

CALLBACKS = ("hydra.experimental.callbacks",)
"""Packages whose callbacks may be named without being admitted."""

PLUGINS = ("hydra._internal.core_plugins", "hydra_plugins")
"""Where launchers and sweepers lie: Hydra's own, and those that are installed."""

WITHIN_PLUGINS = ("optuna.pruners", "optuna.samplers", "optuna.distributions")
"""What those that are installed are made of."""

WHOLE = re.compile(r"\s*\$\{.*\}\s*", re.DOTALL)
"""A value that may turn into anything, and not only into a text."""

STREAMS = ("ext://sys.stdout", "ext://sys.stderr")

FORMATTERS = ("colorlog.ColoredFormatter",)
"""What hydra_colorlog's options name."""

BESIDE_LOGGING = ("listener", "queue")
"""Keys of a handler by which Python 3.12 builds what they name."""


def check(config: DictConfig, allowed: Sequence[str]) -> None:
    """Refuse what is from packages that are not admitted: callbacks, launcher, sweeper, logging.

    Args:
        config: as Hydra composed it, with its own part.
        allowed: packages that the command line admits.

    Raises:
        UsageError: for the first.
    """
    callbacks, plugins = (*CALLBACKS, *allowed), (*PLUGINS, *allowed)
    for key, name in _targets(config, "hydra.callbacks"):
        _check_name(key, name, callbacks)
    for part in ("hydra.launcher", "hydra.sweeper"):
        for key, name in _targets(config, part):
            _check_name(key, name, plugins if key == part else (*plugins, *WITHIN_PLUGINS))
    for part in ("hydra.job_logging", "hydra.hydra_logging"):
        for key, value in _values(config, part):
            _check_logging(key, value, allowed)


def _check_name(key: str, name: Any, packages: Sequence[str]) -> None:
    if not any(isinstance(name, str) and name.startswith(f"{package}.") for package in packages):
        raise UsageError(
            f"{key}._target_={name}: is not in an allowed package ({', '.join(packages)}); admit a package "
            "of your own with allow_targets=[PACKAGE] on the command line"
        )


def _check_logging(key: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuse what logging's configuration would import, call or fetch, but logging's own classes."""
    name = key.rpartition(".")[2]
    if isinstance(value, str) and value.startswith("ext://") and value not in STREAMS:
        raise UsageError(f"{key}={value}: must be {' or '.join(STREAMS)}")
    if name in BESIDE_LOGGING:
        raise UsageError(f"{key}: is not read here; a handler writes by itself")
    if name not in ("()", "class") or (name == "()" and value in FORMATTERS):
        return
    if any(isinstance(value, str) and value.startswith(f"{package}.") for package in allowed):
        return
    if name == "()" or not _is_of_logging(value):
        raise UsageError(
            f"{key}={value}: must be a handler, formatter or filter of logging or logging.handlers, as "
            "logging.StreamHandler; admit a package of your own with allow_targets=[PACKAGE] on the command "
            "line"
        )


def _is_of_logging(value: Any) -> bool:
    """Whether this is a class of logging by its name, and not what a walk through its imports leads to."""
    module, _, name = str(value).rpartition(".")
    home = {"logging": logging, "logging.handlers": logging.handlers}.get(module)
    found = getattr(home, name, None)
    return inspect.isclass(found) and issubclass(found, logging.Handler | logging.Formatter | logging.Filter)


def _targets(config: DictConfig, key: str) -> Iterator[tuple[str, Any]]:
    """Where each `_target_` stands below a key, and its value."""
    end = "._target_"
    found = _values(config, key)
    return ((name.removesuffix(end), value) for name, value in found if name.endswith(end))


def _values(config: DictConfig, key: str) -> Iterator[tuple[str, Any]]:
    """Every single value below a key, by its dotted name; what is interpolated as what it will be."""
    node = OmegaConf.select(config, key, default=None)
    yield from _within(key, node)


def _within(key: str, node: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > 40:
        raise UsageError(f"{key}: leads back to itself")
    if isinstance(node, DictConfig):
        names: list[Any] = list(node.keys())
        for name in names:
            yield from _within(f"{key}.{name}", _child(f"{key}.{name}", node, name), depth + 1)
    elif isinstance(node, ListConfig):
        for index in range(len(node)):
            yield from _within(f"{key}[{index}]", _child(f"{key}[{index}]", node, index), depth + 1)
    else:
        yield key, node


def _child(key: str, node: Container, name: Any) -> Any:
    """A value, or what it will be. Of what is known later only the text is let through."""
    found: Callable[[Any], Any] = node.__getitem__
    try:
        return None if OmegaConf.is_missing(node, name) else found(name)
    except OmegaConfBaseException as error:
        raw = str(node._get_node(name))
        if WHOLE.fullmatch(raw):
            raise UsageError(f"{key}={raw}: must lead to something that is known before the run") from error
        return raw
