"""Other processes, and what is known about them."""

import os
import signal
import subprocess
import sys

import pytest

from ddpm.runtime import processes

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_a_process_is_known_by_its_start():
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    start = processes.start_of(sleeping.pid)
    assert start is not None
    assert start == processes.start_of(sleeping.pid)
    assert sleeping.pid in processes.descendants()
    processes.kill(sleeping.pid, "another's")
    assert sleeping.poll() is None
    processes.kill(sleeping.pid, start)
    assert sleeping.wait(timeout=20) == -signal.SIGKILL
    assert processes.start_of(sleeping.pid) is None
    assert sleeping.pid not in processes.descendants()


@linux
def test_one_that_is_stopped_lives_and_is_killed_all_the_same():
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    os.kill(sleeping.pid, signal.SIGSTOP)
    start = processes.start_of(sleeping.pid)
    assert start is not None
    processes.kill(sleeping.pid, start)
    assert sleeping.wait(timeout=20) == -signal.SIGKILL


@linux
def test_processes_of_one_machine_agree_on_where_they_are():
    code = "from ddpm.runtime import processes; print(processes.place())"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    ).stdout
    assert said.strip() == processes.place()
