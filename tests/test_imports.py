"""Dependencies point one way, and heavy packages stay out of where they are not needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "src" / "ddpm"
LAYERS = (
    {"errors", "random", "signatures", "diffusion", "networks"},
    {"bounded", "options", "targets"},
    {"migration", "runtime", "doctor"},
    {"data"},
    {"sampling"},
    {"training"},
    {"run"},
    {"evaluation", "interop"},
    {"report"},
    {"app"},
    {"__main__"},
)
"""A room imports from the layers above its own in this list, that is, from below, and within itself."""

ALONE = {
    "diffusion": {"diffusion"},
    "networks": {"networks"},
    "random": set(),
    "doctor": {"doctor", "diffusion", "random"},
}
"""What some rooms import is less than their layer would let them."""


def room_of(module: str) -> str:
    return module.removeprefix("ddpm.").split(".")[0]


def allowed_for(room: str) -> set[str]:
    if room in ALONE:
        return ALONE[room]
    depth = next(i for i, layer in enumerate(LAYERS) if room in layer)
    return {room, *(name for layer in LAYERS[:depth] for name in layer)}


def _is_room(name: str) -> bool:
    return any((PACKAGE / entry).exists() for entry in (name, f"{name}.py"))


def imported(path: Path) -> list[str]:
    """Every module that a file names in an import, wherever it stands in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found += [
                f"ddpm.{alias.name}" if node.module == "ddpm" and _is_room(alias.name) else node.module
                for alias in node.names
            ]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


@pytest.mark.e2e
@pytest.mark.parametrize("module", ["ddpm", "ddpm.diffusion", "ddpm.diffusion.samplers", "ddpm.networks"])
def test_mathematics_and_networks_need_torch_only(module: str):
    heavy = {"lightning", "hydra", "wandb", "sklearn"}
    code = f"import sys, {module}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path):
    inner = path.relative_to(PACKAGE).with_suffix("").parts
    room = inner[0]
    for name in imported(path):
        if name == "hydra" or name.startswith(("hydra.", "hydra_plugins")):
            assert room == "app", f"{name}: only app imports Hydra"
        if not name.startswith("ddpm."):
            continue
        if room == "__init__":
            assert room_of(name) != "app"
        else:
            assert room_of(name) in allowed_for(room), f"{room} imports {name}"


def test_every_room_has_its_layer():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert rooms == set().union(*LAYERS)


def test_no_module_is_a_grab_bag():
    names = {path.stem for path in Path(PACKAGE).rglob("*.py")} | {
        p.name for p in PACKAGE.rglob("*") if p.is_dir()
    }
    assert not {"utils", "helpers", "misc", "common"} & names
