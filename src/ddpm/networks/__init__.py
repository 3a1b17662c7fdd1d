"""Networks that predict from a noisy image and a timestep. They know no schedule and no trainer."""

from ddpm.networks.unet import UNet

__all__ = ["UNet"]
