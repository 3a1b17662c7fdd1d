"""Writes docs/reference/keys.md, every key of every program: `python docs/site/keys.py`.

Names and defaults are those of conf/, types and ranges those of ddpm.app.schema and of the constructors. What
a key means is the comment beside it in conf/, else its line in the constructor's docstring.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from source import ROOT, SOURCES, Found, bases, find

from ddpm.app import groups
from ddpm.app.schema import INSTEAD, PROGRAMS, RANGES

CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "reference" / "keys.md"

COMMANDS = {
    "train": "train.py", "sample": "sample.py", "evaluate": "evaluate.py", "inspect": "ddpm inspect",
    "encode": "ddpm encode",
}  # fmt: skip

LINE = re.compile(r"( *)([\w/@.]+):(?: (?!#)(.*?))?(?: +# (.*))?$")
"""Of a yaml: indentation, key, value, comment."""

INTRODUCTION = """# Every key

Written by `python docs/site/keys.py` from `conf/`, `src/ddpm/app/schema.py` and the constructors, not by
hand. `KEY=VALUE` on a command line sets one, `GROUP=OPTION` swaps a group; `--help` lists the groups, and
`--cfg job` shows what a command line would run. `???` has no default and must be given.
"""


@dataclass(frozen=True)
class Key:
    """A row of a table: a key with its default, what it may be, and what it means."""

    name: str
    default: str
    allowed: str
    meaning: str

    def row(self) -> str:
        """As Markdown."""
        cells = (f"`{self.name}`", f"`{self.default}`" if self.default else "", self.allowed, self.meaning)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@dataclass(frozen=True)
class Entry:
    """A line of a yaml: value and comment of a key."""

    value: str
    comment: str


@dataclass(frozen=True)
class Option:
    """A yaml with what its defaults list brings, as the lines say it.

    Attributes:
        about: the comment at its beginning.
        entries: by key within the group, nested ones with dots.
        base: the option of the same group that it changes; None where it is none's.
    """

    name: str
    about: str
    entries: dict[str, Entry]
    base: str | None

    @property
    def target(self) -> str | None:
        """What it builds."""
        return self.entries["_target_"].value if "_target_" in self.entries else None


def page() -> str:
    """The page, whole."""
    return "\n".join([INTRODUCTION, *_programs(), *_groups()])


def _programs() -> Iterator[str]:
    for name, program in PROGRAMS.items():
        lines = _lines(CONF / "devices.yaml") | _lines(CONF / f"{name}.yaml")
        yield f"## {COMMANDS[name]}\n"
        yield from _table(
            Key(field.name, *_of_setting(lines, field.name, field.name, field.type))
            for field in fields(program.settings)
        )
        named = [*program.objects, *program.mappings]
        yield f"Groups: {', '.join(f'[`{group}`](#{group})' for group in named)}"
        whole = [] if name != "train" else [f"[`{group}`](#{group})" for group in groups.WHOLE]
        yield f"and, which build nothing: {', '.join(whole)}.\n" if whole else ""


def _groups() -> Iterator[str]:
    for directory in sorted(path for path in CONF.iterdir() if path.is_dir()):
        group = directory.name
        options = [_option(path) for path in sorted(directory.glob("*.yaml"))]
        yield f"## {group}\n"
        if group in groups.WHOLE:
            yield from _whole(options)
        elif group == "trainer":
            yield from _trainer(options)
        else:
            yield from _constructors(group, options)
        if group == "data":
            yield from _conditions(directory / "condition")


def _conditions(directory: Path) -> Iterator[str]:
    """The group that stands within data."""
    yield "## condition\n"
    for option in map(_option, sorted(directory.glob("*.yaml"))):
        yield f"### condition={option.name}\n"
        yield f"{option.about}\n"
        yield from _table(_keys("data", option))


def _whole(options: list[Option]) -> Iterator[str]:
    """Options that set keys all over the configuration."""
    yield "| option | is | sets |\n|---|---|---|"
    by_name = {option.name: option for option in options}
    for option in options:
        base = by_name[option.base].entries if option.base else {}
        sets = [f"as `{option.base}`"] if option.base else []
        sets += [
            f"`{name}={entry.value}`"
            for name, entry in option.entries.items()
            if name != "hydra.mode" and (name not in base or base[name].value != entry.value)
        ]
        yield f"| `{option.name}` | {option.about} | {', '.join(sets)} |"
    yield ""


def _trainer(options: list[Option]) -> Iterator[str]:
    """Presets of one set of keys."""
    default = next(option for option in options if option.name == "default")
    trainer = PROGRAMS["train"].trainer
    assert trainer is not None
    yield f"{default.about} `sample.py` and `evaluate.py` have the first four.\n"
    yield from _table(
        Key(
            f"trainer.{field.name}",
            *_of_setting(default.entries, field.name, f"trainer.{field.name}", field.type),
        )
        for field in fields(trainer)
    )
    yield from _variants(options, default)
    yield "What cannot be set:\n"
    yield "| key of Lightning's Trainer | instead |\n|---|---|"
    yield from (f"| `{name}` | {text} |" for name, text in INSTEAD.items())
    yield ""


def _constructors(group: str, options: list[Option]) -> Iterator[str]:
    """Options that build objects: a table for each constructor, and what its other options change."""
    shared = _shared_keys() if group == "data" else {}
    if shared:
        yield "### Every option of data\n"
        yield from _table(shared.values())
    seen: set[str] = set()
    for option in sorted(options, key=lambda option: (option.base is not None, option.name)):
        if option.name in seen:
            continue
        same = [other for other in options if other.base == option.name or _only_differs(other, option)]
        seen |= {option.name, *(other.name for other in same)}
        yield f"### {group}={option.name}\n"
        yield f"{option.about}{_builds(option)}\n"
        keys = [key for key in _keys(group, option) if not _as_shared(key, shared)]
        if keys:
            yield from _table(keys)
        yield from _variants(same, option)


def _shared_keys() -> dict[str, Key]:
    """The keys that every set of images has, or nearly every one, by name."""
    classes = ("ddpm.app.schema.DataSwitches", "ddpm.data.settings.ImageSettings")
    known = {name: annotation for path in classes for name, annotation in _fields(find(path)).items()}
    found = {}
    for file in ("loading", "reading", "preparing"):
        for name, entry in _lines(CONF / f"{file}.yaml").items():
            if not name.startswith("defaults"):
                key = f"data.{name}"
                allowed = _allowed(key, known.get(name, ""), entry.value)
                found[key] = Key(key, entry.value, allowed, entry.comment)
    return found


def _as_shared(key: Key, shared: dict[str, Key]) -> bool:
    return key.name in shared and (key.default, key.meaning) == (
        shared[key.name].default,
        shared[key.name].meaning,
    )


def _fields(found: Found) -> dict[str, str]:
    """The annotated fields of a dataclass and of those it derives from."""
    above = {name: text for base in bases(found) for name, text in _fields(base).items()}
    own = {
        node.target.id: ast.unparse(node.annotation)
        for node in found.node.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return above | own


def _only_differs(other: Option, option: Option) -> bool:
    """Whether an option builds what another does, with the same keys."""
    return (
        other is not option
        and other.target == option.target
        and set(other.entries) == set(option.entries)
        and (option.target is not None)
    )


def _variants(options: list[Option], base: Option) -> Iterator[str]:
    others = [option for option in options if option is not base]
    if not others:
        return
    yield "| option | is | sets |\n|---|---|---|"
    for option in others:
        changed = {
            name: entry.value
            for name, entry in option.entries.items()
            if name not in base.entries or entry.value != base.entries[name].value
        }
        sets = ", ".join(f"`{name}={value}`" for name, value in changed.items())
        yield f"| `{option.name}` | {option.about} | {sets} |"
    yield ""


def _builds(option: Option) -> str:
    if option.target is None:
        return ""
    foreign = "" if option.target.startswith("ddpm.") else ", any other argument of which is a key as well"
    return f" Builds `{option.target}`{foreign}."


def _keys(group: str, option: Option) -> Iterator[Key]:
    """Of one option: what its yaml says, then what its constructor alone knows."""
    nested = {name.rpartition(".")[0] for name in option.entries if name.endswith("._target_")}
    constructors = {name: option.entries[f"{name}._target_"].value for name in nested}
    if option.target is not None:
        constructors[""] = option.target
    arguments = {place: _arguments(target) for place, target in constructors.items()}
    prefix = f"{group}."
    for name, entry in option.entries.items():
        last = name.rpartition(".")[2]
        if last in ("_target_", "_partial_") and name in ("_target_", "_partial_"):
            continue
        if last == "_target_":
            yield Key(prefix + name, entry.value, "", "a class, whose arguments are the keys beside it")
            continue
        place, _, argument = name.rpartition(".")
        known = arguments.get(place, {}).get(argument)
        allowed = _allowed(f"{prefix}{name}", known.annotation if known else "", entry.value)
        target = constructors.get(place, "")
        meaning = entry.comment or _commented(target, argument) or (known.meaning if known else "")
        yield Key(prefix + name, entry.value, allowed, meaning or (f"as in `{target}`" if target else ""))
    for place, known in arguments.items():
        taken = groups.provided(group, list(known)) if place == "" else ()
        for argument, told in known.items():
            name = f"{place}.{argument}" if place else argument
            there = any(key == name or key.startswith(f"{name}.") for key in option.entries)
            if not there and argument not in taken and told.default:
                yield Key(
                    prefix + name,
                    told.default,
                    _allowed(f"{prefix}{name}", told.annotation, told.default),
                    told.meaning,
                )


@dataclass(frozen=True)
class Argument:
    """Of a constructor: what its signature and its docstring say."""

    annotation: str
    default: str
    meaning: str


def _arguments(target: str) -> dict[str, Argument]:
    """Those of one of our constructors, by name; none of another library's."""
    try:
        found = find(target)
    except LookupError:
        return {}
    told = _told(found)
    node: Any = found.node
    if isinstance(found.node, ast.ClassDef):
        try:
            initialiser = find(f"{target}.__init__")
        except LookupError:
            return {}
        node, told = initialiser.node, (_told(initialiser.owner) if initialiser.owner else {}) | told
    listed = node.args
    positional = [*listed.posonlyargs, *listed.args]
    defaults = [None] * (len(positional) - len(listed.defaults)) + list(listed.defaults)
    both = [*zip(positional, defaults, strict=True), *zip(listed.kwonlyargs, listed.kw_defaults, strict=True)]
    return {
        argument.arg: Argument(
            ast.unparse(argument.annotation) if argument.annotation else "",
            _as_yaml(ast.unparse(default)) if default is not None else "",
            told.get(argument.arg, ""),
        )
        for argument, default in both
        if argument.arg != "self"
    }


def _told(found: Found) -> dict[str, str]:
    """What the section Args of a docstring says of each argument."""
    section = re.search(r"^Args:\n((?: .*\n?|\n)+)", found.docstring, re.MULTILINE)
    texts: dict[str, str] = {}
    for names, text in re.findall(
        r"^    ([\w, ]+): ((?:.*\n?)(?:     +.*\n?)*)", section[1] if section else "", re.MULTILINE
    ):
        for name in names.split(","):
            texts[name.strip()] = " ".join(text.split()).removesuffix(".")
    return texts


def _of_setting(lines: dict[str, Entry], name: str, path: str, annotation: Any) -> tuple[str, str, str]:
    """Default, allowed values and meaning of a key that is a field of a dataclass."""
    entry = lines.get(name, Entry("", ""))
    typed = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    written = typed if typed not in ("UnionType",) and "|" not in str(annotation) else str(annotation)
    lightnings = "as in `lightning.pytorch.Trainer`" if path.startswith("trainer.") else ""
    return entry.value, _allowed(path, written, entry.value), entry.comment or lightnings


WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true, false",
    "str": "text",
    "None": "null",
    "NoneType": "null",
}


def _allowed(path: str, annotation: str, default: str) -> str:
    """What a key may be, in words: its type, and its range where there is one."""
    annotation = annotation.replace("typing.", "")
    annotation = re.sub(r"\w+", lambda word: _choices().get(word[0], word[0]), annotation)
    parts = re.split(r" \| (?![^\[]*\])", annotation) if annotation else []
    words: list[str] = []
    for part in parts:
        if choices := re.fullmatch(r"Literal\[(.*)\]", part):
            words += [choice.strip(" '\"") for choice in choices[1].split(",")]
        elif part in WORDS:
            words.append(WORDS[part])
        elif re.match(r"(list|Sequence|tuple)\b", part):
            words.append("a list")
        elif re.match(r"(Mapping|dict)\b", part):
            words.append("a mapping")
    said = _range(RANGES[path]) if path in RANGES else ""
    if said:
        return said + (", or null" if "null" in words and "null" not in said else "")
    if not words and default in ("true", "false"):
        return "true, false"
    return " or ".join(words)


def _range(check: Callable[[Any], str | None]) -> str:
    """What a check answers to a value that is certainly wrong, without its "must be"."""
    for wrong in (object(), -1e30, [], 0):
        try:
            said = check(wrong)
        except TypeError:
            continue
        if said:
            said = re.split(r";|, what", said)[0]
            choices = said.removeprefix("must be ").split(" or ")
            if all(" " not in choice for choice in choices):
                said = "must be " + " or ".join([", ".join(choices[:-1]), choices[-1]])
            return said.removeprefix("must be ") if said.startswith("must be ") else ""
    raise AssertionError("a range that refuses nothing")


@cache
def _choices() -> dict[str, str]:
    """Names that the sources give to choices of words: Shape = Literal["uniform", "quadratic"]."""
    named = re.compile(r"^(\w+) = (Literal\[[^\]]*\])", re.MULTILINE)
    texts = (file.read_text(encoding="utf-8") for file in sorted(SOURCES.rglob("*.py")))
    return dict(pair for text in texts if " = Literal[" in text for pair in named.findall(text))


def _commented(target: str, argument: str) -> str:
    """What an option that builds this says of an argument, for where the same is built elsewhere."""
    for lines in _builders().get(target, ()):
        if argument in lines:
            return lines[argument].comment
    return ""


@cache
def _builders() -> dict[str, list[dict[str, Entry]]]:
    """The lines of the options that build an object each, by what they build."""
    found: dict[str, list[dict[str, Entry]]] = {}
    for path in sorted(CONF.glob("*/*.yaml")):
        if "_target_" in (lines := _lines(path)):
            found.setdefault(lines["_target_"].value, []).append(lines)
    return found


def _as_yaml(default: str) -> str:
    """A default of Python, as it is typed on a command line."""
    words = {"None": "null", "True": "true", "False": "false"}
    if default in words:
        return words[default]
    return default.replace("(", "[").replace(",)", "]").replace(")", "]").strip("'\"")


def _option(path: Path) -> Option:
    """A yaml of a group with its defaults list followed."""
    return Option(path.stem, _about(path), *_merged(path))


def _merged(path: Path) -> tuple[dict[str, Entry], str | None]:
    found: dict[str, Entry] = {}
    base, siblings = None, 0
    own = {name: entry for name, entry in _lines(path).items() if not name.startswith("defaults")}
    package = re.search(r"^# @package ([\w.]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    if package and "." in package[1]:  # metrics.fid: the keys of one member of a mapping
        own = {f"{package[1].partition('.')[2]}.{name}": entry for name, entry in own.items()}
    for line in _defaults(path):
        if line == "_self_":
            continue
        if re.fullmatch(r"/?\w+", line):
            above = CONF / f"{line[1:]}.yaml" if line.startswith("/") else path.with_name(f"{line}.yaml")
            found |= _merged(above)[0]
            if not line.startswith("/"):
                base = _merged(above)[1] or line
                siblings += 1
        elif found_pair := re.fullmatch(r"(?:override )?/?(\w+): (\w+|\[[\w, ]*\])", line):
            found[found_pair[1]] = Entry(found_pair[2], "")
    if path.parent.name == "trainer" and path.stem != "default":
        base = "default"
        own = {name.removeprefix("trainer."): entry for name, entry in own.items()}
    if siblings > 1:
        return {}, None  # several at once, each with a table of its own
    for name, entry in own.items():
        comment = entry.comment or (found[name].comment if name in found else "")
        found[name] = Entry(entry.value, comment)
    return found, base


def _defaults(path: Path) -> list[str]:
    """The lines of a yaml's defaults list."""
    block = re.search(r"^defaults:\n((?:  - .*\n?)+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.strip()[2:].split(" #")[0].strip() for line in block[1].splitlines()] if block else []


def _about(path: Path) -> str:
    """The comment at the beginning of a yaml, as one paragraph, without the lines of commands."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(("# @package", "#   ")):
            lines.append(line[2:])
    return " ".join(lines)


@cache
def _lines(path: Path) -> dict[str, Entry]:
    """Every key of a yaml with its value as written and the comment beside it, nested ones with dots."""
    found: dict[str, Entry] = {}
    above: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            continue
        indent, name, value, comment = len(match[1]), match[2], match[3], match[4] or ""
        above = [(depth, key) for depth, key in above if depth < indent]
        full = ".".join([*(key for _, key in above), name])
        if value is None:
            above.append((indent, name))
            continue
        found[full] = Entry(value.strip(), comment)
    return found


def _table(keys: Any) -> Iterator[str]:
    yield "| key | default | may be | means |\n|---|---|---|---|"
    yield from (key.row() for key in keys)
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
