"""What diagnostics and pictures cost a run: `train.py` with all of them and without any, in pairs.

    python benchmarks/diagnostics.py experiment=digits_paper  4,500 steps of digits, whole, in five pairs
    python benchmarks/diagnostics.py --steps 1300 --pairs 8   the default run
    python benchmarks/diagnostics.py --together               both of a pair at once, on two cores (Linux)

Both train the same network on the same batches; grids of samples are left out of both, whose cost is a
choice of its own. The one has what `callbacks=default` brings beside them (norms by block, curves and
pictures at the start, loss by timestep, the denoising path, nearest neighbours), the other checkpoints and
progress only. Of each process its CPU seconds count, start and end included, its helpers' as well. The order
within a pair changes from pair to pair, or the cores do: what slows a machine down for a while then slows
both alike. Together, the longer one ends alone; cores should be cores, not threads of one. Prints each pair,
the mean overhead and its 95 % interval (Student's t).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).parents[1]

Process = subprocess.Popen[bytes]

ARMS = {
    "with": ["callbacks=[default]"],
    "without": ["callbacks=[plain]", "callbacks.diagnostics=null"],
}


def started(arm: str, steps: int, settings: list[str], directory: str, core: int | None) -> Process:
    """One run, where a core is given on that alone."""
    command = [
        sys.executable, str(ROOT / "train.py"), *ARMS[arm], "callbacks.samples=null",
        f"trainer.max_steps={steps}", f"hydra.run.dir={directory}/run", "verbose=quiet", *settings,
    ]  # fmt: skip
    alone = {} if core is None else {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **alone, "DDPM_CACHE": f"{directory}/cache"},
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
    )


def ended(process: Process) -> float:
    """User and system time of the process, on all its threads, and of those that it has waited for."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a run ended with exit code {process.returncode}")
    return used.ru_utime + used.ru_stime


def pair_of(number: int, steps: int, settings: list[str], cores: list[int] | None) -> dict[str, float]:
    """CPU seconds of each arm."""
    order = list(ARMS) if number % 2 == 0 else list(ARMS)[::-1]
    with tempfile.TemporaryDirectory() as directory:
        if cores is None:
            return {arm: ended(started(arm, steps, settings, f"{directory}/{arm}", None)) for arm in order}
        running = {
            arm: started(arm, steps, settings, f"{directory}/{arm}", core)
            for arm, core in zip(order, cores, strict=True)
        }
        try:
            return {arm: ended(process) for arm, process in running.items()}
        finally:
            for process in running.values():
                if process.returncode is None:  # the other one has failed
                    process.terminate()
                    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--together", action="store_true", help="both of a pair at once, a core each")
    parser.add_argument("settings", nargs="*", help="further KEY=VALUE for train.py, in both")
    arguments = parser.parse_args()
    if arguments.pairs < 2:
        parser.error(f"--pairs {arguments.pairs}: an interval needs at least 2")
    if arguments.together and not hasattr(os, "sched_setaffinity"):
        parser.error("--together pins each run to a core, which only Linux can")
    cores = sorted(os.sched_getaffinity(0))[:2] if arguments.together else None
    if cores is not None and len(cores) < 2:
        parser.error("--together needs two cores")
    overheads = []
    for pair in range(arguments.pairs):
        seconds = pair_of(pair, arguments.steps, arguments.settings, cores)
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
