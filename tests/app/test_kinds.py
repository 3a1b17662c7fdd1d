"""A value is of the kind that an annotation asks for, or is refused by its key."""

import ast
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from ddpm import signatures, targets
from ddpm.app import check, groups
from ddpm.app.kinds import fitted
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.image_files import ImageFiles
from ddpm.errors import UsageError
from ddpm.options import read


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        ("int", 3, 3),
        ("int", 1e5, 100_000),
        ("float", 3, 3),
        ("float", 0.5, 0.5),
        ("float | None", None, None),
        ("bool", True, True),
        ("str", "x", "x"),
        ("str", 2026, "2026"),
        ("str | Path", "x", "x"),
        ("int | str", "x", "x"),
        ("bool | Literal['auto']", "auto", "auto"),
        ("Sequence[int]", [1, 2], [1, 2]),
        ("Sequence[int]", [1, 2e0], [1, 2]),
        ("collections.abc.Sequence[int] | None", None, None),
        ("int | Sequence[int]", 8, 8),
        ("int | Sequence[int]", [8, 9], [8, 9]),
        ("tuple[float, float]", [0.9, 0.999], [0.9, 0.999]),
        ("tuple[float | torch.Tensor, float | torch.Tensor]", [0.9, 1], [0.9, 1]),
        ("typing.Optional[float]", None, None),
        ("Union[int, str, NoneType]", 3, 3),
        ("Mapping[str, Any]", {"a": 1}, {"a": 1}),
        ("dict[str, float]", {"a": 1}, {"a": 1}),
        ("Sampler", 3, 3),  # a class of ours: its constructor knows
        ("Any", [1], [1]),
        ("list[Any] | None", ["a", 1], ["a", 1]),
        ("int", {"_target_": "x"}, {"_target_": "x"}),  # is built first
        ("no annotation at all [", 3, 3),
    ],
)
def test_what_fits(annotation: str, value: Any, result: Any):
    found = fitted("key", annotation, value)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        ("int", 2.5, "key=2.5: must be a whole number"),
        ("int", True, "key=True: must be a whole number"),
        ("int", "3", "key=3: must be a whole number"),
        ("int", None, "key=null: must be a whole number"),
        ("int | None", "many", "key=many: must be a whole number or null"),
        ("float", "much", "key=much: must be a number"),
        ("float", False, "key=False: must be a number"),
        ("bool", "yes", "key=yes: must be true or false"),
        ("bool", 1, "key=1: must be true or false"),
        ("str", ["x"], r"key=\['x'\]: must be text"),
        ("str | None", True, "key=True: must be text or null"),
        ("Literal['norm', 'value']", "max", "key=max: must be norm or value"),
        ("Sequence[int]", 3, r"key=3: must be a list \[...\] of whole numbers"),
        ("Sequence[int]", [1, "x"], r"must be a list \[...\] of whole numbers"),
        ("tuple[float, float]", [1.0], r"must be a list \[...\]"),
        ("dict[str, float]", 3, r"must be keys and values \{...\}"),
        ("int | str", [1], "must be a whole number or text"),
    ],
)
def test_what_does_not(annotation: str, value: Any, message: str):
    with pytest.raises(UsageError, match=message):
        fitted("key", annotation, value)


def nodes() -> list[tuple[str, dict[str, Any]]]:
    """Every option of conf/ that one of our constructors builds, one a constructor."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for file in sorted((ROOT / "conf").glob("*/*.yaml")):
        node = read(file)
        if targets.is_ours(str(node.get("_target_"))):
            node = {
                name: 100 if "${" in str(value) else value
                for name, value in node.items()
                if name != "defaults"
            }
            found.setdefault(node["_target_"], (file.parent.name, node))
    return list(found.values())


def settings() -> list[Any]:
    """Every number that one of our constructors takes."""
    return [
        pytest.param(group, node, name, id=f"{node['_target_'].rpartition('.')[2]}.{name}")
        for group, node in nodes()
        for name, annotation in signatures.read(node["_target_"]).annotations.items()
        if set(annotation.split(" | ")) & {"int", "float"}
        and name not in groups.provided(group, signatures.read(node["_target_"]).names)
    ]


@pytest.mark.parametrize(("group", "node", "name"), settings())
def test_every_number_of_ours_is_a_number(group: str, node: dict[str, Any], name: str):
    for value in ("many", True, {"a": 1}, float("nan"), float("inf"), -float("inf")):
        filled = {key: "x" if given == "???" else given for key, given in node.items()}
        with pytest.raises(UsageError, match=rf"^{group}\.{name}=.*: must be "):
            check.check_group(group, {**filled, name: value})


def test_a_signature_is_read_with_its_annotations():
    from ddpm.diffusion.samplers import DDIM

    read = signatures.read("ddpm.diffusion.samplers.DDIM")
    assert read is not None
    assert read.annotations.keys() == {n for n in inspect.signature(DDIM).parameters}
    assert read.annotations["eta"] == "float"


@dataclass(frozen=True)
class Below(ImageFiles):
    """Gives a default to what its base asks for, another to what has one, and asks for more."""

    path: str = "here"
    channels: int = 3
    more: int | None = field(kw_only=True)


def test_a_dataclass_takes_what_its_bases_take():
    for name in ("ddpm.data.sources.folder.Folder", "ddpm.data.sources.archive.Archive"):
        read = signatures.read(name)
        assert read is not None
        assert len(read.names) == len(set(read.names))
        assert set(read.names) == set(inspect.signature(Folder).parameters)
        assert read.required == {"path"}
    file = Path(__file__)
    own = signatures._definitions(file)["Below"]
    assert isinstance(own, ast.ClassDef)
    read = signatures._of_class(own, file)
    assert read is not None
    assert set(read.names) == set(inspect.signature(Below).parameters)
    assert read.required == {"more"}
    assert (read.annotations["channels"], read.annotations["more"]) == ("int", "int | None")
