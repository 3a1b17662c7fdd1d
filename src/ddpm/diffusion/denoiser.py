"""A network as samplers see it: guided, clipped, and free of what it was trained to predict."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.condition import Condition, apply_network
from ddpm.diffusion.guidance import Guidance, Network, NoGuidance
from ddpm.diffusion.parametrization import Parametrization, Prediction
from ddpm.diffusion.process import NoiseSchedule, predict_eps

Denoise = Callable[[NoiseSchedule, Tensor, Tensor], Prediction]
"""(schedule, x_t [B, C, H, W], t int64 [B], steps of that schedule) -> the prediction. All that a sampler
needs: a `Denoiser`, or a closed form.
"""


class Known(NamedTuple):
    """Pixels that are known beforehand: what is drawn around them fits them (inpainting).

    Attributes:
        x_0: [B, C, H, W] in [-1, 1], or broadcasting with it.
        mask: bool [B, 1, H, W], or broadcasting with it: True where nothing is known and the image is drawn
            anew, False where it is `x_0`.
    """

    x_0: Tensor
    mask: Tensor


class Denoiser:
    """Calls a network and reads its output: guidance first, then clipping, then the known pixels.

    Args:
        network: -> [B, C * (1 + variance.outputs), H, W] for the parametrization's inputs, an image
            [B, C, H, W] and a number [B] each: x_t and t but for objectives that say otherwise. Also called
            with labels where there are some, and with the condition as `apply_network` hands it over.
        parametrization: what it is given, and what its output means.
        clip: keep the predicted x_0 within [-1, 1], the range of images, before anything is made of it; a
            number above 0 keeps it within so much of 0.
        labels: int64 [B], the class that each image of the batch is conditioned on; None for none.
        condition: what else each image of the batch is conditioned on; None for nothing.
        withholds_class: whether the output that guidance leads away from is without the class.
        withholds_condition: whether it is without the condition.
        guidance: how class and condition steer.
        known: pixels whose x_0 is this, whatever the network says. Every sampler then takes them through the
            process in the way that leads there: the ancestral one draws them from q(x_{t-1} | x_t, x_0).
    """

    def __init__(
        self,
        network: Network,
        parametrization: Parametrization,
        *,
        clip: bool | float = True,
        labels: Tensor | None = None,
        condition: Condition | None = None,
        withholds_class: bool = True,
        withholds_condition: bool = False,
        guidance: Guidance | None = None,
        known: Known | None = None,
    ):
        self.network = network
        self.parametrization = parametrization
        self.clip = clip
        self.labels = labels
        self.condition = condition
        self.withholds_class = withholds_class
        self.withholds_condition = withholds_condition and condition is not None
        self.guidance = guidance or NoGuidance()
        self.known = known

    def __call__(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Prediction:
        """What the network predicts for x_t [B, C, H, W] at step `t` int64 [B] of `schedule`, the chain in
        use.
        """
        inputs = self.parametrization.network_inputs(schedule, x_t, t)

        def output_for(labels: Tensor | None, network: Network = self.network) -> Tensor:
            condition = self.condition
            if labels is None:  # what training withholds
                labels = None if self.withholds_class else self.labels
                if self.withholds_condition and condition is not None:
                    condition = condition.withheld()
            if self.labels is None:  # -1 said that there is a condition
                labels = None
            return apply_network(network, *inputs, labels, condition).to(x_t.dtype)

        steps = schedule.original.num_timesteps
        labels = self.labels
        if labels is None and self.withholds_condition:
            labels = torch.full_like(t, -1)  # there is a condition, if no class
        output = self.guidance(output_for, x_t, schedule.timestep(t), labels, steps)
        x_0 = self.parametrization.x_0(schedule, x_t, t, output)
        if self.clip:
            x_0 = x_0.clamp(-float(self.clip), float(self.clip))
        if self.known is not None:
            x_0 = torch.where(self.known.mask, x_0, self.known.x_0)
        return Prediction(
            x_0=x_0,
            eps=predict_eps(schedule, x_t, t, x_0),
            log_variance=self.parametrization.log_variance(schedule, x_t, t, output),
        )
