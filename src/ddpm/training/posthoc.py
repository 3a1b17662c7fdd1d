"""Averages of any length, made after training of the snapshots that it has kept (Karras et al. 2024)."""

from collections.abc import Mapping, Sequence
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
    used = {at: one for at, one in sorted(kept.items()) if at <= step}
    parameters, left = _combined(used, step, sigma_rel)
    states = {
        name: parameters.get(name.removeprefix("network."), value).to(value.dtype)
        for name, value in checkpoint["state_dict"].items()
    }
    kept_keys = ("config", "data", "wandb_id", "timesteps", "pytorch-lightning_version")
    return {
        **{key: checkpoint[key] for key in kept_keys if key in checkpoint},
        "state_dict": states,
        "config": {**checkpoint["config"], "ema": {"_target_": NO_AVERAGE, "_partial_": True}},
        "global_step": step,
        "average": {"sigma_rel": float(sigma_rel), "snapshots": len(used), "profile_error": left},
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


def _combined(
    used: Mapping[int, Path | Snapshot], step: int, sigma_rel: float
) -> tuple[dict[str, Tensor], float]:
    """The average's parameters by name, float64, and the error of its profile. One snapshot at a time is in
    memory.

    Raises:
        UsageError: where the error is too large.
    """
    known = {at: one if isinstance(one, Snapshot) else snapshots.described(one) for at, one in used.items()}
    given = [(at, length) for at, one in known.items() for length in one.averages]
    profiles = [Profile(length, known[at].num_updates) for at, length in given]
    wanted = Profile(sigma_rel, known[step].num_updates)
    found = combination(profiles, wanted)
    if found.error > MOST_ERROR:
        raise UsageError(
            f"sigma_rel={sigma_rel}: {len(used)} snapshots up to step {step} express its profile with an "
            f"error of {found.error:.0%}, and {MOST_ERROR:.0%} is allowed; {_expressible(profiles, wanted.t)}"
        )
    weights = dict(zip(given, found.weights.tolist(), strict=True))
    sums: dict[str, Tensor] = {}
    for at, one in used.items():
        _add(one, {length: weights[at, length] for length in known[at].averages}, sums)
    return sums, found.error


def _add(one: Path | Snapshot, weights: Mapping[float, float], sums: dict[str, Tensor]) -> None:
    """Add the averages of a snapshot, each by its weight, in float64."""
    averages = (one if isinstance(one, Snapshot) else snapshots.read(one)).averages
    for length, weight in weights.items():
        for name, tensor in averages[length].items():
            part = tensor.double() * weight
            sums[name] = sums[name].add_(part) if name in sums else part


def _expressible(profiles: Sequence[Profile], t: float) -> str:
    """Which lengths can be expressed."""
    grid = [round(0.005 * i, 3) for i in range(1, 58)]
    fitting = [length for length in grid if combination(profiles, Profile(length, t)).error <= MOST_ERROR]
    more = "train with a smaller ema.snapshot_every_n_steps for more"
    return f"there are {fitting[0]} to {fitting[-1]}; {more}" if fitting else more


def _some(steps: list[int]) -> str:
    shown = [f"{step}" for step in sorted(steps)]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "...", *shown[-3:]])
