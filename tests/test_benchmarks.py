"""The benchmarks run: their figures are nobody's to test, but each has to come out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SHORT = {
    "overhead.py --steps 12": "difference",
    "bad_numbers.py --pairs 2 --steps 2": "without the guard",
    "startup.py --runs 1": "until the first step",
    "startup.py --runs 1 --logged": "ratio",
    "speed.py training --rounds 1 --seconds 0.1 --batch 4 --only ddpm*": "ddpm in a plain loop, bf16",
    "speed.py sampling --rounds 1 --seconds 0.1 --batch 2 --steps 3 --only ddpm*": "ddpm, bf16",
    "data.py IMAGES --large 3000": "MB",
    "interruptions.py": "| 1,000 |",
    "full_disk.py --only cache": "none wrong",
    "decoding.py --rounds 1": "2000x1500 to 256, EDM",
    "devices.py training --batch 2 --steps 5 --rounds 1 --network tiny": "| 2 | ",
    "devices.py sampling --images 64 --rounds 1": "of the time of one",
    "sharding.py --channels 32": "fsdp of ddp: 0.5",
    "sweeps.py endurance --jobs 6": "yes  no process is left",
    "checkpoints.py --channels 32 --rounds 2": "training stops",
}


def run(words: list[str], cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", SHORT)
def test_it_comes_to_its_end(command: str, tmp_path: Path):
    images = tmp_path / "images" / "a"
    images.mkdir(parents=True)
    for i in range(100):
        Image.fromarray(np.full((32, 32, 3), (i, 0, 255 - i), np.uint8)).save(images / f"{i}.png")
    words = command.replace("IMAGES", str(images.parent)).split()
    assert SHORT[command] in run(words, tmp_path)


def test_samples_of_digits_are_judged(smoke_run: Path, tmp_path: Path):
    said = run(["digits_quality.py", str(smoke_run), "--n", "8", "--seeds", "0"], tmp_path)
    assert "frechet" in said
    assert "round trip" in said
