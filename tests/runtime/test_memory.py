"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that returns memory")
def test_a_step_uses_the_memory_of_the_step_before() -> None:
    """Without the call it is about 5,000 pages a step."""
    program = [sys.executable, "-c", PAGES]
    assert int(subprocess.run(program, capture_output=True, check=True, text=True).stdout) < 500
