"""What several devices cost and bring: processes of one thread on a CPU, or GPUs.

    python benchmarks/devices.py training --batch 8 32     DDP on two, beside two runs that share nothing
    python benchmarks/devices.py scaling                   a step of a very small network on 1 to 8 processes
    python benchmarks/devices.py sampling                  sample.py on one and on two
    python benchmarks/devices.py training --accelerator gpu --devices 4 --batch 512

Training: `train.py` with the network of CIFAR-10 on random images of its size, by DDP, beside as many
independent runs at once of one device each, with their part of the batch; both have as many cores and as
many images a step in all. They take turns. The ratio is that of the images a second; `waits` is the share of
a step that DDP waits for gradients (perf/rank_wait), `reduce` the seconds that the reduction of as many
numbers takes by itself.

Scaling: seconds of a step beyond those of one process, for each further process.

Sampling: seconds between two lines of sample.log, all ranks being there and the images written.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]

COMMON = (
    "logger=none", "callbacks=none", "trainer.limit_val_batches=0", "trainer.val_check_interval=100000",
    "model.dropout=0",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("training", "scaling", "sampling"))
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="the global batch")
    parser.add_argument("--steps", type=int, default=15, help="that are measured, after five that are not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", default="cifar10", help="an option of conf/model")
    parser.add_argument("--images", type=int, default=512, help="of sampling")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        globals()[arguments.what](arguments, Path(folder))


def environment(accelerator: str, device: int | None = None) -> dict[str, str]:
    """One thread a process; of a GPU alone, that one."""
    chosen = {} if device is None or accelerator == "cpu" else {"CUDA_VISIBLE_DEVICES": str(device)}
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **chosen}


def images(folder: Path, size: int = 32, channels: int = 3) -> Path:
    """Random images in a file."""
    path = folder / "images.npz"
    chance = np.random.default_rng(0)
    np.savez(path, train=chance.integers(0, 256, (2048, size, size, channels), dtype=np.uint8))
    return path


def started(
    folder: Path, name: str, arguments: argparse.Namespace, devices: int, batch: int, *words: str,
    device: int | None = None,
) -> "subprocess.Popen[bytes]":  # fmt: skip
    """A training in a process of its own."""
    command = [
        sys.executable, str(ROOT / "train.py"), "data=npz", f"data.path={folder / 'images.npz'}",
        f"trainer.accelerator={arguments.accelerator}", f"trainer.devices={devices}",
        f"data.batch_size={batch}", f"trainer.max_steps={5 + arguments.steps}", "trainer.log_every_n_steps=5",
        f"hydra.run.dir={folder / name}", f"data.cache_dir={folder / 'cache'}", *COMMON, *words,
    ]  # fmt: skip
    with (folder / f"{name}.log").open("w") as said:
        return subprocess.Popen(
            command, env=environment(arguments.accelerator, device), stdout=said, stderr=said
        )


def measured(directory: Path) -> dict[str, float]:
    """Means over the rows after the first, which holds what happens once."""
    with (directory / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("perf/steps_per_second")][1:]
    names = ("perf/steps_per_second", "perf/rank_wait")
    return {name: statistics.mean(float(row[name]) for row in rows) for name in names if rows[0].get(name)}


def waited(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        if process.wait() != 0:
            sys.exit(f"a run has failed: {process.args}")


def training(arguments: argparse.Namespace, folder: Path) -> None:
    images(folder)
    devices = arguments.devices
    print("| global batch | DDP, steps/s | independent | ratio | waits | reduce | one device, whole batch |")
    print("|---|---|---|---|---|---|---|")
    for batch in arguments.batch:
        found: dict[str, list[float]] = {name: [] for name in ("ddp", "alone", "ratio", "waits", "one")}
        for turn in range(arguments.rounds):
            name = f"{batch}-{turn}"
            model = f"model={arguments.network}"
            waited([started(folder, f"ddp-{name}", arguments, devices, batch, model, "strategy=ddp")])
            waited([
                started(
                    folder, f"alone-{name}-{i}", arguments, 1, batch // devices, model, f"seed={i}", device=i
                )
                for i in range(devices)
            ])  # fmt: skip
            waited([started(folder, f"one-{name}", arguments, 1, batch, model, device=0)])
            ddp = measured(folder / f"ddp-{name}")
            alone = [measured(folder / f"alone-{name}-{i}") for i in range(devices)]
            speed = statistics.mean(one["perf/steps_per_second"] for one in alone)
            found["ddp"].append(ddp["perf/steps_per_second"])
            found["alone"].append(speed)
            found["ratio"].append(ddp["perf/steps_per_second"] / speed)
            found["waits"].append(ddp.get("perf/rank_wait", float("nan")))
            found["one"].append(measured(folder / f"one-{name}")["perf/steps_per_second"])
        shown = {name: statistics.median(values) for name, values in found.items()}
        ratios = f"{shown['ratio']:.3f} ({min(found['ratio']):.3f} to {max(found['ratio']):.3f})"
        print(
            f"| {batch} | {shown['ddp']:.3f} | {shown['alone']:.3f} | {ratios} | {shown['waits']:.1%} | "
            f"{reduction(arguments):.3f} s | {shown['one']:.3f}, {shown['ddp'] / shown['one']:.2f} times |",
            flush=True,
        )


REDUCE = """
import os, statistics, sys, time, torch
torch.set_num_threads(1)
rank, world, on_gpu = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "gpu"
if on_gpu:
    torch.cuda.set_device(rank)
torch.distributed.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=world)
numbers = torch.zeros(35_746_307, device="cuda" if on_gpu else "cpu")
seconds = []
for _ in range(7):
    begin = time.perf_counter()
    torch.distributed.all_reduce(numbers)
    if on_gpu:
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - begin)
if rank == 0:
    print(statistics.median(seconds[2:]))
"""


def reduction(arguments: argparse.Namespace) -> float:
    """Seconds in which the gradients of CIFAR-10's network are summed over the ranks, and nothing else."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", REDUCE, str(rank), str(arguments.devices), arguments.accelerator],
            env={**environment("cpu"), **where}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(arguments.devices)
    ]  # fmt: skip
    said, *_ = (rank.communicate()[0] for rank in ranks)
    return float(said)


def scaling(arguments: argparse.Namespace, folder: Path) -> None:
    images(folder, 8, 1)
    print("| processes | steps/s | ms a step | ms for each further process |")
    print("|---|---|---|---|")
    alone = 0.0
    for devices in (1, 2, 4, 8):
        speeds = []
        for turn in range(arguments.rounds):
            name = f"{devices}-{turn}"
            waited([started(folder, name, arguments, devices, 8, "model=smoke", "model.channels=8")])
            speeds.append(measured(folder / name)["perf/steps_per_second"])
        took = 1000 / statistics.median(speeds)
        alone = alone or took
        more = (took - alone) / (devices - 1) if devices > 1 else 0.0
        print(f"| {devices} | {1000 / took:.2f} | {took:.1f} | {more:.1f} |", flush=True)


def sampling(arguments: argparse.Namespace, folder: Path) -> None:
    images(folder)
    arguments.steps = 0
    waited([started(folder, "run", arguments, 1, 8, "model=tiny", "callbacks=default")])
    found: dict[int, list[float]] = {1: [], arguments.devices: []}
    for turn in range(arguments.rounds):
        for devices, seconds in found.items():
            out = folder / f"out-{devices}-{turn}"
            begin = time.monotonic()
            command = [
                sys.executable, str(ROOT / "sample.py"), f"ckpt={folder / 'run'}", f"out={out}",
                "batch_size=16",
                f"n={arguments.images}", "sampler=ddim", "sampler.num_steps=50",
                f"trainer.accelerator={arguments.accelerator}", f"trainer.devices={devices}",
            ]  # fmt: skip
            subprocess.run(command, env=environment(arguments.accelerator), check=True, capture_output=True)
            seconds.append(drawn(out / "sample.log"))
            print(
                f"{devices}: {seconds[-1]:.1f} s, with the start {time.monotonic() - begin:.1f} s", flush=True
            )
    one, several = (statistics.median(seconds) for seconds in found.values())
    print(f"{arguments.devices} devices take {several / one:.3f} of the time of one")


def drawn(file: Path) -> float:
    """Seconds between the line by which all ranks begin, and the last."""
    lines = [line for line in file.read_text().splitlines() if line[:2] == "20"]
    begun = next(line for line in lines if "INFO drawing" in line)
    first, last = (datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f") for line in (begun, lines[-1]))
    return (last - first).total_seconds()


if __name__ == "__main__":
    main()
