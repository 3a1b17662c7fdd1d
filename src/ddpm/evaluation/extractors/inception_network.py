"""The network that FID is defined by: Inception as TensorFlow published it on 2015-12-05.

It differs from the Inception-v3 of other libraries: averages in the pooled branches do not count the padding,
the last block pools by the maximum, and batch normalisation has no scale. Of its blocks the paper (Szegedy et
al. 2016, "Rethinking the Inception architecture", figures 5 to 7, 10) shows the branches.
"""

import torch
from torch import Tensor, nn

EPSILON = 1e-3
"""Of its batch normalisations."""

NUM_FEATURES = 2048
NUM_CLASSES = 1008
"""1,000 of ImageNet, and some that nothing was trained for."""


class Convolution(nn.Conv2d):
    """A convolution, batch normalisation as it is after training, and ReLU. The normalisation is part of
    weight and bias: see `folding`.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int | tuple[int, int], *, stride: int = 1, padded: bool = True
    ):
        height, width = (size, size) if isinstance(size, int) else size
        padding = (height // 2, width // 2) if padded else 0
        super().__init__(inputs, outputs, (height, width), stride=stride, padding=padding)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu_()


class Branches(nn.Module):
    """What several networks make of the same input, one after the other along the channels."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def network() -> nn.Sequential:
    """From images, float32 [N, 3, 299, 299] in [-1, 1), to features [N, 2048]."""
    return nn.Sequential(
        Convolution(3, 32, 3, stride=2, padded=False),
        Convolution(32, 32, 3, padded=False),
        Convolution(32, 64, 3),
        nn.MaxPool2d(3, stride=2),
        Convolution(64, 80, 1),
        Convolution(80, 192, 3, padded=False),
        nn.MaxPool2d(3, stride=2),
        _block_35(192, 32),
        _block_35(256, 64),
        _block_35(288, 64),
        _from_35_to_17(),
        _block_17(128),
        _block_17(160),
        _block_17(160),
        _block_17(192),
        _from_17_to_8(),
        _block_8(1280, _average()),
        _block_8(2048, nn.MaxPool2d(3, stride=1, padding=1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def convolutions(network: nn.Module) -> list[Convolution]:
    """All 94, in the order in which files of weights have them."""
    return [module for module in network.modules() if isinstance(module, Convolution)]


def _average() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def _block_35(inputs: int, pooled: int) -> Branches:
    return Branches(
        Convolution(inputs, 64, 1),
        nn.Sequential(Convolution(inputs, 48, 1), Convolution(48, 64, 5)),
        nn.Sequential(Convolution(inputs, 64, 1), Convolution(64, 96, 3), Convolution(96, 96, 3)),
        nn.Sequential(_average(), Convolution(inputs, pooled, 1)),
    )


def _from_35_to_17() -> Branches:
    return Branches(
        Convolution(288, 384, 3, stride=2, padded=False),
        nn.Sequential(
            Convolution(288, 64, 1), Convolution(64, 96, 3), Convolution(96, 96, 3, stride=2, padded=False)
        ),
        nn.MaxPool2d(3, stride=2),
    )


def _block_17(width: int) -> Branches:
    row, column = (1, 7), (7, 1)
    return Branches(
        Convolution(768, 192, 1),
        nn.Sequential(
            Convolution(768, width, 1), Convolution(width, width, row), Convolution(width, 192, column)
        ),
        nn.Sequential(
            Convolution(768, width, 1),
            Convolution(width, width, column),
            Convolution(width, width, row),
            Convolution(width, width, column),
            Convolution(width, 192, row),
        ),
        nn.Sequential(_average(), Convolution(768, 192, 1)),
    )


def _from_17_to_8() -> Branches:
    return Branches(
        nn.Sequential(Convolution(768, 192, 1), Convolution(192, 320, 3, stride=2, padded=False)),
        nn.Sequential(
            Convolution(768, 192, 1),
            Convolution(192, 192, (1, 7)),
            Convolution(192, 192, (7, 1)),
            Convolution(192, 192, 3, stride=2, padded=False),
        ),
        nn.MaxPool2d(3, stride=2),
    )


def _block_8(inputs: int, pool: nn.Module) -> Branches:
    def both() -> Branches:
        return Branches(Convolution(384, 384, (1, 3)), Convolution(384, 384, (3, 1)))

    return Branches(
        Convolution(inputs, 320, 1),
        nn.Sequential(Convolution(inputs, 384, 1), both()),
        nn.Sequential(Convolution(inputs, 448, 1), Convolution(448, 384, 3), both()),
        nn.Sequential(pool, Convolution(inputs, 192, 1)),
    )
