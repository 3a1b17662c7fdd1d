"""Draw from a trained run: python sample.py ckpt=RUN_DIR n=64, python sample.py --help."""

from ddpm.app.command_line import run

if __name__ == "__main__":
    run("sample")
