"""What surrounds the mathematics, right and wrong."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import old_bound
import pytest
from conftest import composed
from mps import mps

from ddpm.diffusion import weighting
from ddpm.doctor import environment


def test_here_everything_is_right():
    lines = [*environment.versions(), *environment.device_lines(environment.devices())]
    assert {"python", "torch", "hydra-core", "device: cpu", "losses on: cpu"} <= {
        line.check for line in lines
    }
    assert all(line.passed for line in lines), lines


def test_a_mac_passes_by_what_it_computes_and_not_by_being_there(monkeypatch: pytest.MonkeyPatch):
    with mps() as gpu:
        lines = list(environment.device_lines({str(gpu.device): "Apple GPU"}))
        assert [line.passed for line in lines] == [True, True], lines
        assert "float64 on the CPU only" in lines[1].compared
        monkeypatch.setattr(weighting, "bound_term", old_bound.bound_term)  # which needs log_ndtr
        lines = list(environment.device_lines({str(gpu.device): "Apple GPU"}))
        assert [line.passed for line in lines] == [True, False]
        assert "log_ndtr" in lines[1].why


def test_a_version_that_is_too_old_and_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch):
    found = environment.metadata.version

    def version(name: str) -> str:
        if name == "rich":
            raise environment.metadata.PackageNotFoundError(name)
        return "2.0.1" if name == "torch" else found(name)

    monkeypatch.setattr(environment.metadata, "version", version)
    failed = {line.check: line for line in environment.versions() if not line.passed}
    assert set(failed) == {"torch", "rich"}
    assert failed["torch"].worst == "2.0.1"
    assert ">=" in failed["torch"].allowed
    assert "not installed" in failed["rich"].why


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms"),
        ("import os; os._exit(139)", "exit code 139"),
        ("", ""),
    ],
)
def test_a_torchvision_that_does_not_match(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is imported elsewhere: what it does to a process is not done to this one."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(source)
    (tmp_path / "torchvision-0.1.dist-info").mkdir()
    about = "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1\n"
    (tmp_path / "torchvision-0.1.dist-info" / "METADATA").write_text(about)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(environment, "IMPORTED", ("torchvision",))
    (line,) = environment.imports(environment.start_importing())
    assert line.passed == (not why)
    if why:
        assert why in line.why
        assert "torchvision 0.1 does not match torch" in line.why
    assert "torchvision" not in sys.modules


def test_what_does_not_come_to_an_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "standing").mkdir()
    (tmp_path / "standing" / "__init__.py").write_text("import time; time.sleep(60)")
    (tmp_path / "standing-0.1.dist-info").mkdir()
    about = "Metadata-Version: 2.1\nName: standing\nVersion: 0.1\n"
    (tmp_path / "standing-0.1.dist-info" / "METADATA").write_text(about)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(environment, "IMPORTED", ("standing",))
    monkeypatch.setattr(environment, "TO_IMPORT", 0.5)
    (line,) = environment.imports(environment.start_importing())
    assert line.why == "is not imported within 0.5 s; try again, or install it anew"


def test_what_is_not_installed_cannot_be_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "IMPORTED", ("no_such_package",))
    (line,) = environment.imports(environment.start_importing())
    assert not line.passed


def test_logs_are_written_and_nothing_is_left(tmp_path: Path):
    assert environment.logs(tmp_path).passed
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "logs").write_text("a file where a directory should be")
    line = environment.logs(tmp_path)
    assert not line.passed
    assert "cannot be written" in line.why


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**29))
    line = environment.disk(tmp_path)
    assert not line.passed
    assert line.worst == "0.5 GiB"


def test_whether_there_is_a_key_for_wandb_and_not_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    assert "no API key" in environment.weights_and_biases().compared
    file.write_text("machine api.wandb.ai login user password secret\n")
    line = environment.weights_and_biases()
    assert "an API key" in line.compared
    assert "secret" not in str(line)
    assert composed("train", re.search(r"logger\S+", line.compared)[0])["logger"]["wandb"]["mode"] == "online"
    file.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert "an API key" in environment.weights_and_biases().compared
