"""The loss of training: how the network's error at each t counts."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ddpm.diffusion.likelihood import bound_term
from ddpm.diffusion.parametrization import Parametrization
from ddpm.diffusion.process import NoiseSchedule


class Noised(NamedTuple):
    """Images x_0 [B, C, H, W] with the noise that leads to x_t = q_sample(x_0, t, eps), `t` int64 [B]."""

    x_0: Tensor
    t: Tensor
    eps: Tensor
    x_t: Tensor


class Weighting(Protocol):
    """A loss. `trains_variance` says whether it teaches the network a variance of the reverse step, and
    `trains_zero_snr` whether it teaches it anything where nothing of x_0 is left in x_t.

    One with parameters of its own is an `nn.Module`: the optimizer of the network trains them with it,
    checkpoints hold them, and no average follows them, as sampling does without.
    """

    trains_variance: bool
    trains_zero_snr: bool

    def losses(
        self, parametrization: Parametrization, schedule: NoiseSchedule, noised: Noised, output: Tensor
    ) -> Tensor:
        """The loss of each image, [B].

        Args:
            parametrization: what the output means.
            schedule: the noising steps.
            noised: what the network was given, and should have found.
            output: of the network, [B, C * (1 + variance.outputs), H, W].
        """
        ...


def squared_error(
    parametrization: Parametrization, schedule: NoiseSchedule, noised: Noised, output: Tensor
) -> Tensor:
    """Of the network's prediction, mean over pixels: [B]."""
    target = parametrization.objective.target(schedule, noised.x_0, noised.t, noised.eps)
    return (output[:, : target.shape[1]] - target).square().flatten(1).mean(1)


class Simple:
    """The squared error of whatever the network predicts, the same at every t: L_simple (Ho et al. 2020,
    eq. 14).
    """

    trains_variance = False
    trains_zero_snr = True

    def losses(
        self, parametrization: Parametrization, schedule: NoiseSchedule, noised: Noised, output: Tensor
    ) -> Tensor:
        return squared_error(parametrization, schedule, noised, output)


class OnX0(ABC):
    """A weight on the squared error of x_0, whatever the network predicts. Subclasses state the weight, which
    is 0 where the SNR is.
    """

    trains_variance = False
    trains_zero_snr = False

    @abstractmethod
    def weight(self, snr: Tensor) -> Tensor:
        """Of the squared error of x_0 at this signal-to-noise ratio. Both [B]."""

    def losses(
        self, parametrization: Parametrization, schedule: NoiseSchedule, noised: Noised, output: Tensor
    ) -> Tensor:
        error = squared_error(parametrization, schedule, noised, output)
        snr = schedule.lookup("snr", noised.t, error)
        return self.weight(snr) * parametrization.objective.x_0_error(schedule, noised.t, error)


class SNR(OnX0):
    """The signal-to-noise ratio (Salimans and Ho 2022, eq. 9): what L_simple is for epsilon."""

    def weight(self, snr: Tensor) -> Tensor:
        return snr


class MinSNR(OnX0):
    """min(SNR, gamma) (Hang et al. 2023, section 3.4): the clean end, where SNR is large, counts less.

    Args:
        gamma: above 0.

    Raises:
        ValueError: where gamma is out of range.
    """

    def __init__(self, gamma: float = 5.0):
        if gamma <= 0:
            raise ValueError(f"weighting.gamma={gamma} must be above 0")
        self.gamma = gamma

    def weight(self, snr: Tensor) -> Tensor:
        return snr.clamp(max=self.gamma)


class P2(OnX0):
    """SNR / (k + SNR)^gamma (Choi et al. 2022, eq. 8): less for detail that nobody sees.

    Args:
        gamma: at least 0; 0 is the SNR itself.
        k: above 0.

    Raises:
        ValueError: where either is out of range.
    """

    def __init__(self, gamma: float = 1.0, k: float = 1.0):
        if gamma < 0 or k <= 0:
            raise ValueError(f"weighting.gamma={gamma}, weighting.k={k}: at least 0, and above 0")
        self.gamma = gamma
        self.k = k

    def weight(self, snr: Tensor) -> Tensor:
        return snr / (self.k + snr) ** self.gamma


class VariationalBound:
    """T L_t in bits per dimension: its mean over t is the variational bound without the prior's term (Ho et
    al. 2020, eq. 5; L_vlb of Nichol and Dhariwal 2021).

    Args:
        levels: whether x_0 is of 256 levels, as images are, and L_0 the likelihood of these. Of latents it is
            that of a density, which may be above 1 and the bound below 0.
    """

    trains_variance = True
    trains_zero_snr = True

    def __init__(self, levels: bool = True):
        self.levels = levels

    def losses(
        self, parametrization: Parametrization, schedule: NoiseSchedule, noised: Noised, output: Tensor
    ) -> Tensor:
        prediction = parametrization(schedule, noised.x_t, noised.t, output)
        terms = bound_term(schedule, noised.x_0, noised.t, prediction, levels=self.levels)
        return schedule.num_timesteps * terms


class Hybrid:
    """L_simple, which teaches the mean, and a share of the bound, which teaches the variance alone (Nichol
    and Dhariwal 2021, eq. 16).

    Args:
        bound_share: lambda in the paper, above 0.
        levels: as of `VariationalBound`.

    Raises:
        ValueError: where the share is out of range.
    """

    trains_variance = True
    trains_zero_snr = True

    def __init__(self, bound_share: float = 0.001, levels: bool = True):
        if bound_share <= 0:
            raise ValueError(f"weighting.bound_share={bound_share} must be above 0")
        self.bound_share = bound_share
        self.levels = levels

    def losses(
        self, parametrization: Parametrization, schedule: NoiseSchedule, noised: Noised, output: Tensor
    ) -> Tensor:
        channels = noised.x_0.shape[1]
        mean_held = torch.cat([output[:, :channels].detach(), output[:, channels:]], dim=1)
        bound = VariationalBound(self.levels).losses(parametrization, schedule, noised, mean_held)
        return squared_error(parametrization, schedule, noised, output) + self.bound_share * bound


class Uncertainty(nn.Module):
    """L_simple, divided at each noise level by how large it is there, which is learned (Karras et al. 2024,
    "Analyzing and improving the training dynamics of diffusion models", eq. 14 and 15; Kendall et al. 2018).

    The loss is error / exp(u) + u: least where exp(u) is the mean error at that noise level, so that every
    level counts alike. It may be below 0. u is a sum of cosines of a coordinate of the noise level that runs
    from 0 at zero SNR to 1 without noise, 1 / (1 + SNR^(-1/4)); it begins as 0, which is L_simple.

    Args:
        num_cosines: of the sum, at least 1; more can follow finer detail.

    Raises:
        ValueError: where there are none.
    """

    trains_variance = False
    trains_zero_snr = True

    def __init__(self, num_cosines: int = 16):
        super().__init__()
        if num_cosines < 1:
            raise ValueError(f"weighting.num_cosines={num_cosines} must be at least 1")
        self.coefficients = nn.Parameter(torch.zeros(num_cosines))

    def log_error(self, snr: Tensor) -> Tensor:
        """u at this signal-to-noise ratio. Both [B]."""
        root = snr**0.25
        angles = math.pi * torch.arange(len(self.coefficients), dtype=snr.dtype, device=snr.device)
        cosines = torch.cos((root / (1 + root))[:, None] * angles)
        return (cosines * self.coefficients).sum(1)  # autocast would take a matrix product in half precision

    def losses(
        self, parametrization: Parametrization, schedule: NoiseSchedule, noised: Noised, output: Tensor
    ) -> Tensor:
        error = squared_error(parametrization, schedule, noised, output)
        u = self.log_error(schedule.lookup("snr", noised.t, error))
        return error * (-u).exp() + u
