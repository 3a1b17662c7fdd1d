"""What a `_target_` in a configuration may name, and which keys it takes."""

import ast
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    if node.bases:
        return None
    return _of_dataclass(node) if _is_dataclass(node) else Parameters((), frozenset())


def _is_dataclass(node: ast.ClassDef) -> bool:
    named = [ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]
    return any(name.split(".")[-1] == "dataclass" for name in named)


def _of_dataclass(node: ast.ClassDef) -> Parameters:
    """Its fields; a field that is no argument (`ClassVar`, `init=False`) is not expected here."""
    fields = {
        member.target.id: member.value is None
        for member in node.body
        if isinstance(member, ast.AnnAssign)
        and isinstance(member.target, ast.Name)
        and ast.unparse(member.annotation) != "KW_ONLY"
    }
    return Parameters(tuple(fields), frozenset(name for name, required in fields.items() if required))


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
