"""What the framework adds to a step: the full program against a plain PyTorch loop around the same network.

    python benchmarks/overhead.py                          digits, the tiny network
    python benchmarks/overhead.py --model cifar10 --batch 16 --steps 12

Runs `train.py` with every default callback and logger, grids apart. After each of its steps the plain loop
takes one of its own in the same process: same network and batch, the same arithmetic (t and eps drawn,
q_sample, forward, backward, clipping, fused Adam, average of the weights), nothing else. So both see the same
machine at the same time. Prints the medians of both, and their difference.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
WARM_UP = 3
"""Steps of each kind that are not counted: they allocate, and compile where that is on."""


class PlainLoop:
    """A training step as one would write it without any framework.

    Args:
        network: copied, so that its owner's training goes on undisturbed.
        images: uint8 [N, C, H, W], on the device.
        batch_size: pictures a step.
        precision: "32-true" or "bf16-mixed".
    """

    def __init__(self, network: nn.Module, images: Tensor, batch_size: int, precision: str):
        self.network = copy.deepcopy(network).train()
        self.images = images
        self.batch_size = batch_size
        self.mixed = precision == "bf16-mixed"
        self.parameters = list(self.network.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.Adam(self.parameters, lr=2e-4, fused=True)
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        alphas_cumprod = (1 - betas).cumprod(0)
        self.signal, self.noise = (
            x.sqrt().float().to(images.device) for x in (alphas_cumprod, 1 - alphas_cumprod)
        )

    def step(self) -> None:
        device = self.images.device
        rows = torch.randint(len(self.images), (self.batch_size,), device=device)
        x_0 = self.images[rows].float() / 127.5 - 1
        t = torch.randint(1000, (self.batch_size,), device=device)
        eps = torch.randn_like(x_0)
        x_t = self.signal[t].view(-1, 1, 1, 1) * x_0 + self.noise[t].view(-1, 1, 1, 1) * eps
        self.optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16) if self.mixed else nullcontext():
            loss = (self.network(x_t, t).float() - eps).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1e-4)


class Alternate(Callback):
    """Times the program's steps, and after each of them one of the plain loop.

    The program's time is all that passes between two calls of this callback: loop, data, callbacks, loggers.
    """

    def __init__(self, out: str):
        self.out = Path(out)
        self.program: list[float] = []
        self.plain: list[float] = []
        self.loop: PlainLoop | None = None
        self.since = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.loop is None:
            data = trainer.datamodule
            images = torch.from_numpy(data.data_set.train.images).to(module.device)
            self.loop = PlainLoop(module.network, images, data.batch_size, trainer.precision)
        else:
            _wait(module.device)
            self.program.append(time.perf_counter() - self.since)
        start = time.perf_counter()
        self.loop.step()
        _wait(module.device)
        self.since = time.perf_counter()
        self.plain.append(self.since - start)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.out.write_text(json.dumps({"program": self.program[WARM_UP:], "plain": self.plain[WARM_UP:]}))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--size", type=int, help="of synthetic pictures; the digits by default")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("settings", nargs="*", help="further KEY=VALUE for train.py")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = ["data=digits"]
        if arguments.size:
            import numpy as np

            shape = (256, arguments.size, arguments.size, 3)
            pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            np.savez(Path(directory, "pictures.npz"), arr_0=pictures)
            data = ["data=npz", f"data.path={directory}/pictures.npz"]
        out = Path(directory, "times.json")
        command = [
            sys.executable, str(ROOT / "train.py"), *data, f"model={arguments.model}",
            f"data.batch_size={arguments.batch}", f"trainer.max_steps={arguments.steps}",
            "callbacks.samples=null", "allow_targets=[overhead]",
            "callbacks.alternate._target_=overhead.Alternate", f"callbacks.alternate.out={out}",
            f"hydra.run.dir={directory}/run", *arguments.settings,
        ]  # fmt: skip
        path = os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
        subprocess.run(
            command, check=True, env={**os.environ, "PYTHONPATH": path, "DDPM_CACHE": f"{directory}/cache"}
        )
        times = json.loads(out.read_text())
    program, plain = (statistics.median(times[kind]) * 1e3 for kind in ("program", "plain"))
    pairs = [(a - b) * 1e3 for a, b in zip(times["program"], times["plain"][:-1], strict=True)]
    print(
        f"{arguments.model}, batch {arguments.batch}, median of {len(pairs)} steps: "
        f"program {program:.2f} ms, plain loop {plain:.2f} ms, difference {program - plain:+.2f} ms; "
        f"median of the paired differences {statistics.median(pairs):+.2f} ms"
    )


if __name__ == "__main__":
    main()
