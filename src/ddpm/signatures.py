"""Which arguments a constructor of ours takes, read from its source: importing it would take seconds."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parents[1]
"""The directory that our packages lie in."""


@dataclass(frozen=True)
class Parameters:
    """The keys that a constructor takes.

    Attributes:
        names: all of them, in order.
        required: those it cannot do without.
        any: whether it takes every key.
        annotations: of those that have one, as written.
        named: those of a dataclass that are given by name alone, which come last.
    """

    names: tuple[str, ...]
    required: frozenset[str]
    any: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)
    named: frozenset[str] = frozenset()


NOTHING = Parameters((), frozenset())


def read(target: str) -> Parameters | None:
    """The arguments of one of our classes or functions, by its dotted name; None where the sources do not
    say, as for a class whose constructor is another library's.

    Raises:
        LookupError: where there is no such class or function.
    """
    module, _, name = target.rpartition(".")
    file = _file(module)
    definitions = {} if file is None else _definitions(file)
    node = definitions.get(name)
    if isinstance(node, ast.FunctionDef):
        return _of_function(node, skip=0)
    if isinstance(node, ast.ClassDef):
        return _of_class(node, file)
    if isinstance(node, str) and file is not None and file.name == "__init__.py":
        return read(node)  # what a package offers as its own: ddpm.diffusion.samplers.DDIM
    raise LookupError(target)


def _file(module: str) -> Path | None:
    path = SOURCES.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@cache
def _definitions(file: Path) -> dict[str, ast.ClassDef | ast.FunctionDef | str]:
    """Classes and functions of a file by name, and for what it imports by name, the dotted name."""
    found: dict[str, ast.ClassDef | ast.FunctionDef | str] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _of_class(node: ast.ClassDef, file: Path | None) -> Parameters | None:
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return _of_function(member, skip=1)
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return _of_dataclass(node, file)
    for base in node.bases:
        if (found := _of_base(base, file)) is not NOTHING:
            return found
    return NOTHING


def _of_base(base: ast.expr, file: Path | None) -> Parameters | None:
    """The arguments of a class that another one derives from."""
    written = ast.unparse(base).split("[")[0]
    if written in ("Protocol", "Generic", "ABC", "object"):
        return NOTHING
    known = _definitions(file).get(written) if file is not None else None
    if isinstance(known, ast.ClassDef):
        return _of_class(known, file)
    return read(known) if isinstance(known, str) and known.startswith("ddpm.") else None


def _of_dataclass(node: ast.ClassDef, file: Path | None) -> Parameters | None:
    """Its fields, in order, those of its bases first."""
    inherited = [_of_base(base, file) for base in node.bases]
    if None in inherited:
        return None
    members: dict[str, ast.AnnAssign] = {}
    named: set[str] = set()
    only_named = any("kw_only=True" in ast.unparse(decorator) for decorator in node.decorator_list)
    for member in node.body:
        if not isinstance(member, ast.AnnAssign) or not isinstance(member.target, ast.Name):
            continue
        written = ast.unparse(member.annotation)
        if written == "KW_ONLY":
            only_named = True
        elif not written.startswith("ClassVar"):
            members[member.target.id] = member
            named |= {member.target.id} if only_named else set()
    own = Parameters(
        tuple(members),
        frozenset(name for name, member in members.items() if not _has_default(member.value)),
        annotations={name: ast.unparse(member.annotation) for name, member in members.items()},
        named=frozenset(named),
    )
    whole = NOTHING
    for part in [*filter(None, inherited), own]:
        keyword = whole.named - set(part.names) | part.named
        names = dict.fromkeys((*whole.names, *part.names))
        whole = Parameters(
            tuple(sorted(names, key=lambda name: name in keyword)),
            whole.required - set(part.names) | part.required,
            annotations={**whole.annotations, **part.annotations},
            named=keyword,
        )
    return whole


def _has_default(value: ast.expr | None) -> bool:
    """Whether a field of a dataclass has one, from what stands behind its `=`."""
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field"):
        return any(keyword.arg in ("default", "default_factory") for keyword in value.keywords)
    return value is not None


def _of_function(node: ast.FunctionDef, *, skip: int) -> Parameters:
    positional = [*node.args.posonlyargs, *node.args.args]
    without_default = positional[: len(positional) - len(node.args.defaults)]
    keyword = node.args.kwonlyargs
    required = [one for one, value in zip(keyword, node.args.kw_defaults, strict=True) if value is None]
    taken = [*positional[skip:], *keyword]
    return Parameters(
        tuple(one.arg for one in taken),
        frozenset(one.arg for one in [*without_default[skip:], *required]),
        node.args.kwarg is not None,
        {one.arg: ast.unparse(one.annotation) for one in taken if one.annotation is not None},
    )
