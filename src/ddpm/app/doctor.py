"""`python -m ddpm doctor`: has the doctor examine the options of `conf/`, and prints the table."""

import inspect
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ddpm import targets
from ddpm.app.command_line import CONF
from ddpm.doctor import environment
from ddpm.doctor.case import Line, judged
from ddpm.doctor.combinations import BETAS, GROUPS, Catalogue, Option
from ddpm.doctor.examination import Examined, all_cases, examined

WIDE = 160
"""Columns of the table where there is no terminal to say how many."""


class Found(NamedTuple):
    """The options of `conf/` that the doctor examines, and what was wrong with those that cannot be built."""

    catalogue: Catalogue
    broken: dict[str, Exception]


@contextmanager
def found_options(config_dir: Path | None = None, allowed: Sequence[str] = ()) -> Iterator[Found]:
    """Every option of every group of mathematics, which can be built while this lasts.

    Args:
        config_dir: a directory with more groups' folders, whose options come before those of the same name.
        allowed: packages that their `_target_` may name beside the usual ones.
    """
    directories = [CONF] if config_dir is None else [CONF, config_dir]
    found: dict[str, dict[str, Option]] = {group: {} for group in GROUPS}
    broken: dict[str, Exception] = {}
    with tempfile.TemporaryDirectory() as temporary:
        betas = Path(temporary) / "betas.txt"  # for the schedule whose yaml leaves the file to the user
        betas.write_text("\n".join(map(str, BETAS.tolist())), encoding="utf-8")
        for directory, group in product(directories, GROUPS):
            with initialize_config_dir(str(directory.absolute()), version_base="1.3"):
                for name in sorted(file.stem for file in (directory / group).glob("*.yaml")):
                    found[group].pop(name, None)
                    broken.pop(f"{group}={name}", None)
                    try:
                        option = _read(group, name, betas, allowed)
                        option.small()
                        found[group][name] = option
                    except Exception as error:
                        broken[f"{group}={name}"] = error
        yield Found({group: [of[name] for name in sorted(of)] for group, of in found.items()}, broken)


def _read(group: str, name: str, betas: Path, allowed: Sequence[str]) -> Option:
    node = compose(None, [f"+{group}={name}"])[group]
    if OmegaConf.is_missing(node, "path"):
        node.path = str(betas)
    if OmegaConf.is_missing(node, "ckpt"):
        node.ckpt = "guide"  # which the checks make
    settings: Any = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    target = targets.check_name(group, settings.get("_target_"), allowed)
    targets.check_names(group, settings, allowed)
    takes = inspect.signature(targets.resolve(group, target)).parameters
    make = targets.build(group, {**settings, "_partial_": True})
    return Option(group, name, make, frozenset(takes))


def lines_on_options(found: Found) -> Iterator[Line]:
    """Whether there are options in every group, so that something is examined; and those that are broken."""
    empty = [group for group in GROUPS if not found.catalogue[group]]
    why = (
        f"no options of {', '.join(empty)} were found in {CONF}: nothing of them is examined" if empty else ""
    )
    count = str(sum(map(len, found.catalogue.values())))
    yield Line("options", "some in every group", count, "", not empty, why)
    for option, error in found.broken.items():
        yield Line(option, "can be built", "", "", False, str(error))


def doctor(config_dir: Path | None = None, allowed: Sequence[str] = ()) -> int:
    """Examine this installation and print the table.

    Args:
        config_dir, allowed: see `found_options`.

    Returns:
        the exit code: 1 if a line fails.
    """
    began = time.monotonic()
    progress = Console(stderr=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are tiny, and two threads would only wait for each other
    try:
        importing = environment.start_importing()
        with found_options(config_dir, allowed) as found:
            what = examined(found.catalogue)
            cases = track(
                all_cases(what),
                "examining",
                console=progress,
                transient=True,
                disable=not progress.is_terminal,
            )
            lines = [*environment.lines(importing), *lines_on_options(found), *judged(cases)]
    finally:
        torch.set_num_threads(threads)
    report(lines, what, time.monotonic() - began)
    return 0 if all(line.passed for line in lines) else 1


def report(lines: Sequence[Line], found: Examined, seconds: float) -> None:
    """Print the table, and what was covered."""
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    table = Table(show_edge=False, pad_edge=False)
    for title in ("check", "compared", "worst", "allowed", "verdict"):
        table.add_column(title, overflow="fold")
    for line in lines:
        comparison = Text("\n".join(filter(None, [line.compared, line.why])))
        verdict = Text("ok", "green") if line.passed else Text("FAILED", "bold red")
        table.add_row(Text(line.check), comparison, Text(line.worst), Text(line.allowed), verdict)
    console.print(table)
    options = sum(map(len, found.catalogue.values()))
    covered, refused = found.cover, [f"{a} with {b}" for a, b in found.cover.refused]
    failed = sum(not line.passed for line in lines)
    print(f"\n{len(covered.combinations)} combinations of {options} options cover all {covered.pairs} pairs.")
    print(f"{len(refused)} more are refused as without meaning: {', '.join(refused) or 'none'}.")
    print(f"{len(lines)} lines, {failed or 'none'} failed, {seconds:.0f} s.")
