"""Sample from a trained run: python sample.py ckpt=RUN_DIR [KEY=VALUE ...], python sample.py --help."""

from pathlib import Path
from typing import Any

from ddpm.app.command_line import Job, run


def prepare(config: dict[str, Any], directory: Path) -> Job:
    from ddpm.app.sample import prepare  # torch is imported only after the checks that do without

    return prepare(config, directory)


if __name__ == "__main__":
    run(prepare, "sample")
