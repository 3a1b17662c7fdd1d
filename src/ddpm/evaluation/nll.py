"""The variational bound on the negative log-likelihood of held-out images, and where its bits go."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.data.module import ImageDataModule
from ddpm.diffusion.guidance import NoGuidance
from ddpm.diffusion.likelihood import Bound, bound, rate_distortion, some_steps
from ddpm.evaluation.kept import Evidence
from ddpm.random import Purpose, Stream
from ddpm.runtime.pieces import Pieces
from ddpm.runtime.sharing import Sharing
from ddpm.runtime.writing import whole
from ddpm.sampling.conditions import HeldOut
from ddpm.training.module import DDPM

BITS = "bits_per_dim"
"""The name of the value."""

WORK = "nll"
"""Of `Sharing`, that the bounds of images are."""


MOST_MARKS = 50
"""In the picture of an estimate."""


class NLL:
    """Bits per dimension (Ho et al. 2020, eq. 5), of images that were held out.

    Args:
        num_steps: steps of L_t drawn for each image, without replacement; None computes every one.
        n: images; None takes all that were held out.

    Raises:
        ValueError: where a setting is below 1.
    """

    def __init__(self, num_steps: int | None = None, n: int | None = None):
        for name, value in (("num_steps", num_steps), ("n", n)):
            if value is not None and value < 1:
                raise ValueError(f"metrics.nll.{name}={value} must be null or at least 1")
        self.num_steps = num_steps
        self.n = n

    def check(self, module: DDPM, data: ImageDataModule) -> None:
        if module.draws_latents:
            raise ValueError(
                "metrics=nll: is of the decoder of 8-bit images, which latents do not have; what training "
                "says of held-out latents is val/loss"
            )
        held_out, most = len(data.data_set.validation), module.schedule.num_timesteps - 1
        if held_out < (self.n or 1):
            raise ValueError(f"metrics.nll.n={self.n}: {held_out} images were held out")
        if (self.num_steps or 0) > most:
            raise ValueError(
                f"metrics.nll.num_steps={self.num_steps}: the schedule has {most} steps beside t = 0"
            )

    def __call__(
        self,
        module: DDPM,
        data: ImageDataModule,
        *,
        seed: int,
        batch_size: int,
        directory: Path,
        sharing: Sharing,
    ) -> dict[str, Any]:
        n, nfe = self.images(data), self.nfe(module)

        def compute(indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
            found = self.bound(module, data, indices, seed, on_step)
            # images are the last axis of a bound, and the first of a piece
            return {name: values.movedim(-1, 0).cpu().numpy() for name, values in found._asdict().items()}

        pieces = sharing.through(WORK, n, batch_size, compute, title="likelihood", steps=nfe)
        arrays = pieces.together()
        found = Bound(
            **{name: torch.from_numpy(values).movedim(0, -1).double() for name, values in arrays.items()}
        )
        if sharing.is_leader:
            is_whole = nfe == module.schedule.num_timesteps
            (draw if is_whole else draw_estimate)(found, directory / "nll.png")
        return {
            BITS: found.total.mean().item(),
            "standard_error": _of_mean(found.total),
            "prior": found.prior.mean().item(),
            "middle": (found.total - found.prior - found.decoder).mean().item(),
            "decoder": found.decoder.mean().item(),
            "images": n,
            "steps_per_image": nfe - 1,
            "standard_error_of_steps": found.standard_error.square().sum().sqrt().item() / n,
            "by_t": _by_t(found, module.schedule.num_timesteps),
        }

    def evidence(self, data: ImageDataModule, sharing: Sharing) -> Evidence:
        """Bits per dimension of each image, of what a measurement has kept by this sharing, which has not
        ended.
        """
        pieces = Pieces(sharing.directory / WORK, self.images(data))
        bits = np.concatenate([part["total"] for part in pieces]).astype(np.float64)
        return Evidence("mean", float(bits.mean()), (bits,))

    def images(self, data: ImageDataModule) -> int:
        """How many are measured."""
        return self.n or len(data.data_set.validation)

    def nfe(self, module: DDPM) -> int:
        """Evaluations of the network for an image."""
        return 1 + (self.num_steps or module.schedule.num_timesteps - 1)

    def bound(
        self, module: DDPM, data: ImageDataModule, indices: range, seed: int, on_step: Callable[[], None]
    ) -> Bound:
        """The bound of some images, with the weights that the module evaluates with.

        Args:
            module: the model.
            data: whose held-out images are measured, each under its own class and condition.
            indices: of those that are measured at once.
            seed: of noise and steps.
            on_step: called before each use of the network.
        """
        batch = data.held_out(indices)
        x_0 = batch.x_0.to(module.device)
        labels = None if batch.labels is None else batch.labels.to(module.device)
        condition = None
        if module.is_conditioned:
            condition = (module.conditions or HeldOut(data))(indices).to(module.device)
        stream = Stream(seed, Purpose.LIKELIHOOD, module.device)

        def noise(index: int, like: Tensor) -> Tensor:
            on_step()
            return stream.normal(index, indices, tuple(like.shape[1:]))

        steps, most = None, module.schedule.num_timesteps - 1
        if self.num_steps is not None and self.num_steps < most:
            u = Stream(seed, Purpose.LIKELIHOOD_STEP, module.device).uniform(0, indices, (most,))
            steps = some_steps(u.T, self.num_steps)
        # guidance serves the look of samples; the likelihood is that of the network's own output
        denoiser = module.denoiser(
            labels if module.num_classes else None, condition=condition, guidance=NoGuidance()
        )
        return bound(denoiser, module.schedule, x_0, noise=noise, steps=steps)


def _of_mean(values: Tensor) -> float | None:
    """Standard error of the mean of what was drawn: images, noise and steps alike. None for one image."""
    return None if len(values) < 2 else (values.std() / math.sqrt(len(values))).item()


def _by_t(found: Bound, num_timesteps: int) -> dict[str, list[float | None]]:
    """Mean over the images for which t was computed; None for a t that was computed for none.

    `bits` is the term of the bound at each t, `rmse` the error of the x_0 predicted there, on [0, 255].
    """
    t = torch.cat([torch.zeros_like(found.steps[:1]), found.steps]).long().flatten()
    count = torch.bincount(t, minlength=num_timesteps)

    def mean(values: Tensor) -> Tensor:
        total = torch.zeros(num_timesteps, dtype=values.dtype).index_add(0, t, values.flatten())
        return total / count

    bits = mean(torch.cat([found.decoder[None], found.terms]))
    rmse = 127.5 * mean(found.squared_error).sqrt()
    return {"bits": _or_none(bits), "rmse": _or_none(rmse)}


def _or_none(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def draw(found: Bound, path: Path) -> None:
    """Where the bits go: L_t by t, and rate and distortion (Ho et al. 2020, figure 5)."""
    from matplotlib.figure import Figure  # a second that nothing else needs

    rate, distortion = (values.tolist() for values in rate_distortion(found))
    figure = Figure(figsize=(12, 4), layout="constrained")
    terms, by_t, curve = figure.subplots(1, 3)
    steps = range(1, len(rate))
    terms.plot(steps, found.terms.mean(1).tolist())
    terms.set(xlabel="t", ylabel="bits / dimension", yscale="log", title="Bits of the step from t to t - 1")
    by_t.plot(rate, label="rate, bits / dimension")
    by_t.set(xlabel="t", title="What has been sent when x_t is known")
    error = by_t.twinx()
    error.plot(distortion, color="C1", label="distortion, RMSE of 255")
    by_t.set_ylabel("rate, bits / dimension", color="C0")
    error.set_ylabel("distortion, RMSE of 255", color="C1")
    curve.plot(rate, distortion)
    curve.set(xlabel="rate, bits / dimension", ylabel="distortion, RMSE of 255", title="Distortion by rate")
    figure.suptitle(_title(found))
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_estimate(found: Bound, path: Path) -> None:
    """L_t by t from the steps that were drawn, each mark the mean over images and neighbouring t, with an
    error bar of one standard error. Rate and distortion take the terms of all steps.
    """
    from matplotlib.figure import Figure  # a second that nothing else needs

    t, means, errors = by_range(found.steps, found.terms)
    figure = Figure(figsize=(8, 4), layout="constrained")
    terms = figure.subplots()
    terms.errorbar(t, means, yerr=errors, fmt=".", capsize=2, elinewidth=1)
    terms.set(xlabel="t", ylabel="bits / dimension", title="Bits of the step from t to t - 1")
    terms.set_yscale("log", nonpositive="clip")
    error = _of_mean(found.total)
    figure.suptitle(_title(found) + ("" if error is None else f", standard error {error:.3f}"))
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=110)


def by_range(steps: Tensor, terms: Tensor) -> tuple[list[float], list[float], list[float]]:
    """Means of the terms at neighbouring t, in at most `MOST_MARKS` equal parts of what was drawn.

    Args:
        steps: int64 [K, B].
        terms: [K, B], at these.

    Returns:
        Mean t, mean, and standard error of the mean for each part, NaN for a part of one term.
    """
    order = steps.flatten().argsort(stable=True)
    t, values = steps.flatten()[order].double(), terms.flatten()[order].double()
    parts = list(zip(t.tensor_split(MOST_MARKS), values.tensor_split(MOST_MARKS), strict=True))
    parts = [(at, of) for at, of in parts if len(of)]
    return (
        [at.mean().item() for at, _ in parts],
        [of.mean().item() for _, of in parts],
        [error if (error := _of_mean(of)) is not None else math.nan for _, of in parts],
    )


def _title(found: Bound) -> str:
    total, prior, decoder = (part.mean().item() for part in (found.total, found.prior, found.decoder))
    return (
        f"{total:.3f} bits / dimension = {prior:.2g} prior + {total - prior - decoder:.3f} steps + "
        f"{decoder:.3f} decoder\nmean of {len(found.total):,} images"
    )
