"""A run that is killed again and again and continued by the same command, beside one that nothing disturbed.

    python benchmarks/kills.py --kills 60               one device
    python benchmarks/kills.py --kills 25 --devices 2   two processes on the CPU

SIGKILL goes to all processes of the run at once. Some moments are random; others are aimed: before the first
checkpoint, inside the write of one, inside a validation, inside a grid, after the last step. A chain is a run
directory and its kills; when they are over, the command is let come to its end. Then the network, its
average, the state of the optimizer, every column of metrics.csv but those of perf, and the names and bytes of
the grids must be those of the undisturbed run. Prints a line a chain, and ends with 1 where anything differs.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.training.callbacks.samples import SampleGrids

ROOT = Path(__file__).parents[1]

PHASE = "KILLS_PHASE"
"""Environment variable: the file where a run says what it is doing."""

AIMS = ("checkpoint", "validation", "grid", "any")
"""Moments between the first kill of a chain, before there is a checkpoint, and the last two, when all steps
are made: at any time, or inside one of these.
"""

SHARE = 0.3
"""Of its training, within which a start is killed at any time."""

LONGEST = 300.0
"""Seconds of one start."""

COMPARED = ("global_step", "state_dict", "ema", "optimizer_states", "lr_schedulers", "timesteps")
"""Of the last checkpoint."""


def command(directory: Path, devices: int, steps: int) -> list[str]:
    """Steps of all kinds, often, and at numbers that have no divisor in common."""
    return [
        sys.executable, str(ROOT / "train.py"), "experiment=smoke", "callbacks=[default,best]", "logger=none",
        "trainer.accelerator=cpu", f"trainer.devices={devices}", f"trainer.max_steps={steps}",
        "trainer.log_every_n_steps=3", "callbacks.checkpoints.every_n_steps=4",
        "trainer.val_check_interval=5", "callbacks.samples.every_n_steps=7", "callbacks.samples.final=auto",
        "data.device_share=0", "data.num_workers=1", "allow_targets=[kills]",
        "callbacks.samples._target_=kills.Grids", "callbacks.phases._target_=kills.Phases",
        f"hydra.run.dir={directory}",
    ]  # fmt: skip


# Within the run


def tell(trainer: Trainer, phase: str) -> None:
    """Say what the run is doing, in one write."""
    if trainer.is_global_zero:
        Path(os.environ[PHASE]).write_text(f"{phase:<12}{trainer.global_step:>12}")


class Phases(Callback):
    """Tells what the run is doing."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tell(trainer, "training")

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        tell(trainer, "training")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tell(trainer, "validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tell(trainer, "training")


class Grids(SampleGrids):
    """Tells when it draws, and when training ends."""

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        tell(trainer, "grid")
        super().on_step(trainer, module, step)
        tell(trainer, "training")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tell(trainer, "end")
        super().on_train_end(trainer, pl_module)


# Beside it


@dataclass
class Chain:
    """A run directory, and what was done to it.

    Attributes:
        kills: the phase and step that each one hit.
        wrong: what differs from the undisturbed run; nothing where nothing does.
    """

    directory: Path
    kills: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Start:
    """One start of the command."""

    process: subprocess.Popen[bytes]
    phase_file: Path
    checkpoints: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def phase(self) -> tuple[str, int]:
        """What it is doing, at which step; the start-up until it says so."""
        words = self.phase_file.read_text().split() if self.phase_file.exists() else []
        return (words[0], int(words[1])) if len(words) == 2 else ("start-up", 0)

    @property
    def writes_checkpoint(self) -> bool:
        return any(self.checkpoints.glob(".*.part"))

    def kill(self) -> None:
        """All its processes at once, wherever they have gone."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pid in of_session(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while of_session(self.process.pid):
            time.sleep(0.01)


def of_session(session: int) -> list[int]:
    """Processes that were started from a process that began a session, on Linux."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found


def start(directory: Path, devices: int, steps: int) -> Start:
    phase_file = directory.with_suffix(".phase")
    phase_file.unlink(missing_ok=True)
    paths = [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    with directory.with_suffix(".log").open("ab") as said:
        process = subprocess.Popen(
            command(directory, devices, steps),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), PHASE: str(phase_file)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=directory.parent,
        )
    return Start(process, phase_file, directory / "checkpoints")


def strike(begun: Start, aim: str, draw: random.Random, latest: float) -> str | None:
    """Kill it at a moment; what was hit, or None where it ended before.

    Args:
        begun: just now.
        aim: what it shall be doing.
        draw: the moment.
        latest: seconds from the start until which "any" comes.
    """
    number, seen = draw.randint(1, 3), set()
    delay, at = draw.uniform(0, 0.03), draw.uniform(0, latest)
    while begun.process.poll() is None:
        phase, step = begun.phase
        now = time.monotonic() - begun.began
        if now > LONGEST:
            begun.kill()
            raise TimeoutError(f"no end after {LONGEST:.0f} s, {phase} at step {step}")
        if aim == "any":
            hit = now > at
        elif aim == "first":
            hit = phase != "start-up" and step < 4
        elif aim == "checkpoint":
            hit = begun.writes_checkpoint
        else:
            hit = phase == aim
        if hit:
            seen.add(step)
        if hit and (aim in ("any", "first", "end") or len(seen) >= number):
            time.sleep(0 if aim in ("any", "checkpoint") else delay)
            writing = ", writing a checkpoint" if begun.writes_checkpoint else ""
            phase, step = begun.phase
            begun.kill()
            return f"{phase} {step}{writing}" if phase != "start-up" else f"start-up{writing}"
        time.sleep(0.0005)
    return None


def aims(number: int, draw: random.Random) -> list[str]:
    """Of a chain's kills."""
    between = [*AIMS, *draw.choices(AIMS, k=number)]
    return ["first", *between[: max(number - 3, 0)], "end", "end"][-number:]


def run_to_its_end(directory: Path, devices: int, steps: int) -> tuple[float, float]:
    """Seconds that it took to start up, and in all."""
    begun = start(directory, devices, steps)
    while begun.phase[0] == "start-up" and begun.process.poll() is None:
        time.sleep(0.01)
    started_up = time.monotonic() - begun.began
    code = begun.process.wait(timeout=LONGEST)
    if code:
        raise RuntimeError(f"exit code {code}:\n{directory.with_suffix('.log').read_text()[-3000:]}")
    return started_up, time.monotonic() - begun.began


def tormented(
    directory: Path, moments: list[str], draw: random.Random, latest: float, devices: int, steps: int
) -> Chain:
    """Kill a run at each of these moments that it comes to; then let it end."""
    chain = Chain(directory)
    for aim in moments:
        begun = start(directory, devices, steps)
        hit = strike(begun, aim, draw, latest)
        if hit is not None:
            chain.kills.append(hit)
        elif begun.process.returncode:
            break  # which it does once more
    try:
        run_to_its_end(directory, devices, steps)
    except RuntimeError as error:
        chain.wrong.append(str(error))
    return chain


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two run directories, in words."""
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = (
            torch.load(directory / "checkpoints" / name, weights_only=True) for directory in (one, other)
        )
        found += [f"{name}: {part}" for part in COMPARED if not equal(ours[part], theirs[part])]
    tables = [table(directory / "metrics.csv") for directory in (one, other)]
    found += ["metrics.csv: its header"] * (tables[0][0] != tables[1][0])
    found += ["metrics.csv: steps"] * ([row[0] for row in tables[0]] != [row[0] for row in tables[1]])
    found += [f"metrics.csv: {a} for {b}" for a, b in zip(*tables, strict=False) if a != b][:3]
    pictures = [
        {path.name: path.read_bytes() for path in (directory / "samples").iterdir()}
        for directory in (one, other)
    ]
    found += ["samples: which there are"] * (pictures[0].keys() != pictures[1].keys())
    found += [
        name for name in pictures[0].keys() & pictures[1].keys() if pictures[0][name] != pictures[1][name]
    ]
    return found


def table(path: Path) -> list[list[str]]:
    """All cells but those that say how long something took; of these the header alone."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    shown = [i for i, name in enumerate(header) if not name.startswith("perf/")]
    return [header, *([row[i] for i in shown] for row in rows)]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60, help="in all")
    parser.add_argument("--chain", type=int, default=10, help="kills of one run directory")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--aims", nargs="+", help="of each chain: first, end, " + ", ".join(AIMS))
    parser.add_argument("--keep", type=Path, help="a new directory for the runs, which otherwise go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = (arguments.keep or Path(temporary)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        undisturbed = place / "undisturbed"
        started_up, seconds = run_to_its_end(undisturbed, arguments.devices, arguments.steps)
        latest = started_up + SHARE * (seconds - started_up)
        print(f"undisturbed: {arguments.steps} steps in {seconds:.0f} s", flush=True)
        kills = wrong = number = 0
        while kills < arguments.kills:
            number += 1
            draw = random.Random(f"{arguments.seed} {number}")
            most = min(arguments.chain, arguments.kills - kills)
            directory = place / f"chain_{number}"
            moments = arguments.aims or aims(most, draw)
            chain = tormented(directory, moments, draw, latest, arguments.devices, arguments.steps)
            chain.wrong = chain.wrong or differences(directory, undisturbed)
            kills += len(chain.kills)
            wrong += bool(chain.wrong)
            outcome = "DIFFERS: " + "; ".join(chain.wrong) if chain.wrong else "equal"
            print(
                f"chain {number}: {len(chain.kills)} kills ({', '.join(chain.kills)}): {outcome}", flush=True
            )
    print(f"{kills} kills in {number} chains on {arguments.devices} device(s): {wrong} chains differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
