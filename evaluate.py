"""Measure a trained run: python evaluate.py ckpt=RUN_DIR [KEY=VALUE ...], python evaluate.py --help."""

from typing import Any

from ddpm.app.command_line import Job, run
from ddpm.app.run_directory import Place


def prepare(config: dict[str, Any], place: Place) -> Job:
    from ddpm.app.evaluate import prepare  # torch is imported only after the checks that do without

    return prepare(config, place)


if __name__ == "__main__":
    run(prepare, "evaluate")
