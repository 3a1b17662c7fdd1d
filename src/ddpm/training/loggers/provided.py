"""What a run gives to its loggers, so that nobody types it."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

DIRECTORIES = ("save_dir", "root_dir", "log_dir", "dir")
"""What loggers call the directory that they write to; the first that one takes is given."""

VARIABLES = {
    "save_dir": "WANDB_DIR",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "id": "WANDB_RUN_ID",
}
"""W&B's environment variables, which come before what a run would give."""


def provided(
    constructor: Callable[..., Any],
    *,
    directory: Path,
    run_name: str,
    group: str | None = None,
    id: str | None = None,
    config: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
) -> dict[str, Any]:
    """The arguments that a run gives to the constructor of a logger, where its settings give none.

    They follow from the constructor's signature, so that another library's logger is given them too:

    - any: the run's directory as `save_dir` (or `root_dir`, `log_dir`, `dir`), `tags` as a list or, where it
      says so, as a dictionary, and the run's name as `run_name`;
    - W&B (Lightning's or ours): also `name`, `group`, `id` and `config`. Where a variable such as
      `WANDB_NAME` is set, what it stands for is left to W&B.

    Args:
        constructor: of the logger; a class, or a partial of one.
        directory: of the run.
        run_name: what it is called on a dashboard.
        group: runs that belong together, such as the jobs of a sweep.
        id: of the W&B run that goes on.
        config: plain containers, shown beside the run.
        tags: of the run; a person's word, so they come before a variable.
    """
    takes = inspect.signature(constructor).parameters
    target = getattr(constructor, "func", constructor)
    arguments: dict[str, Any] = {}
    if place := next((name for name in DIRECTORIES if name in takes), None):
        arguments[place] = str(directory)
    if "run_name" in takes:
        arguments["run_name"] = run_name
    if isinstance(target, type) and issubclass(target, WandbLogger):
        arguments |= {"name": run_name, "group": group, "id": id, "config": config, "tags": list(tags)}
        set_outside = [name for name, variable in VARIABLES.items() if os.environ.get(variable)]
        arguments = {name: value for name, value in arguments.items() if value and name not in set_outside}
    elif tags and "tags" in takes:
        as_mapping = "dict" in str(takes["tags"].annotation).lower()
        arguments["tags"] = dict.fromkeys(tags, "true") if as_mapping else list(tags)
    return arguments
