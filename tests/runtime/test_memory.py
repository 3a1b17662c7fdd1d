"""Memory is what the process may hold; freed memory stays with it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm.runtime import memory
from ddpm.runtime.memory import GIB, memory_of, peak_memory

PAGES = """
import resource
import torch
from ddpm.networks import UNet
from ddpm.runtime.memory import keep_freed_memory

assert keep_freed_memory()
torch.manual_seed(0)
network = UNet(1, 1, channels=32, multipliers=(1, 2), blocks=1, norm_groups=8)

def step():
    network(torch.randn(64, 1, 8, 8), torch.zeros(64, dtype=torch.int64)).sum().backward()

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(5):
    step()
before = pages()
for _ in range(10):
    step()
print((pages() - before) // 10)
"""


@pytest.mark.e2e
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that returns memory")
def test_a_step_uses_the_memory_of_the_step_before() -> None:
    """Without the call it is about 5,000 pages a step."""
    program = [sys.executable, "-c", PAGES]
    assert int(subprocess.run(program, capture_output=True, check=True, text=True, timeout=300).stdout) < 500


CPU, MAC = torch.device("cpu"), torch.device("mps")


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a tree of control groups, in place of the machine's, which has 64 GiB."""
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_memory_of_machine", lambda: 64 * GIB)
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def limit(file: Path, to: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{to}\n")


@pytest.mark.parametrize(
    ("own", "limits", "gib"),
    [
        pytest.param("0::/\n", {"memory.max": 8 * GIB}, 8, id="a container"),
        pytest.param("0::/\n", {"memory.max": "max"}, 64, id="no limit"),
        pytest.param("0::/\n", {"memory.max": 128 * GIB}, 64, id="more than there is"),
        pytest.param("0::/\n", {}, 64, id="the root of the machine"),
        pytest.param(
            "0::/slurm/job_7/step_0\n",
            {"slurm/job_7/step_0/memory.max": "max", "slurm/job_7/memory.max": 4 * GIB, "memory.max": "max"},
            4,
            id="a job of a batch system",
        ),
        pytest.param(
            "5:cpu,memory:/docker/abc\n0::/docker/abc\n",
            {"memory/memory.limit_in_bytes": 2 * GIB, "memory.max": 3 * GIB},
            2,
            id="a container of version 1",
        ),
        pytest.param(
            "5:memory:/job\n",
            {"memory/job/memory.limit_in_bytes": 9223372036854771712},
            64,
            id="no v1 limit",
        ),
        pytest.param("3:cpu:/job\n", {"cpu/job/memory.max": GIB}, 64, id="not of memory"),
        pytest.param(None, {"memory.max": GIB}, 64, id="no Linux"),
    ],
)
def test_memory_is_what_the_process_may_hold(
    own: str | None, limits: dict[str, object], gib: int, cgroups: Path
) -> None:
    if own is not None:
        (cgroups / "own").write_text(own)
    for file, to in limits.items():
        limit(cgroups / "cgroup" / file, to)
    assert memory_of(CPU) == gib * GIB


def test_the_memory_of_this_machine_is_known() -> None:
    assert GIB // 4 < memory_of(CPU) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_windows_says_nothing_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails
    assert memory_of(CPU) == peak_memory(CPU) == 0


def test_the_memory_of_a_mac_is_asked_of_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * GIB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 5 * GIB)
    assert memory_of(MAC) == 12 * GIB
    assert peak_memory(MAC) == 5 * GIB
