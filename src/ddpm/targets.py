"""What a `_target_` in a configuration may name, and which keys it takes."""

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ddpm.errors import UsageError

ALLOWED = (
    "ddpm.data",
    "ddpm.diffusion",
    "ddpm.evaluation",
    "ddpm.networks",
    "ddpm.training",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "torch.nn",
    "torch.optim",
)
"""Packages whose classes and functions a configuration may build. Loading an object with one of these runs no
code that came with the configuration."""


NODE_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
"""Keys of a node that are not arguments."""


@dataclass(frozen=True)
class Parameters:
    """The keys that a constructor takes: all, and those it cannot do without. `any` where it takes every
    key.
    """

    names: tuple[str, ...]
    required: frozenset[str]
    any: bool = False


def check_name(key: str, target: object, allowed: Sequence[str] = ()) -> str:
    """Refuse a `_target_` outside the allowed packages, without importing anything.

    Args:
        key: where it stands.
        target: its value.
        allowed: packages beside `ALLOWED`.

    Raises:
        UsageError: naming the key and what would be right.
    """
    packages = (*ALLOWED, *allowed)
    if isinstance(target, str) and any(target == name or target.startswith(f"{name}.") for name in packages):
        return target
    raise UsageError(
        f"{key}._target_={target}: is not in an allowed package ({', '.join(packages)}); "
        "admit a package of your own with allow_targets=[PACKAGE] on the command line"
    )


def is_ours(target: str) -> bool:
    """Whether the target's parameters can be read from our own sources."""
    return target.startswith("ddpm.")


def parameters(key: str, target: str) -> Parameters:
    """The keys that a target takes. Our own sources are read, not imported, which takes no time; others are
    imported.

    Raises:
        UsageError: where there is no such class or function.
    """
    if is_ours(target) and (found := _from_source(key, target)) is not None:
        return found
    signature = inspect.signature(resolve(key, target))
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    named = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    required = frozenset(name for name, parameter in named.items() if parameter.default is parameter.empty)
    return Parameters(tuple(named), required, inspect.Parameter.VAR_KEYWORD in kinds)


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
        raise UsageError(f"{key}._target_={target}: {module_name} is no module ({error})") from error
    found = getattr(module, name, None)
    root = target.split(".")[0]
    home = getattr(found, "__module__", None) or ""
    if any(package.split(".")[0] == root for package in ALLOWED):
        at_home = any(f"{home}.".startswith(f"{package}.") for package in ALLOWED)
        at_home = at_home or name in getattr(module, "__all__", ())
    else:
        at_home = home.split(".")[0] == root
    if not (inspect.isclass(found) or inspect.isfunction(found)) or not at_home or name.startswith("_"):
        raise UsageError(
            f"{key}._target_={target}: is no public class or function of {root} that may be built"
        )
    return found


def _from_source(key: str, target: str) -> Parameters | None:
    """Parameters of one of our classes or functions; None where they are inherited."""
    module_name, _, name = target.rpartition(".")
    file = Path(__file__).parents[1].joinpath(*module_name.split(".")).with_suffix(".py")
    tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
    definitions = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    if name not in definitions:
        raise UsageError(f"{key}._target_={target}: there is no such class or function")
    node = definitions[name]
    if isinstance(node, ast.FunctionDef):
        return _of_function(node, skip=0)
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return _of_function(member, skip=1)
    return None if node.bases else Parameters((), frozenset())


def _of_function(node: ast.FunctionDef, *, skip: int) -> Parameters:
    positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    without_default = positional[: len(positional) - len(node.args.defaults)]
    keyword = [argument.arg for argument in node.args.kwonlyargs]
    required = {name for name, value in zip(keyword, node.args.kw_defaults, strict=True) if value is None}
    return Parameters(
        (*positional[skip:], *keyword),
        frozenset([*without_default[skip:], *required]),
        node.args.kwarg is not None,
    )


def build(key: str, node: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Build what a node names, and what the nodes within it name.

    Args:
        key: where the node stands, for messages.
        node: `_target_` and its keyword arguments; `_args_` gives positional ones, `_partial_: true` a
            partial that waits for the rest.
        args, kwargs: further arguments, handed on as they are.

    Raises:
        UsageError: where the constructor refuses its arguments.
    """
    target = resolve(key, node["_target_"])
    own = {
        name: _build_within(f"{key}.{name}", value) for name, value in node.items() if name not in NODE_KEYS
    }
    positional = [_build_within(f"{key}._args_", value) for value in node.get("_args_", ())]
    make = partial(target, *positional, *args, **{**own, **kwargs})
    if node.get("_partial_"):
        return make
    try:
        return make()
    except (TypeError, ValueError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(message if message.startswith(key) else f"{key}: {message}") from error


def _build_within(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(key, value)
        return {name: _build_within(f"{key}.{name}", child) for name, child in value.items()}
    if isinstance(value, list):
        return [_build_within(f"{key}[{index}]", child) for index, child in enumerate(value)]
    return value
