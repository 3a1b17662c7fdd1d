"""Networks that predict from a noisy image and a timestep. They know no schedule and no trainer.

Each is called as `network(x, t, labels=None)`: x float [B, in_channels, H, W], t int64 [B], labels int64 [B]
with -1 for "no label"; it returns [B, out_channels, H, W]. Height and width must be multiples of its
`size_multiple`.
"""

from ddpm.networks.dit import DiT
from ddpm.networks.unet import UNet

__all__ = ["DiT", "UNet"]
