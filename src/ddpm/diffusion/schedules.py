"""Noise schedules: how much noise each step of the forward process adds.

Each takes `shift`, which divides its SNR by shift^2 at every step: simple diffusion's way to larger images,
log SNR + 2 log(reference / resolution) (Hoogeboom et al. 2023, eq. 4), with shift = resolution / reference.
Each takes `zero_terminal_snr`, which then changes its betas so that nothing of x_0 is left after the last
step.
"""

import math
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule, betas_between

MOST_STEPS = 1_000_000
"""Of a chain, each of which takes about 150 bytes."""

MOST_BYTES = 32 * MOST_STEPS
"""Of a file that lists betas."""


def linear(
    num_timesteps: int = 1000,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    shift: float = 1.0,
    zero_terminal_snr: bool = False,
) -> NoiseSchedule:
    """Betas that rise linearly (Ho et al. 2020, section 4).

    `beta_start` and `beta_end` are stated for 1000 steps and scaled by 1000 / T, which keeps the sum of the
    betas, so that a chain of any length ends near pure noise.

    Raises:
        ValueError: where the scaled betas reach 1, as they do at T = 20 with the default `beta_end`.
    """
    scale = _scale(num_timesteps, beta_start=beta_start, beta_end=beta_end)
    betas = torch.linspace(beta_start * scale, beta_end * scale, num_timesteps, dtype=torch.float64)
    return _chain(betas, shift, zero_terminal_snr)


def quadratic(
    num_timesteps: int = 1000,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    shift: float = 1.0,
    zero_terminal_snr: bool = False,
) -> NoiseSchedule:
    """Betas whose square roots rise linearly (`quad` in the code of Ho et al. 2020).

    `beta_start` and `beta_end` are stated for 1000 steps and scaled by 1000 / T.

    Raises:
        ValueError: where the scaled betas reach 1.
    """
    scale = _scale(num_timesteps, beta_start=beta_start, beta_end=beta_end)
    roots = torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64)
    return _chain(scale * roots**2, shift, zero_terminal_snr)


def scaled_linear(
    num_timesteps: int = 1000,
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    shift: float = 1.0,
    zero_terminal_snr: bool = False,
) -> NoiseSchedule:
    """The quadratic schedule between the ends of latent diffusion, where it has this name (Rombach et al.
    2022).

    Raises:
        ValueError: where the betas, scaled by 1000 / T, reach 1.
    """
    return quadratic(num_timesteps, beta_start, beta_end, shift, zero_terminal_snr)


def constant(
    num_timesteps: int = 1000, beta: float = 0.01, shift: float = 1.0, zero_terminal_snr: bool = False
) -> NoiseSchedule:
    """The same beta at every step (`const` in the code of Ho et al. 2020).

    `beta` is stated for 1000 steps and scaled by 1000 / T; by default it is about the mean of the linear
    schedule's.

    Raises:
        ValueError: where the scaled beta reaches 1.
    """
    scale = _scale(num_timesteps, beta=beta)
    return _chain(torch.full((num_timesteps,), beta * scale, dtype=torch.float64), shift, zero_terminal_snr)


def jsd(num_timesteps: int = 1000, shift: float = 1.0, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """beta = 1 / (T - t), with which alpha-bar falls linearly to 0 (Sohl-Dickstein et al. 2015; `jsd` in the
    code of Ho et al. 2020).

    Args:
        num_timesteps: T.
        shift: see the module.
        zero_terminal_snr: it ends at zero SNR by itself, so that this changes nothing.

    Raises:
        ValueError: where there is no step.
    """
    _check_length(num_timesteps)
    return _chain(1 / torch.arange(num_timesteps, 0, -1, dtype=torch.float64), shift, zero_terminal_snr)


def cosine(
    num_timesteps: int = 1000,
    offset: float = 0.008,
    max_beta: float = 0.999,
    shift: float = 1.0,
    zero_terminal_snr: bool = False,
) -> NoiseSchedule:
    """alpha-bar falls like a squared cosine (Nichol and Dhariwal 2021, eq. 17).

    Args:
        num_timesteps: T.
        offset: keeps the first betas from vanishing; `s` in the paper.
        max_beta: betas are clipped here, which happens in the last steps.
        shift, zero_terminal_snr: see the module.
    """
    u = _times(num_timesteps)
    alphas_cumprod = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return _chain(betas_between(alphas_cumprod).clamp(max=max_beta), shift, zero_terminal_snr)


def sigmoid(
    num_timesteps: int = 1000,
    start: float = -3.0,
    end: float = 3.0,
    temperature: float = 1.0,
    max_beta: float = 0.999,
    shift: float = 1.0,
    zero_terminal_snr: bool = False,
) -> NoiseSchedule:
    """alpha-bar falls like a sigmoid between `start` and `end` (Jabri et al. 2022; Chen 2023, algorithm 1).

    Args:
        num_timesteps: T.
        start, end: the part of the sigmoid that is used, stretched to reach from 1 to 0.
        temperature: larger is closer to a straight line; `tau` in the paper.
        max_beta: betas are clipped here, which happens in the last step.
        shift, zero_terminal_snr: see the module.

    Raises:
        ValueError: where the sigmoid does not rise.
    """
    if end <= start or temperature <= 0:
        raise ValueError(
            f"schedule.start={start}, schedule.end={end}, schedule.temperature={temperature}: the end must "
            "be above the start, and the temperature above 0"
        )
    values = torch.sigmoid((start + (end - start) * _times(num_timesteps)) / temperature)
    alphas_cumprod = (values[-1] - values) / (values[-1] - values[0])
    return _chain(betas_between(alphas_cumprod).clamp(max=max_beta), shift, zero_terminal_snr)


def laplace(
    num_timesteps: int = 1000,
    location: float = 0.0,
    scale: float = 0.5,
    max_beta: float = 0.999,
    shift: float = 1.0,
    zero_terminal_snr: bool = False,
) -> NoiseSchedule:
    """log-SNR is distributed over t as in Laplace's distribution, densest around `location` (Hang et al.
    2024, table 1).

    Args:
        num_timesteps: T.
        location: log-SNR halfway through the chain; `mu` in the paper.
        scale: above 0, larger spreads wider; `b` in the paper.
        max_beta: betas are clipped here, which happens in the last step.
        shift, zero_terminal_snr: see the module.

    Raises:
        ValueError: where the scale is not above 0.
    """
    if scale <= 0:
        raise ValueError(f"schedule.scale={scale} must be above 0")
    u = _times(num_timesteps)
    log_snr = location - scale * torch.sign(0.5 - u) * torch.log1p(-2 * (0.5 - u).abs())
    return _chain(betas_between(torch.sigmoid(log_snr)).clamp(max=max_beta), shift, zero_terminal_snr)


def flow(num_timesteps: int = 1000, shift: float = 1.0, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """The straight path x = (1 - u) x_0 + u eps at u = 1 / T, 2 / T, ... 1 (Lipman et al. 2023; Liu et al.
    2023), as the chain of the same SNR, ((1 - u) / u)^2: x_t is x / sqrt((1 - u)^2 + u^2).

    The last step is u = 1: nothing of x_0 is left, and sampling starts at the noise of the path. u = 0 is the
    image before the first step.

    Args:
        num_timesteps: T.
        shift: the steps are at shift u / (1 + (shift - 1) u) instead, above 1 nearer to noise (Esser et al.
            2024, eq. 23), which is the shift of all schedules.
        zero_terminal_snr: it ends at zero SNR by itself, so that this changes nothing.
    """
    u = _times(num_timesteps)
    return _chain(betas_between((1 - u) ** 2 / ((1 - u) ** 2 + u**2)), shift, zero_terminal_snr)


def edm(
    num_timesteps: int = 1000,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    shift: float = 1.0,
    zero_terminal_snr: bool = False,
) -> NoiseSchedule:
    """sigma = 1 / sqrt(SNR) is `sigma_min` at the first step and `sigma_max` at the last, and sigma^(1 / rho)
    rises linearly (Karras et al. 2022, eq. 5). There x = x_0 + sigma eps; x_t is x / sqrt(1 + sigma^2).

    Samplers that visit every k-th step visit sigmas of the same form.

    Args:
        num_timesteps: T; of a single step, `sigma_max`.
        sigma_min, sigma_max: 0 < sigma_min < sigma_max; for images in [-1, 1].
        rho: above 0; larger puts more of the steps near the image.
        shift, zero_terminal_snr: see the module.

    Raises:
        ValueError: where a setting is out of range.
    """
    if not 0 < sigma_min < sigma_max < math.inf or not rho > 0:
        raise ValueError(
            f"schedule.sigma_min={sigma_min}, schedule.sigma_max={sigma_max}, schedule.rho={rho}: all must "
            "be above 0, and sigma_max above sigma_min"
        )
    _check_length(num_timesteps)
    share = torch.linspace(1, 0, num_timesteps, dtype=torch.float64)  # of sigma_max first: one step has that
    roots = sigma_max ** (1 / rho) + (1 - share) * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))
    clean = torch.ones(1, dtype=torch.float64)
    alphas_cumprod = torch.cat([clean, 1 / (1 + roots.flip(0) ** (2 * rho))])
    return _chain(betas_between(alphas_cumprod), shift, zero_terminal_snr)


def from_file(path: str, shift: float = 1.0, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """Betas that a file lists, from the first step to the last.

    Args:
        path: a `.npy` file of one row of numbers; or a text or csv file of numbers apart from one another by
            white space, commas or semicolons, where `#` begins a comment.
        shift, zero_terminal_snr: see the module.

    Raises:
        ValueError: where the file cannot be read, or lists no betas; names the file.
    """
    try:
        file = Path(path)
        if file.exists() and not file.is_file():
            raise ValueError("is no file, but a directory, a pipe or a device")
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES:,} bytes, which no chain needs")
        if file.suffix == ".npy":
            listed = np.load(file, mmap_mode="r", allow_pickle=False)  # refuses shapes beyond the file
            if not isinstance(listed, np.ndarray):
                raise ValueError("holds several arrays")
            betas = torch.from_numpy(listed.astype(np.float64))
        else:
            text = re.sub(r"#.*", "", file.read_text(encoding="utf-8-sig"))
            words = [word for word in re.split(r"[\s,;]+", text) if word]
            betas = torch.tensor([_number(i, word) for i, word in enumerate(words)], dtype=torch.float64)
        return _chain(betas, shift, zero_terminal_snr)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"schedule.path={path}: {reason}") from error


def _number(index: int, word: str) -> float:
    """A word of a file as a number. The message does not repeat the word: a run names the file, and may be a
    stranger's.
    """
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"word {index + 1} is no number") from None


def _chain(betas: Tensor, shift: float, zero_terminal_snr: bool) -> NoiseSchedule:
    if not shift > 0:
        raise ValueError(f"schedule.shift={shift} must be above 0; 1 shifts nothing")
    schedule = NoiseSchedule(betas)
    if shift != 1:
        alphas_cumprod = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alphas_cumprod])
        shifted = alphas_cumprod / (alphas_cumprod + shift**2 * (1 - alphas_cumprod))
        schedule = NoiseSchedule(betas_between(shifted))
    return _with_zero_terminal_snr(schedule) if zero_terminal_snr else schedule


def _with_zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """The chain with sqrt(alpha-bar) shifted to end at 0 and stretched to begin where it did (Lin et al.
    2024, algorithm 1).
    """
    if schedule.alphas_cumprod[-1] == 0:
        return schedule
    if schedule.num_timesteps == 1:
        raise ValueError("schedule.zero_terminal_snr: needs 2 steps or more, for it keeps the first as it is")
    roots = schedule.alphas_cumprod.sqrt()
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    alphas_cumprod = torch.cat([torch.ones(1, dtype=torch.float64), roots**2])
    return NoiseSchedule(betas_between(alphas_cumprod).clamp(max=1))


def _times(num_timesteps: int) -> Tensor:
    """How far the chain has come before its first step and after each: [T + 1], from 0 to 1."""
    _check_length(num_timesteps)
    return torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)


def _check_length(num_timesteps: int) -> None:
    if num_timesteps < 1:
        raise ValueError(f"schedule.num_timesteps={num_timesteps} must be at least 1")
    if num_timesteps > MOST_STEPS:
        raise ValueError(f"schedule.num_timesteps={num_timesteps} must be at most {MOST_STEPS:,}")


def _scale(num_timesteps: int, **betas: float) -> float:
    """1000 / T, by which betas that are stated for 1000 steps are multiplied."""
    _check_length(num_timesteps)
    name, beta = max(betas.items(), key=lambda item: item[1])
    scale = 1000 / num_timesteps
    if beta * scale >= 1:
        fewest = math.floor(1000 * beta) + 1
        raise ValueError(
            f"schedule.num_timesteps={num_timesteps}: the last beta would be {beta * scale:.3g}, and it must "
            f"stay below 1; use {fewest} steps or more, or a smaller {name}"
        )
    return scale
