"""A run that is killed and continued by the same command leaves what an undisturbed one leaves: the short
form of `benchmarks/kills.py`, which kills at many more moments.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT

pytestmark = pytest.mark.e2e

HARNESS = ROOT / "benchmarks" / "kills.py"


@pytest.mark.long
def test_kills_in_a_validation_and_behind_the_last_step_leave_no_trace(tmp_path: Path):
    words = ["--kills", "2", "--steps", "12", "--aims", "validation", "end", "--keep", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(HARNESS), *words], cwd=tmp_path, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills in 1 chains on 1 device(s): 0 chains differ" in done.stdout
    assert "(validation" in done.stdout
    assert "end 12" in done.stdout


@pytest.fixture
def harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kills", HARNESS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def left(directory: Path) -> Path:
    """What the harness looks at."""
    state = {
        "global_step": 4,
        "state_dict": {"w": torch.ones(2)},
        "ema": {},
        "optimizer_states": [{"m": 0.5}],
    }
    state |= {"lr_schedulers": [], "timesteps": {}}
    for name in ("checkpoints", "samples"):
        (directory / name).mkdir(parents=True)
    for name in ("last.ckpt", "best.ckpt"):
        torch.save(state, directory / "checkpoints" / name)
    (directory / "metrics.csv").write_text("step,train/loss,perf/mfu\n3,0.5,0.1\n")
    (directory / "samples" / "step_00000004.png").write_bytes(b"picture")
    return directory


@pytest.mark.parametrize(
    ("path", "contents", "said"),
    [
        ("metrics.csv", b"step,train/loss,perf/mfu\n3,0.5,0.9\n", None),
        ("metrics.csv", b"step,train/loss,perf/mfu\n3,0.25,0.1\n", "metrics.csv"),
        ("metrics.csv", b"step,train/loss,perf/mfu\n3,0.5,0.1\n4,,\n", "metrics.csv: steps"),
        ("metrics.csv", b"step,perf/mfu,train/loss\n3,0.1,0.5\n", "metrics.csv: its header"),
        ("samples/step_00000004.png", b"another", "step_00000004.png"),
        ("samples/step_00000007.png", b"picture", "samples: which there are"),
    ],
)
def test_what_differs_is_seen(
    harness: ModuleType, tmp_path: Path, path: str, contents: bytes, said: str | None
):
    one, other = left(tmp_path / "one"), left(tmp_path / "other")
    assert harness.differences(one, other) == []
    (one / path).write_bytes(contents)
    found = harness.differences(one, other)
    assert bool(found) == (said is not None)
    assert said is None or said in "; ".join(found)


@pytest.mark.parametrize(
    ("part", "value"),
    [("state_dict", {"w": torch.tensor([1, 1.0000001])}), ("optimizer_states", [{"m": 0.6}])],
)
def test_what_differs_in_a_checkpoint_is_seen(harness: ModuleType, tmp_path: Path, part: str, value: object):
    one, other = left(tmp_path / "one"), left(tmp_path / "other")
    path = one / "checkpoints" / "last.ckpt"
    torch.save({**torch.load(path), part: value}, path)
    assert harness.differences(one, other) == [f"last.ckpt: {part}"]
