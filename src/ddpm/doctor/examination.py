"""`python -m ddpm doctor`: every check, the table of verdicts, and the exit code."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ddpm.doctor import (
    bound_checks,
    denoiser_checks,
    environment,
    loss_checks,
    mixture_checks,
    process_checks,
    sampler_checks,
)
from ddpm.doctor.case import Case, Line, guarded, judged
from ddpm.doctor.combinations import BETAS, Catalogue, Cover, cover, discover, validity

WIDE = 160
"""Columns of the table where there is no terminal to say how many."""


@dataclass(frozen=True)
class Examined:
    """What is examined: the options there are, combinations of them, and the options that cannot be built."""

    catalogue: Catalogue
    cover: Cover
    broken: dict[str, Exception]


@contextmanager
def examined(config_dir: Path | None = None, allowed: Sequence[str] = ()) -> Iterator[Examined]:
    """Find the options of `conf/` and of a directory of the user's own, and cover their pairs.

    Args:
        config_dir: with folders named like the groups.
        allowed: packages that its `_target_` may name.
    """
    with tempfile.TemporaryDirectory() as directory:
        betas = Path(directory) / "betas.txt"
        betas.write_text("\n".join(map(str, BETAS.tolist())))
        catalogue, broken = discover(betas, config_dir, allowed)
        yield Examined(catalogue, cover(catalogue, validity(catalogue)), broken)


ROOMS: dict[str, Callable[[Examined], Iterator[Case]]] = {
    "forward process": lambda found: process_checks.cases(found.catalogue),
    "denoiser": lambda found: denoiser_checks.cases(found.catalogue),
    "training": lambda found: loss_checks.cases(found.catalogue, found.cover.combinations),
    "sampling": lambda found: sampler_checks.cases(found.catalogue, found.cover.combinations),
    "bound": lambda found: bound_checks.cases(found.catalogue, found.cover.combinations),
    "mixture": lambda found: mixture_checks.cases(found.catalogue),
}
"""Every comparison that is made."""


def all_cases(found: Examined) -> list[Case]:
    """Of all rooms; one that cannot be set up fails by itself."""
    return [case for room, cases in ROOMS.items() for case in guarded(room, cases(found))]


def doctor(config_dir: Path | None = None, allowed: Sequence[str] = ()) -> int:
    """Examine this installation and print the table.

    Args:
        config_dir, allowed: see `examined`.

    Returns:
        the exit code: 1 if a line fails.
    """
    began = time.monotonic()
    progress = Console(stderr=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are tiny, and two threads would only wait for each other
    try:
        importing = environment.start_importing()
        with examined(config_dir, allowed) as found:
            cases = track(
                all_cases(found),
                "examining",
                console=progress,
                transient=True,
                disable=not progress.is_terminal,
            )
            broken = found.broken.items()
            lines = [
                *environment.lines(importing),
                *(Line(option, "can be built", "", "", False, str(why)) for option, why in broken),
                *judged(cases),
            ]
    finally:
        torch.set_num_threads(threads)
    report(lines, found, time.monotonic() - began)
    return 0 if all(line.passed for line in lines) else 1


def report(lines: Sequence[Line], found: Examined, seconds: float) -> None:
    """Print the table, and what was covered."""
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    table = Table(show_edge=False, pad_edge=False)
    for title in ("check", "compared", "worst", "allowed", "verdict"):
        table.add_column(title, overflow="fold")
    for line in lines:
        told = Text("\n".join(filter(None, [line.compared, line.why])))
        verdict = Text("ok", "green") if line.passed else Text("FAILED", "bold red")
        table.add_row(Text(line.check), told, Text(line.worst), Text(line.allowed), verdict)
    console.print(table)
    options = sum(map(len, found.catalogue.values()))
    covered, refused = found.cover, [f"{a} with {b}" for a, b in found.cover.refused]
    failed = sum(not line.passed for line in lines)
    print(f"\n{len(covered.combinations)} combinations of {options} options cover all {covered.pairs} pairs.")
    print(f"{len(refused)} more are refused as without meaning: {', '.join(refused) or 'none'}.")
    print(f"{len(lines)} lines, {failed or 'none'} failed, {seconds:.0f} s.")
