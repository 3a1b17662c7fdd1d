"""From the start of `python train.py` to its first optimizer step, beside what importing its libraries takes.

    python benchmarks/startup.py            digits, the default run with all callbacks and loggers
    python benchmarks/startup.py --logged   until that step is in metrics.csv and in W&B, whose run has begun

The two kinds of process take turns. Prints the medians and their ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

ROOT = Path(__file__).parents[1]
BARE = "import torch, lightning.pytorch, hydra, wandb"


class EndAtFirstStep(Callback):
    """Says when the first optimizer step is done, and ends the process there."""

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        print(f"first step at {time.clock_gettime(time.CLOCK_MONOTONIC)}", flush=True)
        os._exit(0)


def bare() -> float:
    """Seconds that a process takes to import the libraries and end."""
    start = time.clock_gettime(time.CLOCK_MONOTONIC)
    subprocess.run([sys.executable, "-c", BARE], check=True)
    return time.clock_gettime(time.CLOCK_MONOTONIC) - start


def program(settings: list[str]) -> float:
    """Seconds from the start of train.py to the end of its first step."""
    path = os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    mark = ["allow_targets=[startup]", "callbacks.mark._target_=startup.EndAtFirstStep"]
    with tempfile.TemporaryDirectory() as directory:
        start = time.clock_gettime(time.CLOCK_MONOTONIC)
        said = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *mark, f"hydra.run.dir={directory}/run", *settings],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    (line,) = (line for line in said.splitlines() if line.startswith("first step at "))
    return float(line.rpartition(" ")[2]) - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--logged", action="store_true")
    arguments = parser.parse_args()
    settings = ["trainer.log_every_n_steps=1"] if arguments.logged else []
    bare()  # so that neither kind is the one that reads from the disk
    times = [(bare(), program(settings)) for _ in range(arguments.runs)]
    without, with_program = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"median of {arguments.runs}: imports alone {without:.2f} s, "
        f"until the first step {with_program:.2f} s, ratio {with_program / without:.2f}"
    )


if __name__ == "__main__":
    main()
