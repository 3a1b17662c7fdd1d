"""How the network is computed: in which precision, in which memory layout, compiled or as it is.

None of it changes what is learnt, beyond rounding, or what a checkpoint holds.
"""

from dataclasses import dataclass

import torch

from ddpm.runtime.compilation import has_triton
from ddpm.runtime.device import has_bfloat16

LARGE = {"cpu": 500_000, "cuda": 2_000_000}
"""Parameters from which on bfloat16 is faster: the layers of a smaller network are so short that the
conversions cost more than they save. Measured in docs/benchmarks.md for CPUs.
"""

WORTH_COMPILING = 10_000
"""Uses of the network from which on a GPU makes up for the minute or two that compiling takes."""


@dataclass(frozen=True)
class Computing:
    """The choices for one run, or one sampling.

    Attributes:
        precision: "32-true", or "bf16-mixed": convolutions and matrix products in bfloat16, all else in
            float32.
        channels_last: the memory layout in which the channels of a pixel are neighbours.
        compile: by torch.compile.
    """

    precision: str
    channels_last: bool
    compile: bool

    def __str__(self) -> str:
        names = {"channels last": self.channels_last, "compiled": self.compile}
        return ", ".join([self.precision, *(name for name, is_on in names.items() if is_on)])


AS_IT_IS = Computing("32-true", channels_last=False, compile=False)


def choose(
    device: torch.device,
    parameters: int,
    uses: int,
    *,
    precision: str = "auto",
    channels_last: bool | None = None,
    compile: bool | None = None,
) -> Computing:
    """What a person said, and for the rest what is fastest on this device.

    With bfloat16 units bf16-mixed for a large network, on a GPU in channels last, and compiled where that is
    worth the wait. Everything else: float32 as it is.

    Args:
        device: that computes.
        parameters: of the network.
        uses: how often the network will be asked, or a step will be taken; -1 for no end.
        precision: "auto" leaves it to this function, as None does for the others.
    """
    on_gpu = device.type == "cuda"
    large = device.type in LARGE and parameters >= LARGE[device.type]
    long = not 0 <= uses < WORTH_COMPILING
    if precision == "auto":
        precision = "bf16-mixed" if large and has_bfloat16(device) else "32-true"
    if channels_last is None:
        channels_last = on_gpu and large and has_bfloat16(device)
    if compile is None:
        compile = on_gpu and large and long and has_triton()
    return Computing(precision, channels_last, compile)
