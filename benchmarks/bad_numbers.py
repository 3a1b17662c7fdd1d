"""What the guard over numbers costs: CPU seconds of the default run's step, with it and without.

    python benchmarks/bad_numbers.py            20 pairs of 100 steps each, five minutes

Trains the digits with the default recipe's tiny network in Lightning's own loop, in one process. The guard is
on in one step and off in the next (on, off, off, on, ...), so that both see the same machine. Without it the
loss is not multiplied, nothing is kept of a step, and the norm is not read. A pair is the median CPU time of
so many steps with it and of as many without. Prints that of a step, and the mean difference of the pairs with
its 95 % confidence interval (Student's t).
"""

import argparse
import math
import statistics
import tempfile
import time
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.app import check
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.options import CONF
from ddpm.training.building import build_module
from ddpm.training.nonfinite.guard import Guard

WARM_UP = 12
"""Steps that are not counted."""

T_95 = {2: 12.706, 5: 2.776, 10: 2.262, 20: 2.093, 40: 2.023}
"""Student's t for so many pairs."""


class NoGuard(Guard):
    """Adds to the means what the guard would, and does nothing else."""

    def guarded(self, loss: Any, seen: Any) -> Any:
        self.module.train_loss.add(seen.loss)
        return loss

    def check(self, module: Any, norm: Any, *arguments: Any) -> None:
        module.gradient_norm.add(norm)

    module: Any


class Turns(Callback):
    """Turns the guard on and off, and keeps the CPU seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[bool, list[float]] = {True: [], False: []}
        self._guards: dict[bool, Guard] = {True: Guard(), False: NoGuard()}
        self._since = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module: Any = pl_module
        if batch_idx >= WARM_UP:
            self.seconds[self._on(batch_idx)].append(time.process_time() - self._since)
        module.guard = self._guards[self._on(batch_idx + 1)]
        module.guard.module = module
        self._since = time.process_time()

    @staticmethod
    def _on(step: int) -> bool:
        return step % 4 in (0, 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=20, choices=sorted(T_95))
    parser.add_argument("--steps", type=int, default=100, help="of each kind in a pair")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = check.plain(compose("train"))
    data = ImageDataModule(Digits(), batch_size=config["data"]["batch_size"], seed=0)
    shape = list(data.data_set.train.images.shape[1:])
    module = build_module(config, {"image_shape": shape, "classes": None})
    turns = Turns()
    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=WARM_UP + 2 * arguments.pairs * arguments.steps,
            gradient_clip_val=config["trainer"]["gradient_clip_val"],
            log_every_n_steps=config["trainer"]["log_every_n_steps"],
            default_root_dir=directory,
            callbacks=[turns],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=data)
    on, off = (
        [statistics.median(seconds[i : i + arguments.steps]) for i in range(0, len(seconds), arguments.steps)]
        for seconds in (turns.seconds[True], turns.seconds[False])
    )
    differences = [(a - b) * 1e3 for a, b in zip(on, off, strict=True)]
    step, mean = statistics.median(off) * 1e3, statistics.mean(differences)
    half = T_95[arguments.pairs] * statistics.stdev(differences) / math.sqrt(arguments.pairs)
    print(
        f"a step takes {step:.2f} ms of CPU without the guard; it adds {mean * 1e3:+.0f} us, 95 % interval "
        f"{(mean - half) * 1e3:+.0f} to {(mean + half) * 1e3:+.0f} us, that is {mean / step:+.2%} "
        f"({(mean - half) / step:+.2%} to {(mean + half) / step:+.2%}); {arguments.pairs} pairs of "
        f"{arguments.steps} steps"
    )


if __name__ == "__main__":
    main()
