"""Train a diffusion model: python train.py [GROUP=OPTION ...] [KEY=VALUE ...], python train.py --help."""

from ddpm.app.command_line import run

if __name__ == "__main__":
    run("train")
