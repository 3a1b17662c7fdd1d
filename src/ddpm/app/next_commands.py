"""The commands that go on from a run, ready to be pasted."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm.app import invocation, outside
from ddpm.app.run_directory import Place


def sample(place: Place, allow_targets: Sequence[str] = ()) -> str:
    """Draw from a run."""
    return f"{_command(place, 'sample')} {_run(place, allow_targets)}"


def measure(place: Place, allow_targets: Sequence[str] = ()) -> str:
    """Measure a run."""
    return f"{_command(place, 'evaluate')} {_run(place, allow_targets)}"


def report(place: Place) -> str:
    """Make a page of a run."""
    directory = readable(place.directory, place.cwd)
    return f"{command()} report {shlex.quote(f'./{directory}' if directory.startswith('-') else directory)}"


def go_on(place: Place, allow_targets: Sequence[str] = ()) -> str:
    """Go on with a run that has steps left, in a new directory."""
    again = outside.typed_again(place.overrides, place.directory)
    return " ".join([_command(place, "train"), _run(place, allow_targets), *again])


def train_on(
    place: Place, max_steps: int, lr_schedule: Mapping[str, Any], allow_targets: Sequence[str] = ()
) -> str:
    """Go on with a run that has taken all its steps, for as many again.

    Args:
        place: of the run.
        max_steps: that it took.
        lr_schedule: configuration of its learning-rate schedule; one that has ended is replaced.
        allow_targets: packages of somebody's own, which the command has to admit again.
    """
    rate = " lr_schedule=constant" if lr_schedule.get("total_steps") is not None else ""
    return f"{go_on(place, allow_targets)} trainer.max_steps={2 * max_steps}{rate}"


def sync(directories: Sequence[Path], cwd: Path) -> str:
    """Upload what a run has logged offline, a directory of W&B's for each of its starts, as one run.

    W&B brings them into the order of their starts, and appends each to those before.
    """
    return f"wandb sync {' '.join(shlex.quote(readable(directory, cwd)) for directory in directories)}"


def readable(path: Path, cwd: Path) -> str:
    """As short as it can be typed from where the person stands."""
    relative = os.path.relpath(path, cwd)
    if relative.startswith(".."):
        return str(path)
    return f"./{relative}" if relative.startswith("~") else relative  # else it would be somebody's home


def _run(place: Place, allow_targets: Sequence[str]) -> str:
    """The words that name a run and admit what it was built from."""
    words = f"ckpt={shlex.quote(readable(place.directory, place.cwd))}"
    if allow_targets:  # one needs no brackets, which a shell may take for a pattern
        packages = f"[{','.join(allow_targets)}]" if len(allow_targets) > 1 else allow_targets[0]
        words += f" {shlex.quote(f'allow_targets={packages}')}"
    return words


def program(cwd: Path, name: str) -> str:
    """How a program of ours is started, as this one was.

    Args:
        cwd: where the person stands.
        name: train, sample or evaluate.
    """
    started = invocation.program()
    if started[-1] in invocation.COMMANDS and started[0] != "-m":
        return f"ddpm {name}"
    script = (cwd / sys.argv[0]).with_name(f"{name}.py")
    if started[0] != "-m" and script.is_file():
        return f"python {shlex.quote(readable(script, cwd))}"
    return f"python -m ddpm {name}"


def command() -> str:
    """How a command of ours is started whose arguments are flags."""
    started = invocation.program()
    return "ddpm" if started[-1] in invocation.COMMANDS and started[0] != "-m" else "python -m ddpm"


def _command(place: Place, name: str) -> str:
    return program(place.cwd, name)
