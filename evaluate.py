"""Measure a trained run: python evaluate.py ckpt=RUN_DIR, python evaluate.py --help."""

from ddpm.app.command_line import run

if __name__ == "__main__":
    run("evaluate")
