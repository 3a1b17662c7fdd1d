"""What becomes of a run whose disk is full: real runs on small file systems that are filled while they go on.

    python benchmarks/full_disk.py            all cases, some ten minutes (needs root, and `mount -t tmpfs`)
    python benchmarks/full_disk.py --only run

For each place (the run directory, that of W&B, the cache of prepared images) and each moment (before the
start, in the middle, inside a checkpoint) a small file system is filled, and in some cases emptied again
while the run goes on. Then room is made, the same command is started once more, and what is there in the end
is compared bit for bit with a run that nothing disturbed: every tensor of the last checkpoint, every column
of metrics.csv but `perf/`, every grid. Prints a table, and exits with 1 where something is wrong; where file
systems cannot be mounted it says so, and has tried nothing.
"""

import argparse
import csv
import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

ROOT = Path(__file__).parents[1]
FILLER = "filler"
STEPS = 20
"""Checkpoints and grids are made at 10 and at the end, rows at every step."""

ACCOUNT = "FULL_DISK"
"""Environment variable: PLACE:STEP:BYTES[:STEP], what `Filling` does in this start of the program."""


def fill(place: Path, leave: int = 0) -> None:
    """Take all the room of a file system but so many bytes."""
    with (place / FILLER).open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
        file.truncate(max(0, file.tell() - leave))


class Filling(Callback):
    """Fills a file system at the start of a step, and makes room again at a later one, as $FULL_DISK says."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, _: int) -> None:
        if not (account := os.environ.get(ACCOUNT)):
            return
        place, at, leave, *until = account.split(":")
        if trainer.global_step == int(at) and not (Path(place) / FILLER).exists():
            fill(Path(place), int(leave))
        if until and trainer.global_step == int(until[0]):
            (Path(place) / FILLER).unlink(missing_ok=True)


@dataclass(frozen=True)
class Case:
    """A disk that is full.

    Attributes:
        name: what and when.
        place: run, wandb or cache.
        at: the step before which it is filled; None before the start.
        leave: bytes that stay free.
        until: the step before which there is room again; None for not before the run has ended.
        inodes: that the file system has; None for as many as it likes.
        expected: exit code of the disturbed run.
        says: what its output must hold.
    """

    name: str
    place: str
    at: int | None
    leave: int
    until: int | None
    expected: int
    says: str
    inodes: int | None = None


CASES = (
    Case("nothing can be made", "run", None, 0, None, 2, "hydra.run.dir=", inodes=1),
    Case("before the start", "run", None, 0, None, 2, "hydra.run.dir="),
    Case("but for its lock", "run", None, 8192, None, 1, "training goes on"),
    Case("but for its lock, to step 13", "run", None, 8192, 13, 0, "training goes on"),
    Case("from step 6 on", "run", 6, 0, None, 1, "training goes on"),
    Case("from step 6 to 13", "run", 6, 0, 13, 0, "training goes on"),
    Case("inside the first checkpoint", "run", 9, 100_000, None, 1, "training goes on"),
    Case("inside the last checkpoint", "run", 19, 100_000, None, 1, "could not be written"),
    Case("from the start on", "wandb", None, 0, None, 0, "wait in memory"),
    Case("from step 6 on", "wandb", 6, 0, None, 0, "wait in memory"),
    Case("from step 6 to 13", "wandb", 6, 0, 13, 0, "wait in memory"),
    Case("from the start on", "cache", None, 0, None, 0, "while this runs"),
    Case("while it is filled", "cache", None, 300_000, None, 0, "while this runs"),
)


@contextmanager
def mounted(place: Path, megabytes: int, inodes: int | None) -> Iterator[None]:
    """A file system of its own.

    Raises:
        PermissionError: where this is not allowed here.
    """
    place.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m" + (f",nr_inodes={inodes}" if inodes else "")
    command = ["mount", "-t", "tmpfs", "-o", options, "full_disk", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PermissionError(errno.EPERM, "there is no mount") from error
    if done.returncode:
        raise PermissionError(errno.EPERM, done.stderr.strip())
    try:
        yield
    finally:
        while subprocess.run(["umount", str(place)], capture_output=True).returncode:
            time.sleep(0.5)


def train(place: Path, directory: Path, work: Path, what: str, account: str = "") -> tuple[int, str]:
    """One start of the command, always the same for a place; its exit code and what it said."""
    data = ["data=digits"]
    if what == "cache":
        data = ["data=folder", f"data.path={work / 'images'}", "data.image_size=16"]
    logger = ["logger=wandb", f"logger.wandb.save_dir={place / 'w'}"] if what == "wandb" else ["logger=none"]
    command = [
        sys.executable, str(ROOT / "train.py"), "experiment=smoke", *data, *logger,
        "trainer.accelerator=cpu", "trainer.devices=1", f"trainer.max_steps={STEPS}",
        "allow_targets=full_disk", "+callbacks.filling._target_=full_disk.Filling",
        f"hydra.run.dir={directory}",
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT / "benchmarks"), str(ROOT / "src"), environment.get("PYTHONPATH", "")]
        ),
        "DDPM_CACHE": str(place / "cache" if what == "cache" else work / "cache"),
        ACCOUNT: account,
    }
    done = subprocess.run(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors in what a checkpoint holds, by where they are."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    found: dict[str, torch.Tensor] = {}
    if isinstance(value, dict | list | tuple):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            found |= tensors(child, f"{name}.{key}")
    return found


def _parts(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Network, average and optimizer."""
    loaded = torch.load(checkpoint, weights_only=True)
    return tensors({part: loaded[part] for part in ("state_dict", "ema", "optimizer_states")})


def rows(directory: Path) -> list[dict[str, str]]:
    """What metrics.csv says, but for speed and memory."""
    with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [
            {name: value for name, value in row.items() if not name.startswith("perf/")}
            for row in csv.DictReader(file)
        ]


def differences(directory: Path, undisturbed: Path) -> list[str]:
    """What is not as in the run that nothing disturbed."""
    found: list[str] = []
    here, there = (_parts(at / "checkpoints" / "last.ckpt") for at in (directory, undisturbed))
    if here.keys() != there.keys():
        found.append("names of tensors")
    found += [key for key in here.keys() & there.keys() if not torch.equal(here[key], there[key])]
    if rows(directory) != rows(undisturbed):
        found.append("metrics.csv")
    grids, theirs = (
        {file.name: file.read_bytes() for file in (at / "samples").iterdir()}
        for at in (directory, undisturbed)
    )
    return found if grids == theirs else [*found, "samples/"]


def half_written(directory: Path) -> list[str]:
    """Files that stand there under a final name and are not whole, and what writes left."""
    bad = [str(path) for path in directory.rglob("*.part*")]
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            if path.suffix == ".png" and "wandb" not in path.parts:
                Image.open(path).load()
            elif path.suffix == ".ckpt":
                torch.load(path, weights_only=True)
            elif path.name in ("run.json", "config.yaml", "metrics.csv") and not path.stat().st_size:
                raise ValueError("empty")
    return bad


def tried(case: Case, work: Path, undisturbed: Path) -> tuple[int, int, str]:
    """A case: exit code, exit code of the same command after room was made, and what was wrong."""
    place = work / f"{case.place}_disk"
    with mounted(place, 12, case.inodes):
        directory = (
            place / "x" if case.place == "run" else work / f"{case.place} {case.name}".replace(" ", "_")
        )
        if case.at is None and case.inodes is None:
            fill(place, case.leave)
        account = f"{place}:{STEPS + 1 if case.at is None else case.at}:{case.leave}"
        account += "" if case.until is None else f":{case.until}"
        code, said = train(place, directory, work, case.place, account)
        wrong = []
        if code != case.expected:
            wrong.append(f"ended with {code}, not {case.expected}: {said[-1500:]}")
        if case.says not in said:
            wrong.append(f"did not say {case.says!r}")
        if "Traceback" in said or "Exception ignored" in said:
            wrong.append(f"a traceback: {said[-1500:]}")
        if case.expected == 1 and "because " not in said:
            wrong.append("the last screen does not say why")
        try:
            wrong += half_written(directory) if directory.exists() else []
        except Exception as error:
            wrong.append(f"a half file: {error}")
        if case.inodes is not None:
            subprocess.run(["mount", "-o", "remount,nr_inodes=0", str(place)], check=True)
        (place / FILLER).unlink(missing_ok=True)
        again, said = train(place, directory, work, case.place)
        if again:
            wrong.append(f"the same command ended with {again}: {said[-1500:]}")
        else:
            wrong += differences(directory, undisturbed)
    return code, again, "; ".join(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["run", "wandb", "cache"], help="cases of one place")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        try:
            with mounted(work / "probe", 1, None):
                pass
        except PermissionError as error:
            print(f"not tried: no file system can be mounted here ({error.strerror})")
            return 0
        random = np.random.default_rng(0)
        (work / "images").mkdir()
        for index in range(1000):  # 0.8 MB when they are prepared
            picture = random.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(picture).save(work / "images" / f"{index}.png")
        undisturbed: dict[str, Path] = {}
        failed = 0
        print(f"{'place':7}{'full':30}{'exit':>5}{'again':>6}  outcome", flush=True)
        for case in CASES:
            if only not in (None, case.place):
                continue
            data = "cache" if case.place == "cache" else "run"
            if data not in undisturbed:
                undisturbed[data] = work / f"undisturbed_{data}"
                code, said = train(work / "roomy", undisturbed[data], work, data)
                assert code == 0, said
            code, again, wrong = tried(case, work, undisturbed[data])
            failed += bool(wrong)
            print(f"{case.place:7}{case.name:30}{code:5}{again:6}  {wrong or 'as undisturbed'}", flush=True)
    print(f"{failed or 'none'} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
