"""Whether a value is of the kind that an annotation asks for."""

import ast
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from ddpm.errors import UsageError

LISTS = ("Sequence", "Iterable", "Collection", "list", "tuple")
MAPPINGS = ("Mapping", "dict")
NEVER = ("Tensor", "Parameter", "Path", "PathLike", "timedelta")
"""What no configuration holds as it is, so that the other alternatives decide; a node that builds it does."""

DURATION = "{_target_: datetime.timedelta, hours: 1}"
"""How a configuration writes a time."""

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "None": "null",
}


def fitted(key: str, annotation: str, value: Any) -> Any:
    """The value as an annotation asks for it: `1e5` where a whole number is meant is one, and a number where
    text is meant is text.

    Args:
        key: whose value it is.
        annotation: such as `int | None`. What is no plain kind (a class) admits everything.
        value: plain containers.

    Raises:
        UsageError: where it is of another kind.
    """
    kind = _parsed(annotation)
    if kind is None or (isinstance(value, Mapping) and "_target_" in value):
        return value
    found = _fit(kind, value)
    if found is _NO:
        said = " or ".join([_said(kind), *(DURATION for part in _parts(kind) if _name(part) == "timedelta")])
        raise UsageError(f"{key}={'null' if value is None else value}: must be {said}")
    return found


def check_finite(key: str, node: Any) -> None:
    """Refuse numbers that are none, and whole ones that no machine's integer holds, however deep.

    Raises:
        UsageError: for the first.
    """
    if isinstance(node, float) and not math.isfinite(node):
        raise UsageError(f"{key}={node}: must be a finite number")
    if isinstance(node, int) and not -(2**63) <= node < 2**63:
        raise UsageError(f"{key}={node}: must be at least -2**63 and below 2**63")
    if isinstance(node, Mapping):
        for name, child in node.items():
            check_finite(f"{key}.{name}" if key else str(name), child)
    elif isinstance(node, list):
        for child in node:
            check_finite(key, child)


class _No:
    """No value."""


_NO = _No()


@cache
def _parsed(annotation: str) -> ast.expr | None:
    try:
        node = ast.parse(annotation, mode="eval").body
    except SyntaxError:
        return None
    return node if _alternatives(node) else None


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """The plain kinds that an annotation admits; none where it admits others too."""
    found: list[ast.expr] = []
    for part in _parts(node):
        name = _name(part)
        if name in NEVER:
            continue
        if name not in (*WORDS, *LISTS, *MAPPINGS, "Literal"):
            return []
        found.append(part)
    return found


def _parts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_parts(node.left), *_parts(node.right)]
    if isinstance(node, ast.Subscript) and _name(node) in ("Optional", "Union"):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        nothing: list[ast.expr] = [ast.Constant(None)] if _name(node) == "Optional" else []
        return [part for child in inner for part in _parts(child)] + nothing
    return [node]


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant):
        return str(node.value)
    return {"NoneType": "None"}.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def _fit(node: ast.expr, value: Any) -> Any:
    """The value as one of the alternatives has it, or `_NO`."""
    alternatives = _alternatives(node)
    if not alternatives:
        return value
    names = [_name(part) for part in alternatives]
    for name, part in zip(names, alternatives, strict=True):
        found = _fit_one(name, part, value)
        if found is not _NO:
            return found
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and "int" in names and float(value).is_integer():
        return int(value)
    if is_number and "str" in names:
        return str(value)
    return _NO


def _fit_one(name: str, node: ast.expr, value: Any) -> Any:
    if name in LISTS:
        return _fit_list(node, value) if isinstance(value, list | tuple) else _NO
    if name == "Literal" and isinstance(node, ast.Subscript):
        allowed = ast.literal_eval(node.slice)
        allowed = allowed if isinstance(allowed, tuple) else (allowed,)
        return value if any(value is one or value == one for one in allowed) else _NO
    number = isinstance(value, int | float) and not isinstance(value, bool)
    right = {
        "int": number and isinstance(value, int),
        "float": number,
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
        "None": value is None,
    }.get(name, isinstance(value, Mapping))
    return value if right else _NO


def _fit_list(node: ast.expr, value: Any) -> Any:
    if not isinstance(node, ast.Subscript):
        return value
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    endless = _name(node) != "tuple" or (isinstance(inner[-1], ast.Constant) and inner[-1].value is Ellipsis)
    if not endless and len(inner) != len(value):
        return _NO
    kinds = [inner[0]] * len(value) if endless else inner
    found = [_fit(kind, child) for kind, child in zip(kinds, value, strict=True)]
    return _NO if any(child is _NO for child in found) else found


def _said(node: ast.expr) -> str:
    said: list[str] = []
    for part in _alternatives(node):
        name = _name(part)
        if name in LISTS:
            inner = part.slice if isinstance(part, ast.Subscript) else None
            of = {"int": " of whole numbers", "float": " of numbers"}.get(_name(inner) if inner else "", "")
            said.append(f"a list [...]{of}")
        elif name == "Literal" and isinstance(part, ast.Subscript):
            allowed = ast.literal_eval(part.slice)
            said += [str(one) for one in (allowed if isinstance(allowed, tuple) else (allowed,))]
        else:
            said.append(WORDS.get(name, "keys and values {...}"))
    return " or ".join(dict.fromkeys(said))
