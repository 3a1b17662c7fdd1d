"""Networks that predict from a noisy image and a timestep. They know no schedule and no trainer.

Each is called as `network(x, t, labels=None, *, vector=None)`:

- x: x_t, with the image that it is conditioned on behind its channels, float [B, in_channels, H, W]; height
  and width are multiples of the network's `size_multiple`;
- t: timesteps, int64 [B];
- labels: classes, int64 [B], with -1 for no label; None is -1 for all;
- vector: numbers that it is conditioned on, float [B, vector_size]; None, or zeros, for none.

It returns [B, out_channels, H, W], and raises a ValueError for another size, or where an unconditional
network is given labels, or one without `vector_size` a vector.
"""

from ddpm.networks.dit import DiT
from ddpm.networks.unet import UNet

__all__ = ["DiT", "UNet"]
