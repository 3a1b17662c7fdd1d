"""The rows of a sweep that a file lists, `sweep=NAME`, and the jobs that they make with what is typed."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from ddpm.app import arguments as words
from ddpm.app.arguments import Arguments
from ddpm.app.compose import Composed
from ddpm.app.grammar import quoted, shown
from ddpm.errors import UsageError

KEY = "hydra.sweeper.rows"


def rows_of(first: Composed, arguments: Arguments, program: str) -> list[tuple[str, ...]]:
    """The rows, read as if they were typed; none where no file lists any.

    Raises:
        UsageError: for a row that is none.
    """
    sweeper = first.hydra.hydra.sweeper
    if not str(sweeper.get("_target_")).endswith(".RowsSweeper"):
        return []
    listed: Any = OmegaConf.to_container(sweeper.rows)  # a list of lists of words, or Hydra had refused it
    if not listed:
        raise UsageError(f"{KEY}: a sweep of no jobs is none; list rows, [[KEY=VALUE,...],...]")
    found = []
    for number, row in enumerate(listed):
        read = words.read(["-m", *row], program, arguments.config_dir)
        for text, override in zip(read.overrides, read.parsed, strict=True):
            if override.is_sweep_override():
                raise UsageError(f"{KEY}[{number}]: {shown([text])}: a row takes one value")
        found.append(read.overrides)
    return found


def with_rows(jobs: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Each row for each job. A key that is typed holds in every row; rows that are then alike are one.

    Args:
        jobs: overrides that the command line makes.
        rows: overrides.
    """
    found = []
    for typed in jobs:
        keys = {words.key_of(word) for word in typed}
        found += [(*(word for word in row if words.key_of(word) not in keys), *typed) for row in rows or [()]]
    return list(dict.fromkeys(found))


def override(rows: Sequence[Sequence[str]]) -> str:
    """The rows as one override of Hydra's."""
    listed = (f"[{','.join(quoted(word) for word in row)}]" for row in rows)
    return f"{KEY}=[{','.join(listed)}]"
