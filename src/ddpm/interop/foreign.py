"""A model of another codebase in the words of this one, before its weights are renamed."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ddpm.diffusion import schedules
from ddpm.diffusion.objectives import Epsilon, Objective
from ddpm.diffusion.variances import Variance
from ddpm.diffusion.weighting import Hybrid, Simple

GIVEN = ("in_channels", "out_channels", "num_classes", "vector_size")
"""Arguments of a network that the data say, and no configuration."""

MOST_LEVELS, MOST_BLOCKS, MOST_DEEP = 12, 64, 512
"""Levels of a U-Net, blocks of a level and blocks of a transformer: a network is outlined before its weights
are looked at, and they may be a stranger's.
"""


class Foreign(NamedTuple):
    """What a checkpoint of others is.

    Attributes:
        config: parts of a run's configuration that it decides.
        network: ours, on the meta device.
        image_shape: [C, H, W].
        classes: names of them, or None.
        ours: the state of `network` from theirs, whether averaged or not; raises ValueError where it is
            another network's.
        betas: of a schedule that none of ours is, which the run keeps in a file of its own.
        latents: what is known of them where it draws latents, see `ddpm.data.images.DataSet`.
    """

    config: dict[str, Any]
    network: nn.Module
    image_shape: tuple[int, int, int]
    classes: list[str] | None
    ours: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    betas: list[float] | None = None
    latents: dict[str, Any] | None = None


def target(built: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """The configuration that builds this."""
    return {"_target_": f"{built.__module__}.{built.__qualname__}", **arguments}


def network_of(kind: type[nn.Module], **settings: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A network on the meta device, and the configuration that says all its arguments but those of the data.

    Raises:
        ValueError: where there is no such network.
    """
    with torch.device("meta"):
        network = kind(**settings)
    defaults = {name: one.default for name, one in inspect.signature(kind).parameters.items()}
    values = {name: settings.get(name, default) for name, default in defaults.items() if name not in GIVEN}
    plain = {
        name: list(value) if isinstance(value, tuple | list) else value for name, value in values.items()
    }
    return network, target(kind, **plain)


def process(
    schedule: Mapping[str, Any] | None, variance: type[Variance], objective: type[Objective] = Epsilon
) -> dict[str, Any]:
    """The parts of a configuration that say what is diffused, and what is predicted."""
    return {
        "schedule": schedule if schedule is None else dict(schedule),
        "objective": target(objective),
        "variance": target(variance),
        "weighting": target(Hybrid if variance.outputs else Simple),
    }


def linear(steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> dict[str, Any]:
    """Linear betas between ends that are stated as they are, whatever the number of steps."""
    ends = {"beta_start": beta_start * steps / 1000, "beta_end": beta_end * steps / 1000}
    return target(schedules.linear, num_timesteps=steps, **ends)


def numbered(num_classes: int | None) -> list[str] | None:
    """Names of classes that nobody has named."""
    return None if num_classes is None else [str(number) for number in range(num_classes)]


def shape(weights: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    """Of a weight that a network of this kind must have.

    Raises:
        ValueError: where it is missing, or has another number of dimensions.
    """
    if name not in weights:
        raise ValueError(f"{name} is missing")
    if weights[name].ndim != dims or not weights[name].numel():
        raise ValueError(f"{name} is {list(weights[name].shape)}, and should have {dims} dimensions")
    return tuple(weights[name].shape)


def check_count(what: str, number: int, most: int) -> None:
    """Refuse more parts than a network has, and none.

    Raises:
        ValueError: saying so.
    """
    if not 0 < number <= most:
        raise ValueError(f"it has {number} {what}, and from 1 to {most} can be")


def multiples(widths: Sequence[int], channels: int) -> list[float]:
    """Of features by level, by the first convolution's; whole ones are whole numbers."""
    return [width / channels if width % channels else width // channels for width in widths]


def cosines_first(weight: Tensor) -> Tensor:
    """The columns of a time embedding's first layer in our order, where its sinusoids begin with cosines."""
    cosines, sines = weight.chunk(2, dim=1)
    return torch.cat([sines, cosines], dim=1)
