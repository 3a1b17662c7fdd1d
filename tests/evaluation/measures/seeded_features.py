"""Features that a seed says: of samples and of a reference that they miss a little."""

import numpy as np
import torch
from torch import Tensor


def features(index: int, n: int, num_features: int = 16, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """float64 [n, num_features], correlated."""
    generator = np.random.Generator(np.random.Philox(key=11, counter=[0, 0, 0, index]))
    mixing = np.random.Generator(np.random.Philox(key=12)).standard_normal((num_features, num_features))
    drawn = generator.standard_normal((n, num_features)) @ mixing / num_features**0.5
    return torch.from_numpy(scale * drawn + shift)


def samples() -> Tensor:
    return features(1, 300, scale=0.9, shift=0.1)


def reference() -> Tensor:
    return features(2, 400)
