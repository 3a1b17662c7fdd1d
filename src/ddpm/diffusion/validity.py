"""Which objects make sense together."""

from collections.abc import Sequence

import torch

from ddpm.diffusion.condition import condition_in_words
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.objectives import Objective
from ddpm.diffusion.process import NoiseSchedule
from ddpm.diffusion.samplers import Sampler
from ddpm.diffusion.timesteps import Timesteps
from ddpm.diffusion.variances import Variance
from ddpm.diffusion.weighting import Weighting


def check_combination(
    *,
    schedule: NoiseSchedule,
    objective: Objective,
    variance: Variance,
    weighting: Weighting,
    timesteps: Timesteps,
    sampler: Sampler,
    guidance: Guidance,
    num_classes: int | None,
    label_drop: float,
    condition_drop: float = 0.0,
) -> None:
    """Refuse a combination without meaning.

    Args:
        schedule, objective, variance, weighting, timesteps, sampler, guidance: the parts.
        num_classes: that the network is conditioned on; None for an unconditional one.
        label_drop: how often training withholds the class, 0 to 1.
        condition_drop: how often it withholds another condition, 0 to 1.

    Raises:
        ValueError: naming the two settings that do not go together, and the nearest that do.
    """
    for key, part, base in (("objective", objective, Objective), ("timesteps", timesteps, Timesteps)):
        if base not in type(part).__mro__:
            raise ValueError(
                f"{key}: {_name(part)} is no {base.__module__}.{base.__name__}; derive it from that class, "
                "which says what others need to know of it"
            )
    # what float32 cannot tell from 0 is 0: the losses divide by it
    ends_at_zero_snr = float(schedule.snr[-1]) < torch.finfo(torch.float32).tiny
    if ends_at_zero_snr and not objective.defined_at_zero_snr:
        raise ValueError(
            f"objective: {_name(objective)} has no meaning where the schedule ends at zero SNR; use "
            "objective=v, objective=x_0 or objective=flow, or a schedule that ends above it, such as "
            "schedule=cosine with schedule.zero_terminal_snr=false"
        )
    if ends_at_zero_snr and not weighting.trains_zero_snr:
        raise ValueError(
            f"weighting: {_name(weighting)} gives no weight to zero SNR, where the schedule ends and "
            "sampling starts; use weighting=simple, or a schedule that ends above it, such as "
            "schedule=cosine with schedule.zero_terminal_snr=false"
        )
    timesteps.check(schedule)
    if variance.outputs and not weighting.trains_variance:
        raise ValueError(
            f"weighting: {_name(weighting)} does not train the variance that {_name(variance)} learns; use "
            "weighting=hybrid or weighting=bound, or variance=fixed_large"
        )
    check_request(
        schedule=schedule,
        sampler=sampler,
        guidance=guidance,
        num_classes=num_classes,
        condition_drop=condition_drop,
    )
    if guidance.needs_unconditional and not (label_drop or condition_drop):
        raise ValueError(
            "guidance: compares with the output without a class, which data.label_drop=0 never trains; use "
            "data.label_drop=0.1, or guidance=none"
        )
    if label_drop and num_classes is None:
        raise ValueError(
            f"data.label_drop={label_drop}: withholds a class from a network that takes none; use "
            "data.label_drop=0, or conditional=true"
        )


def check_request(
    *,
    schedule: NoiseSchedule,
    sampler: Sampler,
    guidance: Guidance,
    start_t: int | None = None,
    labels: Sequence[int] | None = None,
    num_classes: int | None = None,
    condition_drop: float = 0.0,
    image_size: tuple[int, int] | None = None,
    mask_size: tuple[int, int] | None = None,
) -> None:
    """Refuse to sample what there is not.

    Args:
        schedule, guidance: of the reverse process.
        sampler: a `Sampler`; a class that is none has not what others need to know of it.
        start_t: the step that it starts at.
        labels: the classes to draw; -1 is none.
        num_classes: that the network knows; None for an unconditional one.
        condition_drop: how often training withheld another condition, 0 to 1.
        image_size: (height, width) of what the network draws.
        mask_size: (height, width) of the mask.

    Raises:
        ValueError: naming the two settings that do not go together, and the nearest that do.
    """
    if not isinstance(sampler, Sampler):
        raise ValueError(
            f"sampler: {_name(sampler)} is no ddpm.diffusion.samplers.Sampler; derive it from that class and "
            "write its update as the method `reverse`"
        )
    if start_t is not None and not 0 <= start_t < schedule.num_timesteps:
        raise ValueError(
            f"start_t={start_t}: t is 0, which changes almost nothing, to {schedule.num_timesteps - 1} with "
            f"schedule.num_timesteps={schedule.num_timesteps}"
        )
    chain = sampler.chain(schedule, start_t)
    begins = schedule.num_timesteps - 1 if start_t is None else start_t
    if int(chain.timesteps[-1]) != begins and not sampler.spacing.may_end_early:
        raise ValueError(
            f"sampler.timesteps ends at {int(chain.timesteps[-1])}, and noise is x_t at "
            f"t = {schedule.num_timesteps - 1}; end the list there, or start from an image"
        )
    guidance.check(schedule.num_timesteps)
    if guidance.needs_unconditional and num_classes is None and not condition_drop:
        raise ValueError(
            "guidance: there is no class to guide to in a network that takes none; use guidance=none, or "
            "train with conditional=true, or a condition and data.condition_drop=0.1"
        )
    if labels and num_classes is None:
        raise ValueError(
            f"labels={list(labels)}: the network was trained without classes; leave labels out, or train "
            f"with conditional=true"
        )
    for label in labels or ():
        if num_classes is not None and not -1 <= label < num_classes:
            raise ValueError(
                f"labels={list(labels or ())}: there is no class {label}; classes are 0 to "
                f"{num_classes - 1}, and -1 is none"
            )
    if mask_size is not None and mask_size != image_size:
        height, width = image_size or (0, 0)
        raise ValueError(
            f"mask: is {mask_size[0]}x{mask_size[1]} (height x width), and images of this run are "
            f"{height}x{width}; it must be as large as they are"
        )


def check_guide(
    *,
    schedule: NoiseSchedule,
    objective: Objective,
    image_shape: tuple[int, ...],
    classes: Sequence[str] | None,
    latents: tuple[float, float] | None,
    condition: tuple[object, ...] = (0, 0),
    their_schedule: NoiseSchedule,
    their_objective: Objective,
    their_image_shape: tuple[int, ...],
    their_classes: Sequence[str] | None,
    their_latents: tuple[float, float] | None,
    their_condition: tuple[object, ...] = (0, 0),
) -> None:
    """Refuse a guide whose output means something else.

    Args:
        schedule, objective, image_shape, classes: of the network that is guided.
        latents: their scale and shift; None where it draws images.
        condition: channels of the image and numbers of the vector that it takes beside, and what says which.
        their_schedule, their_objective, their_image_shape, their_classes, their_latents, their_condition: of
            the guide.

    Raises:
        ValueError: naming what differs.
    """
    differing = []
    if schedule.num_timesteps != their_schedule.num_timesteps:
        differing.append(f"a schedule of {schedule.num_timesteps} steps, not {their_schedule.num_timesteps}")
    elif not torch.equal(schedule.betas, their_schedule.betas):
        differing.append("a schedule of other betas")
    if type(objective) is not type(their_objective) or vars(objective) != vars(their_objective):
        differing.append(f"the objective {_name(objective)}, not {_name(their_objective)}")
    if tuple(image_shape) != tuple(their_image_shape):
        differing.append(
            f"images of {list(image_shape)} (channels, height, width), not {list(their_image_shape)}"
        )
    if latents != their_latents:
        mine, theirs = (
            "images" if one is None else f"latents of scale {one[0]:g} and shift {one[1]:g}"
            for one in (latents, their_latents)
        )
        differing.append(f"{mine}, not {theirs}")
    if list(classes or ()) != list(their_classes or ()):
        mine, theirs = (
            f"{len(names)} classes" if names else "no classes" for names in (classes, their_classes)
        )
        differing.append(f"{mine}, not {theirs}" if mine != theirs else "classes of other names or order")
    if condition != their_condition:
        differing.append("another condition beside the class")
    if differing:
        raise ValueError(f"the guide is of another kind than the run: {'; '.join(differing)}")


def check_weights(
    *,
    variance: Variance,
    num_classes: int | None,
    condition: tuple[int, int] = (0, 0),
    their_variance: Variance,
    their_num_classes: int | None,
    their_condition: tuple[int, int] = (0, 0),
) -> None:
    """Refuse to start from the weights of a network with other outputs or inputs.

    Args:
        variance, num_classes: of the network that is to be trained.
        condition: channels of the image and numbers of the vector that it takes beside.
        their_variance, their_num_classes, their_condition: of the network that the weights belong to.

    Raises:
        ValueError: naming the setting, and the one that fits.
    """
    if variance.outputs != their_variance.outputs:
        fitting = "hybrid" if their_variance.outputs else "simple"
        raise ValueError(
            f"variance: {_name(variance)} needs {variance.outputs} outputs of the network beside the "
            f"prediction, and the checkpoint's, trained with {_name(their_variance)}, has "
            f"{their_variance.outputs}; use the checkpoint's variance, with weighting={fitting}"
        )
    if num_classes != their_num_classes:
        raise ValueError(
            f"conditional: this network takes {num_classes or 'no'} classes, and the checkpoint's "
            f"{their_num_classes or 'none'}; use conditional={str(their_num_classes is not None).lower()}, "
            f"with data of as many classes"
        )
    if condition != their_condition:
        raise ValueError(
            f"condition: this network takes {condition_in_words(*condition)}, and the checkpoint's "
            f"{condition_in_words(*their_condition)}; use the checkpoint's condition"
        )


def _name(part: object) -> str:
    return type(part).__name__
