"""What every reverse process has in common; the classes derived from it are updates."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoise
from ddpm.diffusion.parametrization import Prediction
from ddpm.diffusion.process import Noise, NoiseSchedule
from ddpm.diffusion.samplers.spacing import Shape, Spacing

OnStep = Callable[[int, Tensor, Tensor], None]
"""(timestep, x_t, predicted x_0), called once for each use of the network."""

Predict = Callable[[Tensor, int], Prediction]
"""(x_t [B, C, H, W], i) -> what is predicted for x_t at step i of the chain in use."""


class Sampler(ABC):
    """A reverse process: from x_t, usually noise, to x_0.

    A sampler of your own is a class with `reverse`, its update, and a yaml that names it. This one is DDIM
    without noise (Song et al. 2021, eq. 12), in a file `mylab/samplers.py`:

        class Deterministic(Sampler):
            def reverse(self, predict, chain, x_t, noise):
                for i in reversed(range(chain.num_timesteps)):
                    x_0, eps, _ = predict(x_t, i)
                    alpha_bar = float(chain.alphas_cumprod_prev[i])
                    x_t = alpha_bar**0.5 * x_0 + (1 - alpha_bar) ** 0.5 * eps
                return x_t

    and in `conf/sampler/deterministic.yaml`:

        _target_: mylab.samplers.Deterministic
        num_steps: 50

    Everything else is here: which steps are visited, guidance and clipping (in `predict`), keyed noise,
    `on_step`, `inference_mode`. Override `nfe` where a step uses the network more or less than once. Settings
    go into the constructor, and none changes during a call.

    Args:
        num_steps, spacing, timesteps, rho: which steps of the schedule are visited, see `Spacing`; by default
            every one.

    Attributes:
        defined_at_zero_snr: whether the update is defined where nothing of x_0 is left in x_t. One in log-SNR
            is not.

    Raises:
        ValueError: where the settings make no sense.
    """

    defined_at_zero_snr = True
    spacing = Spacing()  # of classes whose constructor does not call this one

    def __init__(
        self,
        num_steps: int | None = None,
        *,
        spacing: Shape | str | Sequence[int] = "uniform",
        timesteps: Sequence[int] | None = None,
        rho: float = 7.0,
    ):
        self.spacing = Spacing(num_steps, spacing, timesteps, rho)

    @abstractmethod
    def reverse(self, predict: Predict, chain: NoiseSchedule, x_t: Tensor, noise: Noise) -> Tensor:
        """From x_t at the last step of `chain` to x_0.

        Args:
            predict: (x_t, i) -> x_0, eps and the log-variance of the reverse step, at step i of the chain.
            chain: the steps to visit, as a chain of their own; its tables are float64 on the CPU.
            x_t: [B, C, H, W], not to be changed in place.
            noise: (i, like) -> fresh unit Gaussian noise for step i, of the shape of `like`.

        Returns:
            x_0 [B, C, H, W].
        """

    def chain(self, schedule: NoiseSchedule, start: int | None = None) -> NoiseSchedule:
        """The steps of `schedule` that a call from `start` visits, as a chain of their own.

        Raises:
            ValueError: where `start` is outside the schedule, or the sampler cannot run on it.
        """
        chain = self.spacing.chain(schedule, start)
        if not self.defined_at_zero_snr and float(chain.alphas_cumprod[-1]) == 0:
            t = int(chain.timesteps[-1])
            raise ValueError(
                f"sampler: {type(self).__name__} steps in log-SNR, which is infinite at t = {t}, where this "
                f"schedule ends at zero SNR: use sampler=ddim or sampler=ancestral, or a schedule with "
                f"schedule.zero_terminal_snr=false, or start at t = {t - 1} or below"
            )
        return chain

    def nfe(self, schedule: NoiseSchedule, start: int | None = None) -> int:
        """Uses of the network by one call from `start` on this schedule.

        Raises:
            ValueError: where `start` is outside the schedule, or it has too few steps.
        """
        return len(self.spacing.steps(schedule, start))

    @torch.inference_mode()
    def __call__(
        self,
        denoiser: Denoise,
        schedule: NoiseSchedule,
        x_t: Tensor,
        *,
        noise: Noise,
        start: int | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """From x_t to x_0.

        Args:
            denoiser: predicts x_0, eps and the variance of the reverse step.
            schedule: the chain that the network was trained on.
            x_t: [B, C, H, W]; unit Gaussian noise to sample from scratch. It is not changed.
            noise: where the process is random; its index is the timestep.
            start: the timestep of x_t; by default the last that is visited: T - 1, but for lists and spacings
                that end below.
            on_step: sees every step, for progress, paths and animations.

        Returns:
            x_0 [B, C, H, W]; within [-1, 1] where the denoiser clips.

        Raises:
            ValueError: as `chain`.
        """
        chain = self.chain(schedule, start)
        timesteps = chain.timesteps.tolist()

        def noise_at(i: int, like: Tensor) -> Tensor:
            return noise(timesteps[i], like)

        return self.reverse(observed(denoiser, chain, on_step), chain, x_t, noise_at)


def observed(denoiser: Denoise, chain: NoiseSchedule, on_step: OnStep | None) -> Predict:
    """Predict for a whole batch at one step of `chain`, and let `on_step` see each prediction.

    Its timesteps are those of the schedule that the chain was taken from.
    """
    timesteps = chain.timesteps.tolist()

    def predict(x_t: Tensor, i: int) -> Prediction:
        prediction = denoiser(chain, x_t, torch.full((len(x_t),), i, device=x_t.device))
        if on_step is not None:
            on_step(timesteps[i], x_t, prediction.x_0)
        return prediction

    return predict
