"""What a `_target_` in a configuration may name, which keys it takes, and building it."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ddpm import signatures
from ddpm.errors import UsageError
from ddpm.signatures import Parameters

PLACES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("schedule", "objective", "variance", "weighting", "timesteps", "sampler", "guidance"),
        ("ddpm.diffusion",),
    ),
    "model": ("ddpm.networks", "torch.nn"),
    "data": ("ddpm.data.sources",),
    "data.condition": ("ddpm.data.conditions",),
    "optimizer": ("torch.optim",),
    "lr_schedule": ("ddpm.training.lr_schedules", "torch.optim"),
    "ema": ("ddpm.training.ema", "ddpm.training.power_ema"),
    "trainer": ("lightning.pytorch.Trainer", "lightning.pytorch.profilers", "datetime.timedelta"),
    "strategy": ("ddpm.training.sharding", "lightning.pytorch.strategies", "datetime.timedelta"),
    "logger": ("ddpm.training.loggers", "lightning.pytorch.loggers"),
    "callbacks": (
        "ddpm.training.callbacks", "ddpm.evaluation.bits_per_dim", "ddpm.evaluation.quality",
        "ddpm.evaluation.nearest_images", "ddpm.evaluation.extractors", "lightning.pytorch.callbacks",
        "ddpm.diffusion", "torch.nn", "datetime.timedelta",
    ),
    "extractor": ("ddpm.evaluation.extractors",),
    "metrics": ("ddpm.evaluation", "ddpm.diffusion"),
}  # fmt: skip
"""Packages whose classes and functions a group of the configuration may build: what belongs there, since a
logger in the place of an objective would write while a stranger's checkpoint is sampled."""

ALLOWED = tuple(sorted({package for packages in PLACES.values() for package in packages}))
"""All of them. Building an object with one of these runs no code that came with the configuration; what reads
checkpoints and builds from them is not among them, since it admits packages by an argument."""

NODE_KEYS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
"""Hydra's own keys of such a node. `_convert_` is read and means nothing: nodes are plain containers."""


def check_name(key: str, target: object, allowed: Sequence[str] = ()) -> str:
    """Refuse a `_target_` outside the packages of its place, without importing anything.

    Args:
        key: where it stands, its group first.
        target: its value.
        allowed: packages beside those of its place.

    Raises:
        UsageError: naming the key and what would be right.
    """
    group, _, within = key.partition(".")
    place = f"{group}.{within.split('.')[0]}" if within else ""
    packages = (*PLACES.get(place, PLACES.get(group.split("[")[0], ALLOWED)), *allowed)
    parts = target.split(".") if isinstance(target, str) else []
    if all(map(str.isidentifier, parts)) and isinstance(target, str) and _is_in(target, packages):
        if not any(part.startswith("_") for part in parts) or _is_in(target, allowed):
            return target
        raise UsageError(f"{key}._target_={target}: is no public class or function")
    raise UsageError(
        f"{key}._target_={target}: is not in an allowed package ({', '.join(packages)}); "
        "admit a package of your own with allow_targets=[PACKAGE], on the command line or to ddpm.load"
    )


def _is_in(target: str, packages: Sequence[str]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in packages)


def check_names(key: str, node: Any, allowed: Sequence[str] = ()) -> None:
    """`check_name` for every `_target_` in a node of plain containers, however deep.

    Raises:
        UsageError: for the first that may not be built.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            check_name(key, node["_target_"], allowed)
        for name, child in node.items():
            check_names(f"{key}.{name}" if key else str(name), child, allowed)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            check_names(f"{key}[{index}]", child, allowed)


def is_ours(target: str) -> bool:
    """Whether the target's parameters can be read from our own sources."""
    return target.startswith("ddpm.")


def parameters(key: str, target: str) -> Parameters:
    """The keys that a target takes. Our own sources are read, not imported, which takes no time; others are
    imported.

    Raises:
        UsageError: where there is no such class or function.
    """
    if is_ours(target):
        try:
            found = signatures.read(target)
        except LookupError as error:
            raise UsageError(f"{key}._target_={target}: there is no such class or function") from error
        if found is not None:
            return found
    try:
        signature = inspect.signature(resolve(key, target))
    except ValueError:  # of C, such as timedelta
        return Parameters((), frozenset(), True, {})
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    named = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    required = frozenset(name for name, parameter in named.items() if parameter.default is parameter.empty)
    annotations = {
        name: written(parameter.annotation)
        for name, parameter in named.items()
        if parameter.annotation is not parameter.empty
    }
    return Parameters(tuple(named), required, inspect.Parameter.VAR_KEYWORD in kinds, annotations)


def written(annotation: Any) -> str:
    """An annotation as it stands in a source."""
    if isinstance(annotation, str):
        return annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def resolve(key: str, target: str) -> Callable[..., Any]:
    """Import a target whose name was checked: a class or function defined in, or re-exported by, its package.

    A dotted walk through what a module imports (`lightning.pytorch.callbacks.timer.os.system`) is refused.

    Raises:
        UsageError: where there is no such class or function there.
    """
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        hint = ""
        if not is_ours(target) and error.name == module_name.split(".")[0]:
            hint = "; a package of your own must be installed, or its folder be on PYTHONPATH"
        raise UsageError(
            f"{key}._target_={target}: {module_name} cannot be imported ({error}){hint}"
        ) from error
    found = getattr(module, name, None)
    if found is None or not callable(found) or not _is_at_home(target, found, module) or name.startswith("_"):
        raise UsageError(
            f"{key}._target_={target}: is no public class or function of {target.split('.')[0]} that may be "
            "built"
        )
    return found


def _is_at_home(target: str, found: Any, module: Any) -> bool:
    """Whether a module offers this class or function as its own, and did not merely import it."""
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    root, name = target.split(".")[0], target.rpartition(".")[2]
    home = getattr(found, "__module__", None) or ""
    if any(package.split(".")[0] == root for package in ALLOWED):
        inside = any(f"{home}.".startswith(f"{package}.") for package in ALLOWED)
        return inside or name in getattr(module, "__all__", ())
    return home.split(".")[0] == root


def build(key: str, node: Mapping[str, Any], /, *args: Any, **kwargs: Any) -> Any:
    """Build what a node's `_target_` names, from the node's keys and further arguments, which win.

    What is nested in it is built first, unless it says `_recursive_: false`. With `_partial_: true` the
    result is a `functools.partial`.

    Args:
        key: where the node stands in the configuration, for messages.
        node: plain containers, its targets checked by `check_name`.
        args: positional arguments before all others.
        kwargs: further arguments; they are handed over as they are.

    Raises:
        UsageError: where there is no such target, or its constructor refuses its arguments.
    """
    make = resolve(key, node["_target_"])
    built = _built if node.get("_recursive_", True) else _as_it_is
    settings = {name: built(f"{key}.{name}", value) for name, value in node.items() if name not in NODE_KEYS}
    positional = [*args, *(built(f"{key}._args_", value) for value in node.get("_args_", ()))]
    if node.get("_partial_"):
        return partial(make, *positional, **{**settings, **kwargs})
    return called(key, make, *positional, **{**settings, **kwargs})


def called(key: str, make: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """The result of a constructor that a configuration named.

    Raises:
        UsageError: where it refuses its arguments, with the key in front.
    """
    try:
        return make(*args, **kwargs)
    except UsageError:
        raise
    except Exception as error:  # whatever it says to what a person typed; HYDRA_FULL_ERROR=1 shows where
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        group = key.split(".")[0]
        raise UsageError(message if message.startswith(group) else f"{key}: {message}") from error


def _as_it_is(key: str, value: Any) -> Any:
    return value


def _built(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(key, value)
        return {name: _built(f"{key}.{name}", child) for name, child in value.items()}
    if isinstance(value, list):
        return [_built(f"{key}[{index}]", child) for index, child in enumerate(value)]
    return value
