"""Two nodes of two processes each, in network namespaces that a cable joins, beside one process."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.long]

STEPS = 40

WAITS = 40
"""Seconds that a rank waits for the others: longer than four starts beside other tests lie apart."""

ALONE = (
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"),
    *("sh", "-c", 'hostname "$0"; exec "$@"'),
)
"""Runs a command where no process of elsewhere can be seen, under a host name that comes next."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


def may_have_networks() -> bool:
    """Whether this system lets us make network namespaces; containers often do not."""
    try:
        subprocess.run([*ALONE, "try", "true"], check=True, capture_output=True, timeout=20)
        ip("netns", "add", "ddpm-try")
    except (OSError, subprocess.SubprocessError):
        return False
    ip("netns", "delete", "ddpm-try")
    return True


if sys.platform != "linux" or not may_have_networks():
    pytest.skip("network namespaces cannot be made here", allow_module_level=True)


class Nodes:
    """Two machines as far as a network is concerned, which share their files."""

    def __init__(self) -> None:
        self.names = [f"ddpm{os.getpid()}-{node}" for node in range(2)]
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        other = ("peer", "name", "cable0", "netns", self.names[1])
        ip("link", "add", "cable0", "netns", self.names[0], "type", "veth", *other)
        for node, name in enumerate(self.names):
            ip("-n", name, "address", "add", f"10.77.0.{node + 1}/24", "dev", "cable0")
        self.join()

    def join(self) -> None:
        for name in self.names:
            ip("-n", name, "link", "set", "cable0", "up")

    def cut(self) -> None:
        ip("-n", self.names[1], "link", "set", "cable0", "down")

    def remove(self) -> None:
        for name in self.names:
            with suppress(subprocess.SubprocessError):
                ip("netns", "delete", name)

    def start(self, directory: Path, *words: str) -> "list[subprocess.Popen[str]]":
        """The same command on both."""
        where = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29513", "GLOO_SOCKET_IFNAME": "cable0"}
        clean = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "RANK")}
        return [
            subprocess.Popen(
                [
                    *("ip", "netns", "exec", name, *ALONE, f"node{node}"),
                    *(sys.executable, str(ROOT / "train.py")),
                    *(*command(directory), "trainer.devices=2", "trainer.num_nodes=2", *words),
                ],
                env={**clean, **where, "NODE_RANK": str(node)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=directory.parent,
            )
            for node, name in enumerate(self.names)
        ]


def command(directory: Path) -> list[str]:
    """A large rate without warm-up: at a small one, ranks that share nothing would still agree."""
    return [
        "experiment=smoke", "logger=none", "callbacks.samples=null", "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=1", f"trainer.max_steps={STEPS}", "callbacks.checkpoints.every_n_steps=5",
        "data.batch_size=32", "model.dropout=0", f"hydra.run.dir={directory}",
    ]  # fmt: skip


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    try:
        yield found
    finally:
        found.remove()


def ended(processes: "list[subprocess.Popen[str]]", seconds: float) -> tuple[list[int], list[str]]:
    """Exit codes and what was said; none may outlive the seconds."""
    said = []
    until = time.monotonic() + seconds
    try:
        for process in processes:
            said.append(process.communicate(timeout=max(1.0, until - time.monotonic()))[0])
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
    return [process.returncode for process in processes], said


def losses(directory: Path) -> list[float]:
    with (directory / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_they_train_as_one_process_and_go_on_after_the_cable_was_cut(nodes: Nodes, tmp_path: Path):
    one = tmp_path / "one"
    alone = [sys.executable, str(ROOT / "train.py"), *command(one), "trainer.devices=1"]
    subprocess.run(alone, check=True, capture_output=True, timeout=200, cwd=tmp_path)
    whole = tmp_path / "whole"
    codes, said = ended(nodes.start(whole), 200)
    assert codes == [0, 0], "\n".join(said)
    torch.testing.assert_close(losses(whole), losses(one), rtol=1e-5, atol=1e-6)

    cut = tmp_path / "cut"
    processes = nodes.start(cut, f"timeout={WAITS}")
    until = time.monotonic() + 100
    while time.monotonic() < until and not (cut / "checkpoints" / "step_00000010.ckpt").exists():
        time.sleep(0.05)
    nodes.cut()
    codes, said = ended(processes, WAITS + 80)
    assert all(code != 0 for code in codes), said
    why = json.loads((cut / "run.json").read_text())["why"]
    assert "on node1" in why, said
    assert f"timeout={WAITS}" in why
    assert why in said[0]  # once, by the leader, since the other node sees that it is recorded

    nodes.join()
    codes, said = ended(nodes.start(cut), 200)
    assert codes == [0, 0], "\n".join(said)
    assert len(losses(cut)) == STEPS
    assert losses(cut) == losses(whole)
    one_dir = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert one_dir == {"one", "whole", "cut"}
