"""How long training stops for a checkpoint, against a plain `torch.save`, and what memory it takes.

    python benchmarks/checkpoints.py                                     a checkpoint of 1 GiB
    python benchmarks/checkpoints.py --channels 32 --rounds 2            a small one
    python benchmarks/checkpoints.py --device cuda --directory /scratch

The paper's CIFAR-10 network, wider: 256 MiB of weights, as much of their average, twice as much of Adam's
moments. In turn it is saved as the program saves (in the background) and by `torch.save` with a flush; each
starts when the disk has the one before. "training stops" is the time until the next step can begin. The
first time stands alone. Memory is what the process has had at most, beyond what it had before the first
checkpoint.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ddpm.networks.unet import UNet
from ddpm.training.checkpoints import AtomicCheckpointIO, load
from ddpm.training.checkpoints.layout import tensors_in
from ddpm.training.checkpoints.snapshot import room
from ddpm.training.ema import EMA


def made(channels: int, device: torch.device) -> dict[str, Any]:
    """What a run of Adam with an average saves."""
    network = UNet(
        3, 3, channels=channels, multipliers=(1, 2, 2, 2), blocks=2, attention_levels=(1,), norm_groups=16
    ).to(device)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    average = EMA(network)
    return {
        "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
        "ema": average.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "config": None,
        "global_step": 1,
    }


def plainly(checkpoint: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


def seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def peak() -> float:
    """The most memory that this process has had, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--channels", type=int, default=176, help="of the network: 176 for 256 MiB of weights"
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--directory", help="where to write; a temporary one by default")
    arguments = parser.parse_args()
    checkpoint = made(arguments.channels, arguments.device)
    size = room(tensor for _, tensor in tensors_in(checkpoint, ""))
    gpu = arguments.device if arguments.device.type == "cuda" else None
    before = peak()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        path = Path(directory, "a.ckpt")
        writer = AtomicCheckpointIO(background=True)
        preparing = seconds(lambda: (writer.prepare(size, gpu), writer.wait()))
        columns: dict[str, list[float]] = {"stops": [], "written": [], "plain": []}
        memory: list[float] = []
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            columns["stops"].append(seconds(lambda: writer.save_checkpoint(checkpoint, path)))
            writer.wait()
            columns["written"].append(time.perf_counter() - start)
            memory.append(peak() - before)
            columns["plain"].append(seconds(lambda: plainly(checkpoint, Path(directory, "plain.ckpt"))))
        reading = [seconds(lambda: load(path)) for _ in range(2)]
        writer.teardown()
        unprepared = AtomicCheckpointIO(background=True)
        new = seconds(lambda: unprepared.save_checkpoint(checkpoint, path))
        unprepared.teardown()
    size_in_gib = size / 2**30
    print(f"a checkpoint of {size_in_gib:.3f} GiB on {arguments.device}, seconds for each GiB of it:")
    for name, said in {
        "stops": "training stops",
        "written": "until it is checked, written and flushed",
        "plain": "training stops for torch.save and a flush",
    }.items():
        first, *later = (value / size_in_gib for value in columns[name])
        median, most = statistics.median(later), max(later)
        print(f"  {said:<42} first {first:.3f}, then median {median:.3f}, most {most:.3f}")
    print(f"  {'memory made ready behind the first steps':<42} {preparing / size_in_gib:.3f}")
    print(f"  {'training stops where it was not ready':<42} {new / size_in_gib:.3f}")
    print(f"  {'read and checked':<42} {min(reading) / size_in_gib:.3f}")
    print(f"memory beyond the run's own, at most: {memory[-1] / size_in_gib:.2f} times the checkpoint")


if __name__ == "__main__":
    main()
