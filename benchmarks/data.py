"""How fast images come, and what they cost in memory.

    python benchmarks/data.py IMAGES            a folder of images of 32x32, such as CIFAR-10's train/
    python benchmarks/data.py --large 1000000     so many synthetic images of 64x64, made on the spot

Prints a line for each figure. Nothing is kept: the cache and the synthetic images are temporary.
"""

import argparse
import itertools
import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.folder import Folder

MB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="?", type=Path)
    parser.add_argument("--large", type=int, metavar="N", default=0)
    parser.add_argument("--directory", type=Path, help="for what is temporary; needs 12 GB for a million")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(max(1, (os.cpu_count() or 1)))
    directory = Path(tempfile.mkdtemp(dir=arguments.directory))
    try:
        waiting()
        if arguments.images:
            folder(arguments.images, directory)
        if arguments.large:
            large(arguments.large, directory)
    finally:
        shutil.rmtree(directory)


def waiting(steps: int = 60) -> None:
    """The share of a training step that is spent on getting the batch: the tiny network on digits."""
    from hydra import compose, initialize_config_dir
    from lightning.pytorch import Trainer
    from lightning.pytorch.profilers import SimpleProfiler

    from ddpm.app import check, run_directory
    from ddpm.app.build import build_data, describe
    from ddpm.training.building import build_module

    run_directory.register_resolver()
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        config = check.plain(compose("train", ["experiment=digits_paper"]))
    data = build_data(config)
    profiler = SimpleProfiler()
    profiler.summary = lambda: ""
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        max_steps=steps,
        limit_val_batches=0,
        profiler=profiler,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(build_module(config, describe(data)), datamodule=data)
    durations = {name.split(".")[-1]: times[10:] for name, times in profiler.recorded_durations.items()}
    getting = [
        sum(pair)
        for pair in zip(durations["train_dataloader_next"], durations["batch_to_device"], strict=False)
    ]
    step = np.mean(durations["run_training_batch"]) + np.mean(getting)
    say("digits, tiny network: a step", f"{step * 1e3:.2f} ms")
    say(
        "  getting its batch",
        f"{np.mean(getting) * 1e6:.0f} us, {100 * np.mean(getting) / step:.2f} % of the step",
    )


def folder(path: Path, directory: Path) -> None:
    """Building the cache, starting from it, and reading batches of 128 from it."""
    for what in ("building the cache", "starting from it"):
        start = time.perf_counter()
        data = ImageDataModule(Folder(path, image_size=32, cache_dir=directory), 128, horizontal_flip=True)
        count = len(data.data_set.train) + len(data.data_set.validation)
        first = next(batches(data, num_workers=0))
        took = time.perf_counter() - start
        say(f"{count:,} images, {what}, to the first batch", f"{took:.2f} s")
    assert first.x_0.shape == (128, 3, 32, 32)
    for name, share, num_workers in (
        ("gathered", 1.0, 0),
        ("0 workers", 0.0, 0),
        ("1 worker", 0.0, 1),
        ("2 workers", 0.0, 2),
    ):
        speeds = []
        for _ in range(3):
            loader = batches(data, num_workers=num_workers, device_share=share)
            for _ in range(20):
                next(loader)
            start = time.perf_counter()
            for _ in range(600):
                next(loader)
            speeds.append(600 * 128 / (time.perf_counter() - start))
            del loader
        say(f"images of 32x32 a second, {name}", f"{np.median(speeds):,.0f}")
    memory(data)


def memory(data: ImageDataModule, rounds: int = 1500) -> None:
    """Proportional memory of this process and its workers, at its highest."""
    before = None
    for num_workers in (0, 1, 2, 4):
        with highest_memory() as highest:
            loader = batches(data, num_workers=num_workers)
            for _ in range(rounds):
                next(loader)
            time.sleep(0.3)
            del loader
        grown = (
            "" if before is None else f", {(highest[0] - before) / max(1, num_workers) / MB:.0f} MB a worker"
        )
        before = highest[0] if before is None else before
        size = data.data_set.train.images.nbytes / MB
        say(f"memory, {num_workers} workers, a set of {size:,.0f} MB", f"{highest[0] / MB:.0f} MB{grown}")


@dataclass
class Synthetic:
    """Images of 64x64 in a file that is mapped, each with its number in it."""

    file: Path
    count: int

    def read(self) -> DataSet:
        shape = (self.count, 3, 64, 64)
        if not self.file.exists():
            noise = np.random.default_rng(0).integers(0, 256, (1000, *shape[1:]), np.uint8)
            with self.file.open("wb") as file:
                for first in range(0, self.count, len(noise)):
                    part = noise[: self.count - first]
                    numbers = np.arange(first, first + len(part), dtype="<u4")
                    part[:, 0, 0, :4] = numbers[:, None].view(np.uint8)
                    file.write(part.tobytes())
        images = np.memmap(self.file, np.uint8, "r", shape=shape)
        return DataSet(ImageSet(images), ImageSet(images[:0]))


def large(count: int, directory: Path) -> None:
    """A set larger than anyone's share of the memory: the start, the time of a batch and the memory."""
    start = time.perf_counter()
    data = ImageDataModule(Synthetic(directory / "large", count), 128, device_share=0)
    _ = data.data_set
    say(f"{count:,} images of 64x64 made", f"{time.perf_counter() - start:.0f} s")
    for num_workers, step in itertools.product((0, 2), (0, 10**6)):
        with highest_memory() as highest:
            start = time.perf_counter()
            loader = batches(data, num_workers=num_workers, step=step)
            next(loader)
            first = time.perf_counter() - start
            parts, seen = [], []
            for _ in range(4):
                start = time.perf_counter()
                for _ in range(500):
                    batch = next(loader)
                    seen.append(batch.x_0[:, 0, 0, :4].numpy().view("<u4").ravel())
                parts.append((time.perf_counter() - start) / 500 * 1e3)
            del loader
        assert len(np.unique(np.concatenate(seen))) == min(count, 4 * 500 * 128) or count < 256_000
        say(f"from step {step:,}, {num_workers} workers: first batch", f"{first:.2f} s")
        say("  a batch of 128, in four parts of 500", " ".join(f"{part:.2f}" for part in parts) + " ms")
        say("  highest memory of all processes", f"{highest[0] / MB:.0f} MB")


def batches(data: ImageDataModule, *, num_workers: int, device_share: float = 0.0, step: int = 0) -> Iterator:
    """What the device sees, from a step on, without a network."""
    data.num_workers, data.device_share = num_workers, device_share
    data.trainer = SimpleNamespace(
        global_step=step,
        global_rank=0,
        world_size=1,
        num_nodes=1,
        accumulate_grad_batches=1,
        training=True,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    for batch in data.train_dataloader():
        yield data.transfer_batch_to_device(batch, torch.device("cpu"), 0)


@contextmanager
def highest_memory() -> Iterator[list[int]]:
    """The highest proportional memory (PSS) of this process and its children meanwhile, in bytes."""
    highest = [proportional_memory()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            highest[0] = max(highest[0], proportional_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield highest
    finally:
        done.set()
        watcher.join()


def proportional_memory() -> int:
    """PSS of this process and its children, in bytes; Linux only."""
    own = os.getpid()
    children = [
        child for task in Path(f"/proc/{own}/task").iterdir() for child in _read(task / "children").split()
    ]
    lines = [
        line
        for process in (own, *children)
        for line in _read(Path(f"/proc/{process}/smaps_rollup")).splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def _read(path: Path) -> str:
    """Nothing where the process or thread has just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def say(what: str, figure: str) -> None:
    print(f"{what:<60}{figure}", flush=True)


if __name__ == "__main__":
    main()
