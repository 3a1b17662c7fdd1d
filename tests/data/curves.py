"""Loss curves with the settings of `smoke`; run as a program, those of one rank of several."""

import json
import logging
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conftest import ROOT

Settings = Mapping[str, Any]


def curve(settings: Settings, steps: int) -> list[float]:
    """The training loss of each step.

    Args:
        settings: overrides of data.*; `accumulation` and `devices` are the trainer's.
        steps: how many.
    """
    from hydra import compose, initialize_config_dir
    from lightning.pytorch import Callback, Trainer

    from ddpm.app import check, run_directory
    from ddpm.app.build import build_data, describe
    from ddpm.training.building import build_module
    from ddpm.training.callbacks.scalars import TrainingRows

    class Losses(Callback):
        def __init__(self) -> None:
            self.found: list[float] = []

        def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
            if trainer.global_step > len(self.found):
                self.found.append(float(trainer.callback_metrics["train/loss"]))

    data_settings = {key: value for key, value in settings.items() if key not in ("accumulation", "devices")}
    source = data_settings.pop("source")
    overrides = ["experiment=smoke", f"data={source}", *(f"++data.{k}={v}" for k, v in data_settings.items())]
    run_directory.register_resolver()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = check.plain(compose("train", overrides))
    data = build_data(config)
    module = build_module(config, describe(data))
    devices = settings.get("devices", 1)
    losses = Losses()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        trainer = Trainer(
            accelerator="cpu",
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            max_steps=steps,
            accumulate_grad_batches=settings.get("accumulation", 1),
            gradient_clip_val=1.0,
            log_every_n_steps=1,
            callbacks=[TrainingRows(), losses],
            use_distributed_sampler=False,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
    return losses.found


def curves_of_two_devices(many: Sequence[Settings], steps: int, directory: Path) -> list[list[float]]:
    """The same of two processes that share each batch, one pair of them for all."""
    (directory / "many.json").write_text(json.dumps([{**settings, "devices": 2} for settings in many]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path]),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "NODE_RANK": "0",
            "LOCAL_RANK": str(rank),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, __file__, str(directory), str(steps), str(rank)]
        processes.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    said = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0] + said[1]
    found = [json.loads((directory / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    return found[0]


def main() -> None:
    directory, steps, rank = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    many = json.loads((directory / "many.json").read_text())
    (directory / f"{rank}.json").write_text(json.dumps([curve(settings, steps) for settings in many]))


if __name__ == "__main__":
    main()
