"""What `python train.py preflight=true` does: says what a run would take, by a few real steps."""

import time
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from ddpm.app.inspect import described
from ddpm.app.terminal import say
from ddpm.data.module import ImageDataModule
from ddpm.runtime.arithmetic import STEP, matmul_peak
from ddpm.runtime.computing import Computing
from ddpm.runtime.device import wait
from ddpm.runtime.memory import GIB, is_out_of_memory, peak_memory
from ddpm.runtime.progress import duration
from ddpm.sampling.batches import seconds_to_draw
from ddpm.sampling.drawing import Drawing
from ddpm.training.callbacks.samples import SHARE, SampleGrids, in_proportion
from ddpm.training.module import DDPM
from ddpm.training.nonfinite.guard import Guard, NonFiniteError

MEASURED_STEPS = 3
MEASURED_SECONDS = 10.0
"""Steps are measured until there are as many as this, or as long."""


def preflight(
    trainer: Trainer, module: DDPM, data: ImageDataModule, computing: Computing, first_step: int = 0
) -> int:
    """Print parameters, arithmetic, memory, times and data statistics.

    Args:
        trainer: of the run; says which device, how many, and how long.
        module: of the run; its weights move by a few steps.
        data: of the run.
        computing: how the network is computed. It is not compiled here.
        first_step: that the run starts from.

    Returns:
        the exit code: 1 where a step does not fit into the device's memory, or is not finite.
    """
    device = trainer.strategy.root_device
    for title, text in described(data).items():
        _row(title, text)
    module.to(device).train()
    forward = module.flops_per_image
    peak = matmul_peak(device, computing.precision)
    micro_batch = data.batch_size // (trainer.world_size * trainer.accumulate_grad_batches)
    number = f"{trainer.world_size} x {device.type.upper()}"
    _row("parameters", f"{module.num_parameters:,}")
    _row("FLOPs an image", f"{forward / 1e9:.4g} G forward, {STEP * forward / 1e9:.4g} G a training step")
    _row("computed in", f"{computing}, on {number}; a large matrix product runs at {peak / 1e12:.3g} TFLOP/s")
    _row("batch", f"{data.batch_size:,} images a step, {micro_batch:,} at once on a device")
    try:
        seconds = _seconds_a_step(trainer, module, micro_batch, computing)
    except NonFiniteError as error:
        _row("a step", f"is not finite on random images: {error}")
        return 1
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        is_auto = ((module.config or {}).get("data") or {}).get("micro_batch") == "auto"
        fewer = max(1, micro_batch // 2) if is_auto else "auto"
        _row("memory", f"{micro_batch:,} images at once do not fit; use data.micro_batch={fewer}")
        return 1
    of = "of the process" if device.type == "cpu" else "of the GPU"
    _row("memory", f"{peak_memory(device) / GIB:.2f} GiB {of}, at its peak")
    mfu = STEP * forward * data.batch_size / trainer.world_size / seconds / peak
    _row(
        "a step", f"{seconds * 1e3:.1f} ms, {data.batch_size / seconds:,.0f} images/s, {mfu:.0%} of the peak"
    )
    total, grids = (trainer.max_steps - first_step) * seconds, 0.0
    for callback in getattr(trainer, "callbacks", ()):
        if isinstance(callback, SampleGrids):
            grid = seconds_to_draw(Drawing(module, sampler=callback.sampler), range(callback.n))
            _row(
                "a sample grid",
                f"{callback.n} images every {callback.every_n_steps:,} steps: {_short(grid)}",
            )
            grids += grid * ((trainer.max_steps - first_step) // callback.every_n_steps)
            if callback.final:
                last, text = _last_grid(callback, grid, module, trainer.max_steps, data.batch_size)
                _row("the last grid", text)
                grids += last - grid * (trainer.max_steps % callback.every_n_steps == 0)
    if trainer.max_steps < 0:
        _row("the run", "has no end")
    else:
        steps = f"{trainer.max_steps - first_step:,} steps"
        _row("the run", f"{steps}: {duration(total)}, and {duration(grids)} for grids, without validation")
    return 0


def _last_grid(
    callback: SampleGrids, grid: float, module: DDPM, steps: int, batch_size: int
) -> tuple[float, str]:
    """Seconds of the grid that is drawn when training ends, and what is said of it.

    Args:
        callback: that draws it.
        grid: seconds by the sampler of the grids during training.
        module: of the run.
        steps: of the run; negative where it has no end.
        batch_size: images a step.
    """
    by_own = Drawing(module)
    own = seconds_to_draw(by_own, range(callback.n))
    text = f"by the run's own sampler: {_short(own)}"
    if callback.final is True:
        return own, text
    if steps < 0:
        return own, f"{text}, if that is at most {SHARE:.0%} of the arithmetic of training"
    if in_proportion(by_own.nfe, callback.n, steps, batch_size):
        return own, text
    return grid, (
        f"by that of the other grids: {_short(grid)}; the run's own sampler would take {_short(own)}, above "
        f"{SHARE:.0%} of the arithmetic of training (callbacks.samples.final=true draws by it all the same)"
    )


def _row(title: str, text: str) -> None:
    say(f"{title:<15}{text}")


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


class _Timed(Callback):
    """The time of each optimizer step; ends the training when enough are measured."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._begin = self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        wait(pl_module.device)
        now = time.perf_counter()
        self.times.append(now - self._start)
        long_enough = now - self._begin > MEASURED_SECONDS
        trainer.should_stop = len(self.times) > (1 if long_enough else MEASURED_STEPS)
        self._start = now


def _seconds_a_step(trainer: Trainer, module: DDPM, micro_batch: int, computing: Computing) -> float:
    """The median time of an optimizer step on one device, on random images; the first is not counted."""
    parts = [torch.rand(micro_batch, *module.image_shape) * 2 - 1]
    if module.num_classes is not None:
        parts.append(torch.randint(module.num_classes, (micro_batch,)))
    timed, most = _Timed(), 1 + MEASURED_STEPS
    precision: Any = computing.precision
    alone = Trainer(
        accelerator=trainer.strategy.root_device.type,
        devices=1,
        precision=precision,
        max_steps=most,
        accumulate_grad_batches=trainer.accumulate_grad_batches,
        gradient_clip_val=trainer.gradient_clip_val,
        gradient_clip_algorithm=trainer.gradient_clip_algorithm,
        callbacks=[timed],
        log_every_n_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.guard = Guard(reports=0)
    batches: Any = [parts] * (most * trainer.accumulate_grad_batches)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        alone.fit(module, DataLoader(batches, batch_size=None))
    module.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU
    return sorted(timed.times[1:])[(len(timed.times) - 1) // 2]
