"""run.json: what a run was, for whoever finds its directory later."""

import json
import math
import os
import platform
import subprocess
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("ddpm", "torch", "lightning", "hydra-core", "numpy")


class RunRecord:
    """Writes `run.json` when the run begins, and again when it ends in whatever way.

    Args:
        directory: of the run.
        known: what can be said at the beginning, plain containers.
    """

    def __init__(self, directory: Path, known: dict[str, Any]):
        self.path = directory / "run.json"
        self._start = time.monotonic()
        self.values: dict[str, Any] = {
            "status": "running",
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "working_directory": str(Path.cwd()),
            "host": platform.node(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in PACKAGES},
            "git": git_commit(),
            **known,
        }
        self._write()

    def end(self, status: str, **known: Any) -> None:
        """Record how the run ended: "finished", "interrupted" or "failed", and what is known by then."""
        self.values |= {"status": status, "wall_seconds": round(time.monotonic() - self._start, 2), **known}
        self._write()

    def _write(self) -> None:
        temporary = self.path.with_name(".run.json.part")
        temporary.write_text(json.dumps(without_nan(self.values), indent=2) + "\n")
        os.replace(temporary, self.path)


def git_commit() -> dict[str, Any] | None:
    """The commit of the code that runs, and whether it has changes; None where it is no checkout."""
    root = Path(__file__).parents[3]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def without_nan(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: without_nan(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
