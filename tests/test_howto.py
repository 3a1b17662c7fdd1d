"""The how-to pages and the tutorial: what needs nothing runs as it stands, the rest says what it needs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

PAGES = [page for part in ("howto", "tutorial") for page in sorted((ROOT / "docs" / part).glob("*.md"))]
NEEDS = re.compile(r"(?:#!.*\n)?# needs \S.*")


def blocks_of(page: Path, *kinds: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind in kinds]


def test_every_block_says_what_it_is():
    for page in PAGES:
        assert not blocks_of(page, ""), f"{page.name}: bash or yaml"
        if page.parent.name == "howto":
            assert all(NEEDS.match(block) for block in blocks_of(page, "yaml")), page.name


LONG = {"search", "comparing", "run_directory"}
"""Pages whose commands take minutes."""


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(
            page,
            block,
            id=f"{page.stem}-{number}",
            marks=pytest.mark.long if page.stem in LONG else pytest.mark.slow,
        )
        for page in PAGES
        for number, block in enumerate(blocks_of(page, "bash"))
        if not NEEDS.match(block)
    ],
)
def test_what_needs_nothing_runs_as_it_stands(page: Path, block: str, tmp_path: Path):
    if "hydra/launcher=slurm" in block:
        pytest.importorskip("submitit")
    for script in ("train.py", "sample.py", "evaluate.py"):
        (tmp_path / script).symlink_to(ROOT / script)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-e"], input=block, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [json.loads(file.read_text()) for file in tmp_path.rglob("run.json")]
    assert runs, done.stdout + done.stderr
    assert {run["status"] for run in runs} == {"finished"}, done.stdout + done.stderr


@pytest.mark.parametrize("number", range(len(blocks_of(ROOT / "docs" / "howto" / "kubernetes.md", "yaml"))))
def test_manifests_are_whole(number: int):
    """A Job with an image, a command, a volume behind each mount; the service that it names."""
    text = blocks_of(ROOT / "docs" / "howto" / "kubernetes.md", "yaml")[number]
    found = {part["kind"]: part for part in yaml.safe_load_all(text)}
    pod = found["Job"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    (line,) = container["args"]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert f"trainer.devices={gpus}" in line.split()
    if "Service" in found:
        service, job = found["Service"], found["Job"]
        assert pod["subdomain"] == service["metadata"]["name"]
        assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
        assert job["spec"]["completions"] == job["spec"]["parallelism"]
        nodes = job["spec"]["completions"]
        assert f"trainer.num_nodes={nodes}" in line.split()
        assert f"--rdzv-endpoint {job['metadata']['name']}-0.{pod['subdomain']}:" in line
