"""Which objects make sense together."""

from ddpm.diffusion.objectives import Objective
from ddpm.diffusion.process import NoiseSchedule
from ddpm.diffusion.samplers import Sampler
from ddpm.diffusion.variances import Variance
from ddpm.diffusion.weighting import Weighting


def check_combination(
    *,
    schedule: NoiseSchedule,
    objective: Objective,
    variance: Variance,
    weighting: Weighting,
    sampler: Sampler,
) -> None:
    """Refuse a combination without meaning.

    Raises:
        ValueError: naming the two settings that do not go together, and the nearest that do.
    """
    if not objective.defined_at_zero_snr and float(schedule.alphas_cumprod[-1]) == 0:
        raise ValueError(
            f"objective: {_name(objective)} says nothing about x_0 where the schedule ends at zero SNR; use "
            "objective=v or objective=x_0, or a schedule with schedule.zero_terminal_snr=false"
        )
    if variance.outputs and not weighting.trains_variance:
        raise ValueError(
            f"weighting: {_name(weighting)} does not train the variance that {_name(variance)} learns; use "
            "weighting=hybrid or weighting=bound, or variance=fixed_large"
        )
    sampler.chain(schedule)


def _name(part: object) -> str:
    return type(part).__name__
