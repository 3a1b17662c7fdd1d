"""Dependencies point one way, and heavy packages stay out of where they are not needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "src" / "ddpm"
MAY_IMPORT = {
    "diffusion": {"diffusion"},
    "networks": {"networks"},
    "data": {"data", "networks.inputs", "training.randomness"},
    "training": {"training", "data", "diffusion", "networks"},
    "interop": {"interop", "training", "data", "diffusion", "networks"},
    "evaluation": {"evaluation", "training", "data", "diffusion", "networks"},
}


@pytest.mark.parametrize("module", ["ddpm", "ddpm.diffusion", "ddpm.diffusion.samplers", "ddpm.networks"])
def test_mathematics_and_networks_need_torch_only(module: str):
    heavy = {"lightning", "hydra", "wandb", "sklearn"}
    code = f"import sys, {module}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_the_rooms_below_it(room: str):
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("hydra"), f"{path.name} imports {name}"
                if name.startswith("ddpm."):
                    inner = name.removeprefix("ddpm.")
                    allowed = any(inner == a or inner.startswith(f"{a}.") for a in MAY_IMPORT[room])
                    assert allowed, f"{path.relative_to(PACKAGE)} imports {name}"


def test_no_module_is_a_grab_bag():
    names = {path.stem for path in Path(PACKAGE).rglob("*.py")} | {
        p.name for p in PACKAGE.rglob("*") if p.is_dir()
    }
    assert not {"utils", "helpers", "misc", "common"} & names
