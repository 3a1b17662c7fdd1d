"""Averages of any length, made after training of the snapshots that it has kept (Karras et al. 2024)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ddpm.errors import UsageError
from ddpm.training import snapshots
from ddpm.training.power_profiles import Profile, combination, exponent
from ddpm.training.snapshots import Snapshot

MOST_ERROR = 0.1
"""Of a profile that is made of others, relative: beyond it the average would not be of the length that it is
called by."""

NO_AVERAGE = "ddpm.training.ema.NoAverage"


def with_average(
    checkpoint: Mapping[str, Any], run: Path, sigma_rel: float, step: int | None = None
) -> dict[str, Any]:
    """A checkpoint whose network is the average of this length, in place of the one that the run used.

    Its `average` says what it is. It has no state of an optimizer: it is for sampling, and for a new run to
    start from.

    Args:
        checkpoint: of the run; its own averages count as a snapshot of its step.
        run: the directory with the snapshots.
        sigma_rel: the length.
        step: at which the average is taken, that of the checkpoint by default.

    Raises:
        UsageError: where there are no snapshots, none of that step, or they cannot express that length.
    """
    try:
        exponent(sigma_rel)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if "average" in checkpoint:
        raise UsageError(
            f"sigma_rel={sigma_rel}: this checkpoint is the average of "
            f"sigma_rel={checkpoint['average'].get('sigma_rel')} alone; give the run directory"
        )
    own_step = checkpoint["global_step"]
    kept: dict[int, Path | Snapshot] = dict(snapshots.kept(run))
    if (own := _own(checkpoint)) is not None:
        kept[own_step] = own
    if not kept:
        raise UsageError(
            f"sigma_rel={sigma_rel}: {run} has no snapshots of averages to make one of; they are kept in "
            f"{snapshots.DIRECTORY}/ by a training with ema=power"
        )
    step = own_step if step is None else step
    if step not in kept:
        raise UsageError(
            f"step={step}: there are no averages of that step in {run}, but of {_some(list(kept))}"
        )
    read = {
        at: one if isinstance(one, Snapshot) else snapshots.read(one)
        for at, one in sorted(kept.items())
        if at <= step
    }
    parameters, left = _combined(read, step, sigma_rel)
    states = {
        name: parameters.get(name.removeprefix("network."), value)
        for name, value in checkpoint["state_dict"].items()
    }
    kept_keys = ("config", "data", "wandb_id", "timesteps", "pytorch-lightning_version")
    return {
        **{key: checkpoint[key] for key in kept_keys if key in checkpoint},
        "state_dict": states,
        "config": {**checkpoint["config"], "ema": {"_target_": NO_AVERAGE, "_partial_": True}},
        "global_step": step,
        "average": {"sigma_rel": float(sigma_rel), "snapshots": len(read), "profile_error": left},
    }


def _own(checkpoint: Mapping[str, Any]) -> Snapshot | None:
    """The averages that a checkpoint holds of a training with several."""
    average = checkpoint.get("ema") or {}
    others = average.get("others")
    if not isinstance(others, Mapping) or not others:
        return None
    return snapshots.snapshot_of(
        {
            "num_updates": average["num_updates"],
            "averages": {**others, repr(average.get("sigma_rel")): average["parameters"]},
        }
    )


def _combined(read: Mapping[int, Snapshot], step: int, sigma_rel: float) -> tuple[dict[str, Tensor], float]:
    """The average's parameters by name, and the error of its profile.

    Raises:
        UsageError: where the error is too large.
    """
    given = [
        (one.num_updates, length, parameters)
        for one in read.values()
        for length, parameters in one.averages.items()
    ]
    found = combination(
        [Profile(length, t) for t, length, _ in given], Profile(sigma_rel, read[step].num_updates)
    )
    if found.error > MOST_ERROR:
        raise UsageError(
            f"sigma_rel={sigma_rel}: {len(read)} snapshots up to step {step} express its profile with an "
            f"error of {found.error:.0%}, and {MOST_ERROR:.0%} is allowed; {_expressible(given, read[step])}"
        )
    result: dict[str, Tensor] = {}
    for weight, (_, _, parameters) in zip(found.weights.tolist(), given, strict=True):
        for name, tensor in parameters.items():
            part = tensor.double() * weight
            result[name] = result[name].add_(part) if name in result else part
    dtypes = {name: tensor.dtype for name, tensor in given[-1][2].items()}
    return {name: tensor.to(dtypes[name]) for name, tensor in result.items()}, found.error


def _expressible(given: list[tuple[int, float, Mapping[str, Tensor]]], last: Snapshot) -> str:
    """Which lengths the snapshots can express."""
    profiles = [Profile(length, t) for t, length, _ in given]
    grid = [round(0.005 * i, 3) for i in range(1, 58)]
    fitting = [
        length
        for length in grid
        if combination(profiles, Profile(length, last.num_updates)).error <= MOST_ERROR
    ]
    more = "train with a smaller ema.snapshot_every_n_steps for more"
    return f"there are {fitting[0]} to {fitting[-1]}; {more}" if fitting else more


def _some(steps: list[int]) -> str:
    shown = [f"{step}" for step in sorted(steps)]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "...", *shown[-3:]])
