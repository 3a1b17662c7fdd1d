"""Training steps and sampling against diffusers and denoising_diffusion_pytorch: speed and highest memory.

    python benchmarks/speed.py training                            the tiny network on digits' size, batch 64
    python benchmarks/speed.py training --network cifar10 --batch 16 64
    python benchmarks/speed.py sampling --steps 100                64 pictures, 100 of the 1,000 steps
    python benchmarks/speed.py training --network cifar10 --device cuda --batch 128 256 512 1024
    python benchmarks/speed.py sampling --network cifar10 --device cuda --batch 256

Every line of the table is a process of its own, and the lines take turns, round after round. A figure is the
median of the rounds, each the median of its runs, of ten training steps on a GPU; in brackets are the lowest
and the highest round. The ratio is to the first line. The peak is that of a matrix product in bfloat16,
measured in the same process. A peer that is not installed is left out, and so is a batch that does not fit.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from fnmatch import fnmatch
from typing import Any

import torch
from peers import (
    Setting,
    ddpm_plain_loop,
    ddpm_sampling,
    ddpm_training,
    denoising_diffusion_sampling,
    denoising_diffusion_training,
    diffusers_plain_loop,
    diffusers_sampling,
    diffusers_training,
    unet,
)

from ddpm.runtime.arithmetic import STEP, flops_per_image, matmul_peak
from ddpm.runtime.device import wait
from ddpm.runtime.memory import peak_memory

RUNS = {
    "training": {
        "diffusers": diffusers_training,
        "denoising_diffusion_pytorch": denoising_diffusion_training,
        "ddpm": ddpm_training,
        "diffusers in a plain loop": diffusers_plain_loop,
        "ddpm in a plain loop": ddpm_plain_loop,
    },
    "sampling": {
        "diffusers": diffusers_sampling,
        "denoising_diffusion_pytorch": denoising_diffusion_sampling,
        "ddpm": ddpm_sampling,
    },
}

CPU: list[tuple[str, dict[str, bool]]] = [
    ("diffusers", {}),
    ("diffusers", {"channels_last": True}),
    ("diffusers", {"bf16": True}),
    ("diffusers", {"keep_memory": True}),
    ("diffusers", {"bf16": True, "keep_memory": True}),
    ("denoising_diffusion_pytorch", {}),
    ("ddpm", {"keep_memory": True, "channels_last": True}),
    ("ddpm", {"keep_memory": True, "bf16": True}),
    ("diffusers in a plain loop", {"keep_memory": True}),
    ("diffusers in a plain loop", {"keep_memory": True, "channels_last": True}),
    ("diffusers in a plain loop", {"keep_memory": True, "bf16": True}),
    ("ddpm in a plain loop", {"keep_memory": True, "channels_last": True}),
    ("ddpm in a plain loop", {"keep_memory": True, "bf16": True}),
]
"""What is measured on a CPU. `keep_memory` is this project's own; for the others it is shown, not their
default. The plain loop is the same for both and leaves the networks alone to compare.
"""

CUDA: list[tuple[str, dict[str, bool]]] = [
    ("diffusers", {}),
    ("diffusers", {"bf16": True}),
    ("diffusers", {"bf16": True, "channels_last": True}),
    ("denoising_diffusion_pytorch", {}),
    ("denoising_diffusion_pytorch", {"bf16": True}),
    ("diffusers in a plain loop", {"bf16": True, "channels_last": True}),
    ("ddpm in a plain loop", {"bf16": True, "channels_last": True}),
    ("ddpm", {"bf16": True}),
    ("ddpm", {"bf16": True, "channels_last": True}),
    ("ddpm", {"bf16": True, "compiled": True}),
    ("diffusers", {"bf16": True, "channels_last": True, "compiled": True}),
    ("denoising_diffusion_pytorch", {"bf16": True, "compiled": True}),
    ("ddpm", {"bf16": True, "channels_last": True, "compiled": True}),
    ("ddpm", {"bf16": True, "channels_last": True, "compiled": True, "graphs": True}),
]
"""What is measured on a GPU. `graphs` are CUDA graphs, by `model.cuda_graphs=true` in a training."""

AT_ONCE = 10
"""Training steps that a GPU is given before it is waited for; a run waits for none of them."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=RUNS)
    parser.add_argument("--network", choices=("tiny", "cifar10"), default="tiny")
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring, a line and round")
    parser.add_argument("--steps", type=int, default=1000, help="of sampling")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="lines of the table, such as 'ddpm*'")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(**json.loads(arguments.worker))))
        return
    lines = [
        (name, Setting(arguments.network, batch, arguments.device, steps=arguments.steps, **options))
        for batch in arguments.batch
        for name, options in (CPU if arguments.device == "cpu" else CUDA)
        if name in RUNS[arguments.what]
        and (arguments.only is None or any(fnmatch(said(name, options), only) for only in arguments.only))
    ]
    results: dict[int, list[dict[str, float]]] = {}
    left_out: dict[int, str] = {}
    for _ in range(arguments.rounds):
        for i, (name, setting) in enumerate(lines):
            if i in left_out:
                continue
            job = {
                "what": arguments.what,
                "name": name,
                "setting": asdict(setting),
                "seconds": arguments.seconds,
            }
            command = [sys.executable, __file__, arguments.what, "--worker", json.dumps(job)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                left_out[i] = (done.stderr.strip().splitlines() or ["no word"])[-1]
            else:
                results.setdefault(i, []).append(json.loads(done.stdout.splitlines()[-1]))
    table(lines, results, left_out)


OPTIONS = ("bf16", "channels_last", "compiled", "graphs", "keep_memory")


def said(name: str, options: dict[str, bool]) -> str:
    return ", ".join([name, *(option for option in OPTIONS if options.get(option))])


def measure(what: str, name: str, setting: dict[str, Any], seconds: float) -> dict[str, float]:
    """One line of one round, in this process."""
    chosen = Setting(**setting)
    torch.manual_seed(0)
    device = torch.device(chosen.device)
    peak = matmul_peak(device, "bf16-mixed")
    run = RUNS[what][name](chosen)
    if what == "training" or device.type == "cuda":
        for _ in range(3):  # allocates, chooses kernels, compiles
            run()
    wait(device)
    times: list[float] = []
    at_once = AT_ONCE if what == "training" and device.type == "cuda" else 1
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        for _ in range(at_once):
            run()
        wait(device)
        times.append((time.perf_counter() - start) / at_once)
    # of the same network for all but denoising_diffusion_pytorch, whose own is a little different
    flops = flops_per_image(unet(chosen), chosen.shape) * (STEP if what == "training" else chosen.steps)
    return {
        "images": chosen.batch / statistics.median(times),
        "share": chosen.batch / statistics.median(times) * flops / peak,
        "peak": peak,
        "memory": peak_memory(device),
    }


def table(
    lines: list[tuple[str, Setting]], results: dict[int, list[dict[str, float]]], left_out: dict[int, str]
) -> None:
    """Print what was measured, as Markdown."""
    peaks = [round_["peak"] for rounds in results.values() for round_ in rounds]
    if peaks:
        print(f"Peak of a bf16 matrix product: {statistics.median(peaks) / 1e12:.2f} TFLOP/s\n")
    print("| | batch | images a second | ratio | share of the peak | highest memory |")
    print("|---|---|---|---|---|---|")
    first: dict[int, float] = {}
    for i, (name, setting) in enumerate(lines):
        options = {option: getattr(setting, option) for option in OPTIONS}
        if i not in results:
            print(f"| {said(name, options)} | {setting.batch} | left out: {left_out[i]} | | | |")
            continue
        images, share, memory = (
            [round_[key] for round_ in results[i]] for key in ("images", "share", "memory")
        )
        median = statistics.median(images)
        ratio = median / first.setdefault(setting.batch, median)
        own = name != "denoising_diffusion_pytorch"
        part = f"{100 * statistics.median(share):.1f} %" if own else ""
        spread = f"{min(images):.4g} to {max(images):.4g}"
        print(
            f"| {said(name, options)} | {setting.batch} | {median:.4g} ({spread}) "
            f"| {ratio:.2f} | {part} | {max(memory) / 2**30:.2f} GiB |"
        )


if __name__ == "__main__":
    main()
