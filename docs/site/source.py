"""Finds an object of the package by its qualified name, in the text of its file: nothing is imported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Found:
    """A class or function, where it is defined.

    Attributes:
        name: qualified by its own module.
        path: of the file.
        node: of its syntax tree.
        owner: the class that a method belongs to.
    """

    name: str
    path: Path
    node: Definition
    owner: "Found | None" = None

    @property
    def text(self) -> str:
        """As it stands in the file, with decorators, moved to the left."""
        first = min([self.node.lineno, *(decorator.lineno for decorator in self.node.decorator_list)])
        lines = self.path.read_text(encoding="utf-8").splitlines()[first - 1 : self.node.end_lineno]
        indent = self.node.col_offset
        return "\n".join(line[indent:] for line in lines)

    @property
    def docstring(self) -> str:
        """Without its indentation; empty where there is none."""
        return ast.get_docstring(self.node) or ""


@cache
def find(name: str) -> Found:
    """The class, function or method `ddpm. ... .name`, also by a package that passes it on, or as inherited.

    Raises:
        LookupError: where there is none.
    """
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        path = _module_path(".".join(parts[:length]))
        if path is not None:
            return _within(".".join(parts[:length]), path, parts[length:])
    raise LookupError(f"{name}: no such module")


def definitions(package: str, mentioning: str = "") -> Iterator[Found]:
    """Every public class, function and method of a package and of those below it, in files with this word."""
    for path in sorted((SOURCES / package.replace(".", "/")).rglob("*.py")):
        if mentioning not in path.read_text(encoding="utf-8"):
            continue
        module = ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")
        for node in _tree(path).body:
            if isinstance(node, Definition) and not node.name.startswith("_"):
                found = Found(f"{module}.{node.name}", path, node)
                yield found
                for inner in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield Found(f"{found.name}.{inner.name}", path, inner, found)


def bases(found: Found) -> Iterator[Found]:
    """The classes of this package that a class derives from, nearest first."""
    if isinstance(found.node, ast.ClassDef):
        module = ".".join(found.path.relative_to(SOURCES).with_suffix("").parts)
        for base in found.node.bases:
            try:
                above = find(f"{module}.{ast.unparse(base)}")
            except LookupError:
                continue
            yield above
            yield from bases(above)


def _within(module: str, path: Path, names: list[str]) -> Found:
    first, *rest = names
    if first in _imported(path):
        return find(".".join([_imported(path)[first], *rest]))
    for node in _tree(path).body:
        if isinstance(node, Definition) and node.name == first:
            found = Found(f"{module}.{first}", path, node)
            return _member(found, rest[0]) if rest else found
    raise LookupError(f"{module}.{first}: {path.relative_to(ROOT)} has no such class or function")


def _member(owner: Found, name: str) -> Found:
    for above in (owner, *bases(owner)):
        for node in above.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return Found(f"{above.name}.{name}", above.path, node, above)
    raise LookupError(f"{owner.name}.{name}: no such method")


def _module_path(module: str) -> Path | None:
    base = SOURCES / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


@cache
def _imported(path: Path) -> dict[str, str]:
    """Names that a file takes from elsewhere when it is read, with what they are there."""
    nodes = [node for top in _tree(path).body for node in (top.body if isinstance(top, ast.If) else [top])]
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
