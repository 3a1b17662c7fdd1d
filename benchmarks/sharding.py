"""What each of several CPU processes holds of a network in training, by DDP and sharded.

    python benchmarks/sharding.py                           101 million parameters on two processes
    python benchmarks/sharding.py --channels 32 --processes 3

The paper's U-Net, 216 channels wide, trains three steps on random images
of 8x8, by `DDPStrategy` and by `FullySharded`. Counted on each process, in bytes a parameter of the whole
network, are the tensors that Python knows: parameters, their gradients, the optimizer's moments, the average,
and what is gathered or reduced just now. They are counted after every block on the way forward and back, and
before and after the step of the optimizer; shown is the most of each, over the steps behind the first. Beside
it stands what the system says: the memory of the process when the training is over, and the most of it, both
beyond what it had before the network was built. For that glibc is told to give back what is freed, under
all strategies, or it would keep what was gathered, and show it. At last a checkpoint is saved, whole or, as
`parts`, by each process what it holds: shown is how much more memory one needs for that. Losses must agree.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from ddpm.diffusion import schedules
from ddpm.networks.unet import UNet
from ddpm.training.checkpoints import AtomicCheckpointIO
from ddpm.training.module import DDPM
from ddpm.training.sharding import FullySharded, blocks
from ddpm.training.shards import parts

STEPS, WARM = 3, 1
STRATEGIES = {
    "ddp": lambda: DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False),
    "fsdp": lambda: FullySharded(timeout=timedelta(minutes=10)),
    "parts": lambda: FullySharded("sharded", timeout=timedelta(minutes=10)),
}


def memory(field: str) -> int:
    """Bytes of this process, by a name in /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def give_back_what_is_free() -> None:
    """glibc keeps what was freed, and no process shows how little it holds."""
    ctypes.CDLL(None).malloc_trim(0)


def held(tensors: Any) -> dict[int, int]:
    """Bytes of storages, by where they begin."""
    found = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return found


def everything() -> int:
    """Bytes of all tensors that Python knows on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = [one for one in gc.get_objects() if type(one) in (Tensor, torch.nn.Parameter)]
    return sum(held(one for one in tensors if one.device.type == "cpu").values())


class Count(Callback):
    """Counts as the training goes."""

    def __init__(self) -> None:
        self.most = 0
        self.kinds: dict[str, int] = {}
        self.losses: list[float] = []
        self.saving = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.parameters = list(module.network.parameters())
        give_back_what_is_free()  # of building the network
        Path("/proc/self/clear_refs").write_text("5")  # the most from here on
        for block in blocks(module.network):
            block.register_forward_hook(lambda *_: self._look(trainer))
            block.register_full_backward_hook(lambda *_: self._look(trainer))

    def _look(self, trainer: Trainer) -> None:
        if trainer.global_step >= WARM:
            self.most = max(self.most, everything())

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._look(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        self._look(trainer)
        if trainer.global_step < WARM:
            return
        state = [value for values in optimizer.state.values() for value in values.values()]
        average = list(module.ema.state_dict()["parameters"].values())
        for name, tensors in (
            ("parameters", self.parameters),
            ("gradients", [one.grad for one in self.parameters]),
            ("optimizer", [one for one in state if one.numel() > 1]),
            ("average", average),
        ):
            size = sum(held(one.detach() for one in parts(tensors)).values())
            self.kinds[name] = max(self.kinds.get(name, 0), size)

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self._look(trainer)
        self.losses.append(float(outputs["loss"]))

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.resident_most = memory("VmHWM")
        give_back_what_is_free()
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "saved.ckpt")
        self.saving = memory("VmHWM") - before


def train(strategy: str, processes: int, channels: int, out: Path) -> None:
    before = memory("VmRSS")
    torch.manual_seed(0)
    network = UNet(3, 3, channels=channels, multipliers=(1, 2, 2, 2), norm_groups=8, dropout=0.0)
    module = DDPM(
        network, schedules.linear(1000), image_shape=(3, 8, 8),
        optimizer=partial(torch.optim.Adam, lr=1e-3, fused=True),
    )  # fmt: skip
    count = Count()
    rank = int(os.environ.get("LOCAL_RANK", 0))
    images = torch.rand(STEPS, processes, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    trainer = Trainer(
        accelerator="cpu", devices=processes, strategy=STRATEGIES[strategy](), max_steps=STEPS,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[count], plugins=[AtomicCheckpointIO()], use_distributed_sampler=False, log_every_n_steps=0,
        default_root_dir=str(out),
    )  # fmt: skip
    trainer.fit(module, DataLoader(list(images[:, rank]), batch_size=None))
    gc.collect()
    give_back_what_is_free()
    result = {
        "parameters": module.num_parameters, "most": count.most, "kinds": count.kinds,
        "resident": memory("VmRSS") - before, "resident_most": count.resident_most - before,
        "losses": count.losses, "saving": count.saving,
    }  # fmt: skip
    (out / f"{strategy}_{rank}.json").write_text(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--channels", type=int, default=216, help="of the network, a multiple of 8")
    parser.add_argument("--only", choices=STRATEGIES, help="what one process does")
    parser.add_argument("--out", type=Path, help="where it writes what it found")
    args = parser.parse_args()
    processes = args.processes
    if args.only:
        train(args.only, processes, args.channels, args.out)
        return
    found: dict[str, dict[str, Any]] = {}
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    with tempfile.TemporaryDirectory() as out:
        for strategy in STRATEGIES:
            words = ["--only", strategy, "--out", out, "--channels", str(args.channels)]
            command = [sys.executable, __file__, *words, "--processes", str(processes)]
            subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
            ranks = [json.loads(path.read_text()) for path in sorted(Path(out).glob(f"{strategy}_*.json"))]
            found[strategy] = max(ranks, key=lambda one: one["most"])
            means = [sum(one["losses"][i] for one in ranks) / processes for i in range(STEPS)]
            found[strategy] |= {"loss": means, "saving": max(one["saving"] for one in ranks)}
    n = found["ddp"]["parameters"]
    print(f"{n:,} parameters, {processes} processes; bytes a parameter, of the process that holds most")
    names = ["parameters", "gradients", "optimizer", "average"]
    print(
        f"{'':6}"
        + "".join(f"{name:>12}" for name in [*names, "their sum", "peak", "resident", "its peak", "to save"])
    )
    sums = {}
    for strategy, result in found.items():
        values = [result["kinds"][name] / n for name in names]
        sums[strategy] = sum(values)
        shown = [
            *values, sum(values), result["most"] / n, result["resident"] / n, result["resident_most"] / n,
            result["saving"] / n,
        ]  # fmt: skip
        print(f"{strategy:6}" + "".join(f"{value:12.2f}" for value in shown))
    print(
        f"fsdp of ddp: {sums['fsdp'] / sums['ddp']:.3f} of what is kept, "
        f"{found['fsdp']['most'] / found['ddp']['most']:.3f} of the peak"
    )
    differences = [abs(a / b - 1) for a, b in zip(found["fsdp"]["loss"], found["ddp"]["loss"], strict=True)]
    print(f"losses differ by at most {max(differences):.1e}")


if __name__ == "__main__":
    main()
