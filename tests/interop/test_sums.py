"""Checksums beside what is exported, and damage of it."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from ddpm.interop import sums
from ddpm.interop.diffusers import WEIGHTS, export_run, import_pipeline


@pytest.fixture(scope="module")
def exported(conditional_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(conditional_run, tmp_path_factory.mktemp("exported") / "out")


def test_every_file_is_listed_as_sha256sum_reads_it(exported: Path):
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum here")
    outcome = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"],
        cwd=exported,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert outcome.returncode == 0, outcome.stderr
    listed = {line.split("  ")[1] for line in (exported / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert listed == there - {"SHA256SUMS"}


def test_one_flipped_bit_or_a_torn_file_is_refused_wherever_it_is(exported: Path, tmp_path: Path):
    """50 damages of an exported directory."""
    random = np.random.default_rng(0)
    files = sorted(path for path in exported.rglob("*") if path.is_file())
    for damage in range(50):
        place = tmp_path / str(damage)
        shutil.copytree(exported, place)
        file = place / files[damage % len(files)].relative_to(exported)
        written = bytearray(file.read_bytes())
        at = int(random.integers(len(written)))
        if damage % 5 == 4:
            written = written[:at]
        else:
            written[at] ^= 1 << int(random.integers(8))
        file.write_bytes(written)
        with pytest.raises(ValueError, match=r"\w: "):
            import_pipeline(place, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        shutil.rmtree(place)


def test_what_lists_no_checksums_is_imported_if_it_is_finite(exported: Path, tmp_path: Path):
    (exported / sums.SUMS).unlink()
    try:
        import_pipeline(exported, tmp_path / "run")
        weights = load_file(exported / "unet" / WEIGHTS[0])
        name = min(weights)
        weights[name].view(-1)[3] = float("nan")
        shutil.copytree(exported, tmp_path / "nan")
        from safetensors.torch import save_file

        save_file(weights, tmp_path / "nan" / "unet" / WEIGHTS[0])
        with pytest.raises(ValueError, match=rf"{name} holds numbers that are not finite"):
            import_pipeline(tmp_path / "nan", tmp_path / "run2")
    finally:
        sums.write(exported)


def test_a_file_that_is_not_listed_is_not_read(exported: Path, tmp_path: Path):
    shutil.copytree(exported, tmp_path / "out")
    lines = (exported / sums.SUMS).read_text().splitlines()
    (tmp_path / "out" / sums.SUMS).write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ValueError, match="is not listed in SHA256SUMS"):
        import_pipeline(tmp_path / "out", tmp_path / "run")
    config = tmp_path / "out" / "unet" / "config.json"
    (tmp_path / "out" / sums.SUMS).write_text("\n".join(lines))
    config.write_text(json.dumps({**json.loads(config.read_text()), "layers_per_block": 2}))
    with pytest.raises(ValueError, match=r"config\.json: is damaged, or was changed"):
        import_pipeline(tmp_path / "out", tmp_path / "run")
