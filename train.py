"""Train a diffusion model: python train.py [GROUP=OPTION ...] [KEY=VALUE ...], python train.py --help."""

from pathlib import Path
from typing import Any

from ddpm.app.command_line import Job, run


def prepare(config: dict[str, Any], directory: Path) -> Job:
    from ddpm.app.train import prepare  # torch is imported only after the checks that do without

    return prepare(config, directory)


if __name__ == "__main__":
    run(prepare, "train")
