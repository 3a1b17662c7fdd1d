"""How the network is computed: in which precision, in which memory layout, compiled or as it is.

None of it changes what is learnt, beyond rounding, or what a checkpoint holds.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ddpm.errors import UsageError
from ddpm.runtime.compilation import has_triton
from ddpm.runtime.device import has_bfloat16

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What convolutions and matrix products are computed in, by the name of a precision; all else is float32."""

LARGE = {"cpu": 500_000, "cuda": 2_000_000}
"""Parameters from which on bfloat16 is faster: the layers of a smaller network are so short that the
conversions cost more than they save. Measured in docs/benchmarks.md for CPUs.
"""

WORTH_COMPILING = 10_000
"""Network evaluations from which on a GPU makes up for the minute or two that compiling takes."""


@dataclass(frozen=True)
class Computing:
    """The choices for one run, or one sampling.

    Attributes:
        precision: one of `DTYPES`. "16-mixed" trains with a scaled loss, which is Lightning's part.
        channels_last: the memory layout in which the channels of a pixel are neighbours.
        compile: by torch.compile.
        cuda_graphs: what is compiled is started by CUDA graphs, in a training step.
    """

    precision: str
    channels_last: bool
    compile: bool
    cuda_graphs: bool = False

    def __str__(self) -> str:
        names = {
            "channels last": self.channels_last, "compiled": self.compile, "CUDA graphs": self.cuda_graphs
        }  # fmt: skip
        return ", ".join([self.precision, *(name for name, is_on in names.items() if is_on)])

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Within it a network computes in this precision."""
        dtype = DTYPES[self.precision]
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


AS_IT_IS = Computing("32-true", channels_last=False, compile=False)


def choose(
    device: torch.device,
    parameters: int,
    evaluations: int,
    *,
    precision: str = "auto",
    channels_last: bool | None = None,
    compile: bool | None = None,
    cuda_graphs: bool = False,
) -> Computing:
    """What a person said, and for the rest what is fastest on this device, as far as that was measured.

    With bfloat16 units bf16-mixed for a large network, on a GPU in channels last, and compiled where that is
    worth the wait. Everything else: float32 as it is. A GPU without such units may well be several times
    faster in 16-mixed, but there a step whose scaled gradients overflow moves no weights, and whether a run
    is worth that is for a person to say.

    Args:
        device: that computes.
        parameters: of the network.
        evaluations: of the network, or training steps, that will be asked for; -1 for no end.
        precision: one of `DTYPES`, or "auto", which leaves it to this function, as None does for the others.
        cuda_graphs: start what is compiled by CUDA graphs, which a person has to ask for; compiles, unless
            `compile` says otherwise.

    Raises:
        UsageError: for a precision that there is not, or not on this device.
    """
    if precision not in ("auto", *DTYPES):
        raise UsageError(f"precision={precision}: must be one of auto, {', '.join(DTYPES)}")
    if precision == "16-mixed" and device.type == "cpu":
        raise UsageError("precision=16-mixed: is for GPUs; on a CPU use bf16-mixed or 32-true")
    on_gpu = device.type == "cuda"
    large = device.type in LARGE and parameters >= LARGE[device.type]
    long = not 0 <= evaluations < WORTH_COMPILING
    if precision == "auto":
        precision = "bf16-mixed" if large and has_bfloat16(device) else "32-true"
    if channels_last is None:
        channels_last = on_gpu and large and (precision == "16-mixed" or has_bfloat16(device))
    if compile is None:
        compile = cuda_graphs or (on_gpu and large and long and has_triton())
    return Computing(precision, channels_last, compile, cuda_graphs)
