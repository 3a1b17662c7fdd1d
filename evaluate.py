"""Measure a trained run: python evaluate.py ckpt=RUN_DIR, python evaluate.py --help."""

from ddpm.__main__ import prepare
from ddpm.app.command_line import run

if __name__ == "__main__":
    run(prepare("evaluate"), "evaluate")
