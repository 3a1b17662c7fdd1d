"""What diagnostics and pictures cost a run: `train.py` with all of them and without any, in turns.

    python benchmarks/diagnostics.py                         the default run, whole, in five pairs
    python benchmarks/diagnostics.py --steps 1500 --pairs 8  a third of it

Both train the same network on the same batches; grids of samples are left out of both, whose cost is a
choice of its own. The one has what `callbacks=default` brings beside them (norms by block, curves and
pictures at the start, loss by timestep, the denoising path, nearest neighbours), the other checkpoints and
progress only. Of each process its CPU seconds count, start and end included, its helpers' as well. The order
within a pair changes from pair to pair. Prints each pair, the mean overhead and its 95 % interval (Student's
t).
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).parents[1]

ARMS = {
    "with": ["callbacks=[default]"],
    "without": ["callbacks=[plain]", "callbacks.diagnostics=null"],
}


def cpu_seconds(arm: str, steps: int, settings: list[str]) -> float:
    """User and system time of one run, on all its threads and processes."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable, str(ROOT / "train.py"), *ARMS[arm], "callbacks.samples=null",
            f"trainer.max_steps={steps}", f"hydra.run.dir={directory}/run", "verbose=quiet", *settings,
        ]  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, env={**os.environ, "DDPM_CACHE": f"{directory}/cache"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("settings", nargs="*", help="further KEY=VALUE for train.py, in both")
    arguments = parser.parse_args()
    if arguments.pairs < 2:
        parser.error(f"--pairs {arguments.pairs}: an interval needs at least 2")
    overheads = []
    for pair in range(arguments.pairs):
        order = list(ARMS) if pair % 2 == 0 else list(ARMS)[::-1]
        seconds = {arm: cpu_seconds(arm, arguments.steps, arguments.settings) for arm in order}
        overheads.append(seconds["with"] / seconds["without"] - 1)
        print(
            f"pair {pair + 1}: {seconds['with']:.1f} s with, {seconds['without']:.1f} s without, "
            f"{overheads[-1]:+.1%}",
            flush=True,
        )
    mean, error = statistics.mean(overheads), statistics.stdev(overheads) / len(overheads) ** 0.5
    half = stats.t.ppf(0.975, len(overheads) - 1) * error
    print(f"overhead {mean:+.2%}, 95 % interval {mean - half:+.2%} to {mean + half:+.2%}")


if __name__ == "__main__":
    main()
