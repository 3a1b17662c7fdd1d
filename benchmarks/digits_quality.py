"""How good the samples of runs on digits are: python benchmarks/digits_quality.py RUN_DIR ... [--seeds 0 1 2]

Views of them, each beside the same figure for real digits that were held out of training:

- frechet: Frechet distance between pixels (0 to 16) of samples and of held-out digits (Heusel et al. 2017,
  eq. 6, with pixels for features). It falls with n; 500 training digits are the reference for 500 samples.
- confidence: how sure a support vector machine, trained on real digits, is of its answer; and its answers.
- nearest: distance to the nearest training digit, mean over pictures. Samples far below held-out digits are
  copies.
- own label: share of the samples that the machine takes for the class they were asked to be, where the
  network is told classes.

And, of one run, the round trip: held-out digits encoded by DDIM inversion and decoded again, in 200 steps
each; the mean absolute error of a pixel in [-1, 1]. Several runs may be named, such as the jobs of a sweep.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.svm import SVC

import ddpm
from ddpm.data.augmentation import normalize
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.guidance import NoGuidance
from ddpm.diffusion.samplers import DDIM, DDIMInversion
from ddpm.run import Run
from ddpm.sampling.drawing import labels_of
from ddpm.sampling.figures import to_uint8

Pixels = NDArray[np.float64]
"""[N, 64], each from 0 to 16."""


LEAST_SIGNAL = 4e-5
"""alpha-bar up to which the round trip goes: where the linear schedule ends. Of the cosine's last steps each
magnifies what is wrong with eps a hundred times."""


def pixels(images: NDArray[np.uint8]) -> Pixels:
    """uint8 [N, 1, 8, 8] on the scale of the data set."""
    return images.reshape(len(images), 64) * (16 / 255)


def frechet(a: Pixels, b: Pixels) -> float:
    """Frechet distance between the Gaussians that have the mean and covariance of each set."""
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # the trace of a matrix's root is the sum of the roots of its eigenvalues, real and not negative here
    eigenvalues = np.linalg.eigvals(covariance_a @ covariance_b).real.clip(min=0)
    mixed = np.sqrt(eigenvalues).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * mixed
    return float(np.square(a.mean(0) - b.mean(0)).sum() + spread)


def nearest(a: Pixels, b: Pixels) -> float:
    """Mean distance from each picture of `a` to the nearest one of `b`."""
    return float(np.mean([np.sqrt(np.square(b - row).sum(1).min()) for row in a]))


@torch.inference_mode()
def round_trip(run: Run, images: NDArray[np.uint8], labels: NDArray[np.int64], num_steps: int) -> float:
    """Mean absolute error of uint8 [N, 1, 8, 8] after encoding and decoding."""
    x_0 = normalize(torch.from_numpy(images))
    given = torch.from_numpy(labels) if run.module.num_classes else None
    schedule = run.module.schedule
    start = int((schedule.alphas_cumprod >= LEAST_SIGNAL).nonzero().max())
    denoiser = run.module.denoiser(given, guidance=NoGuidance())
    denoiser.clip = False
    with run.module.evaluating():
        encoded = DDIMInversion(num_steps)(denoiser, schedule, x_0, start=start)
        decoded = DDIM(num_steps)(
            denoiser, schedule, encoded, start=start, noise=lambda t, like: torch.zeros_like(like)
        )
    return float((decoded - x_0).abs().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="+")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-steps", type=int, help="of the run's sampler; all of them by default")
    arguments = parser.parse_args()

    warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")
    digits = Digits().read()
    train, held_out = pixels(digits.train.images), pixels(digits.validation.images)
    machine = SVC(gamma=0.001, C=10, probability=True, random_state=0).fit(train, digits.train.labels)

    def row(name: str, found: Pixels, labels: list[int] | None = None) -> list[float]:
        certainty = machine.predict_proba(found)
        answers = certainty.argmax(1)
        own = np.nan if labels is None else float((answers == labels).mean())
        figures = [frechet(found, held_out), certainty.max(1).mean(), nearest(found, train), own]
        histogram = " ".join(map(str, np.bincount(answers, minlength=10)))
        print("{:12}{:9.2f}{:12.4f}{:9.2f}{:11.3f}   {}".format(name, *figures, histogram))
        return figures

    print(f"{'':12}{'frechet':>9}{'confidence':>12}{'nearest':>9}{'own label':>11}   digits 0 to 9")
    some = np.random.RandomState(0).permutation(len(train))[: arguments.n]
    row("real, train", train[some], digits.train.labels[some])
    row("held out", held_out, digits.validation.labels)
    steps = {} if arguments.num_steps is None else {"num_steps": arguments.num_steps}
    for path in arguments.run:
        run = ddpm.load(path)
        figures = []
        for seed in arguments.seeds:
            images = to_uint8(run.sample(arguments.n, seed=seed, batch_size=arguments.n, **steps)).numpy()
            labels = labels_of(run.module, range(arguments.n))
            figures.append(row(f"{path.name} {seed}", pixels(images), labels))
        mean = np.mean(figures, axis=0)
        print("{:12}{:9.2f}{:12.4f}{:9.2f}{:11.3f}".format(f"{path.name} mean", *mean), flush=True)
    if len(arguments.run) == 1:
        error = round_trip(run, digits.validation.images, digits.validation.labels, 200)
        print(f"round trip  {error:.4f}")


if __name__ == "__main__":
    main()
