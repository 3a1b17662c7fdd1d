"""Networks that predict from a noisy image and a timestep. They know no schedule and no trainer.

Each is called as `network(x, t, labels=None)`:

- x: x_t, float [B, in_channels, H, W]; height and width are multiples of the network's `size_multiple`;
- t: timesteps, int64 [B];
- labels: classes, int64 [B], with -1 for no label; None is -1 for all.

It returns [B, out_channels, H, W], and raises a ValueError for another size, or where an unconditional
network is given labels.
"""

from ddpm.networks.dit import DiT
from ddpm.networks.unet import UNet

__all__ = ["DiT", "UNet"]
