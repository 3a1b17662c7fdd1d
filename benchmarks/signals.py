"""Signals, and ranks that stop, die or raise: what becomes of a run on two devices, and of its going on.

    python benchmarks/signals.py            5 signals x 3 addressees x 4 phases, 60 runs and as many continued
    python benchmarks/signals.py --hangs    SIGSTOP, SIGKILL, an exception; of either rank; in training, grid
    python benchmarks/signals.py --only SIGTERM/1/grid,SIGHUP/all/training

Prints a row a case, and ends with 1 where one is not as it should be: for a signal the exit code 128 + its
number, all processes gone within 20 s, "interrupted" in the record, a checkpoint unless it came before the
first step, and the same command again ending bit-equal to an undisturbed run. For a rank that stops, the end
within the timeout and a minute, with the rank and its machine in the last ten lines, once.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP")
WHO = ("0", "1", "all")
PHASES = ("start-up", "training", "validation", "grid")
TROUBLES = ("SIGSTOP", "SIGKILL", "exception")
TIMEOUT = 40
"""Of the runs that hang, in seconds."""

COMMAND = (
    "experiment=smoke",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "logger=none",
    "callbacks.samples.sampler._target_=pauses.SlowGrids",
    "callbacks.pauses._target_=pauses.Pauses",
    "callbacks.beside._target_=pauses.Beside",
    "allow_targets=[pauses]",
)


@dataclass
class Case:
    """What is done to whom, when; and what came of it."""

    what: str
    who: str
    phase: str
    code: int | None = None
    seconds: float = 0.0
    left: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.what}/{self.who}/{self.phase}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hangs", action="store_true")
    parser.add_argument("--only", default="", help="cases, WHAT/WHO/PHASE, by comma")
    parser.add_argument("--not-continued", action="store_true")
    parser.add_argument("--keep", action="store_true", help="the run directories")
    arguments = parser.parse_args()
    if arguments.hangs:
        cases = [Case(t, who, p) for t in TROUBLES for who in ("0", "1") for p in ("training", "grid")]
    else:
        cases = [Case(s, who, p) for s in SIGNALS for who in WHO for p in PHASES]
    if only := {name for name in arguments.only.split(",") if name}:
        cases = [case for case in cases if case.name in only]
        assert {case.name for case in cases} == only, f"of {sorted(only)} some are no cases"
    directory = Path(tempfile.mkdtemp(prefix="signals_"))
    continues = not arguments.hangs and not arguments.not_continued
    whole = undisturbed(directory) if continues else None
    print(f"{'case':28} exit  seconds  left  outcome", flush=True)
    for case in cases:
        run = directory / case.name.replace("/", "_")
        disturb(case, run, hangs=arguments.hangs)
        if whole is not None and not case.wrong:
            go_on(case, run, whole)
        outcome = "; ".join(case.wrong) or "right"
        print(
            f"{case.name:28} {case.code!s:>4}  {case.seconds:7.1f}  {len(case.left):4}  "
            f"{outcome}  {case.note}",
            flush=True,
        )
    wrong = [case for case in cases if case.wrong]
    print(f"{len(cases) - len(wrong)} of {len(cases)} right", flush=True)
    if arguments.keep or wrong:
        print(directory)
    else:
        shutil.rmtree(directory)
    sys.exit(1 if wrong else 0)


def undisturbed(directory: Path) -> dict[str, Any]:
    """The last checkpoint of a run that nobody disturbs."""
    run = directory / "undisturbed"
    with Started(run, {}) as (process, _):
        assert process.wait(timeout=600) == 0, (run.parent / "undisturbed.txt").read_text()
    return last(run)


def last(run: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


def disturb(case: Case, run: Path, *, hangs: bool) -> None:
    """Start a run, do to it what the case says, and see how it ends."""
    there = run.with_name(f"{run.name}_there")
    there.mkdir()
    pause = {"PAUSE_AT": case.phase, "PAUSE_FILES": str(there), "PAUSE_SECONDS": "0.5"}
    if case.what == "exception":
        pause["PAUSE_RAISES"] = case.who
    more = [f"timeout={TIMEOUT}"] if hangs else []
    with Started(run, pause, *more) as (process, mark):
        ranks = arrived(process, case, run, there)
        targets = ranks if case.who == "all" else [ranks[int(case.who)]]
        since = time.monotonic()
        if case.what == "exception":
            (there / "raise").touch()
        else:
            for pid in targets:
                os.kill(pid, getattr(signal, case.what))
        within = TIMEOUT + 60 if hangs else 20
        try:
            code = process.wait(timeout=within + 30)
        except subprocess.TimeoutExpired:
            code = None
        while any(marked(mark)) and time.monotonic() < since + within + 30:
            time.sleep(0.1)
        case.seconds = time.monotonic() - since
        case.left = list(marked(mark))
        case.code = 128 - code if code is not None and code < 0 else code
    said = run.with_suffix(".txt").read_text()
    record = json.loads((run / "run.json").read_text()) if (run / "run.json").exists() else {}
    if case.left:
        case.wrong.append(f"processes left: {case.left}")
    if case.seconds > within:
        case.wrong.append(f"not within {within} s")
    (judge_hang if hangs else judge_signal)(case, run, record, said)


def judge_signal(case: Case, run: Path, record: dict[str, Any], said: str) -> None:
    if case.code != 128 + getattr(signal, case.what):
        case.wrong.append(f"exit code, not {128 + getattr(signal, case.what)}")
    if record.get("status") != "interrupted":
        case.wrong.append(f"the record says {record.get('status')}")
    saved = (run / "checkpoints" / "last.ckpt").exists()
    if not saved and case.phase != "start-up":
        case.wrong.append("no checkpoint")
    if saved and case.phase == "start-up":
        case.wrong.append("the signal came too late for this case")
    if "Traceback" in said:
        case.wrong.append("a traceback")
    case.note = f"{record.get('why')}, checkpoint: {last(run)['global_step'] if saved else 'none'}"


def judge_hang(case: Case, run: Path, record: dict[str, Any], said: str) -> None:
    if not case.code:
        case.wrong.append("exit code 0")
    lines = said.rstrip().splitlines()[-10:]
    naming = [line for line in lines if f"rank {case.who} on {platform.node()}" in line]
    if not naming:
        case.wrong.append("the last ten lines do not name the rank and its machine")
    if record.get("status") != "failed" or f"rank {case.who} on" not in str(record.get("why")):
        case.wrong.append(f"the record says {record.get('status')}: {record.get('why')}")
    if case.what == "exception" and "RuntimeError: on purpose" not in "\n".join(lines):
        case.wrong.append("the last ten lines do not say the error")
    case.note = naming[-1].strip() if naming else "\n".join(["", *lines])


def go_on(case: Case, run: Path, whole: dict[str, Any]) -> None:
    """Give the same command again; compare what it ends with."""
    with Started(run, {}) as (process, _):
        code = process.wait(timeout=600)
    if code:
        case.wrong.append(f"continued: exit code {code}")
        case.note += "\n" + "\n".join(run.with_suffix(".txt").read_text().splitlines()[-5:])
        return
    ours = last(run)
    for part in ("state_dict", "ema", "optimizer_states", "global_step"):
        if not same(ours[part], whole[part]):
            case.wrong.append(f"continued: another {part}")


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


class Started:
    """A run in a session of its own; whatever is left of it afterwards is killed."""

    def __init__(self, run: Path, pause: dict[str, str], *more: str):
        self.mark = f"{run}-{time.time_ns()}"
        paths = [str(ROOT / "tests" / "extensions"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, **pause, "SIGNALS_MARK": self.mark, "PYTHONPATH": os.pathsep.join(paths)}
        environment |= {"OMP_NUM_THREADS": "1"}
        with run.with_suffix(".txt").open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "train.py"), *COMMAND, *more, f"hydra.run.dir={run}"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_defaults,
            )

    def __enter__(self) -> tuple[subprocess.Popen[bytes], str]:
        return self.process, self.mark

    def __exit__(self, *_: object) -> None:
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _defaults() -> None:
    """A shell has what it starts in the background ignore Ctrl-C."""
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def marked(mark: str) -> Iterator[int]:
    """Living processes of a run, all of which have its environment."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        is_dead = stat.rpartition(")")[2].split()[0] in "ZX"
        if f"SIGNALS_MARK={mark}".encode() in environment.split(b"\0") and not is_dead:
            yield int(entry.name)


def arrived(process: subprocess.Popen[bytes], case: Case, run: Path, there: Path) -> list[int]:
    """The processes of rank 0 and 1, once both are where they are to be disturbed."""
    until = time.monotonic() + 300
    while True:
        assert time.monotonic() < until, (
            f"{case.name}: did not get there\n{run.with_suffix('.txt').read_text()}"
        )
        assert process.poll() is None, f"{case.name}: ended\n{run.with_suffix('.txt').read_text()}"
        second = other_rank(process.pid)
        is_there = second is not None and (
            case.phase == "start-up" or all((there / r).exists() for r in "01")
        )
        if is_there:
            assert second is not None
            # another moment of the start with every signal
            time.sleep(0.7 * SIGNALS.index(case.what) if case.phase == "start-up" else 0.4)
            return [process.pid, second]
        time.sleep(0.05)


def other_rank(leader: int) -> int | None:
    """The process that the leader has started as rank 1."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{leader}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        for child in children:
            if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return child
    except OSError:
        pass
    return None


if __name__ == "__main__":
    main()
