"""A small network that tells the classes of a data set apart, and how it is trained."""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.data.images import ImageSet
from ddpm.random import draws
from ddpm.runtime.progress import Countdown

NUM_FEATURES = 64
MOST_PIXELS = 32
"""Of a side: larger images are made smaller by averaging."""

STEPS, BATCH, RATE, DECAY = 800, 64, 3e-3, 0.02
AT_ONCE = 512
"""Images that accuracy is measured on together."""


class SmallClassifier(nn.Module):
    """Three convolutions, 64 averages over what is left of the image, and a line to each class."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.GELU(),
            nn.Conv2d(64, NUM_FEATURES, 3, padding=1, stride=2),
            nn.GELU(),
        )
        self.last = nn.Linear(NUM_FEATURES, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, 64] of images, float32 [N, C, H, W] in [0, 255]."""
        found: Tensor = self.body(smaller(images) / 127.5 - 1)
        return found.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 [N, K]."""
        found: Tensor = self.last(self.features(images))
        return found


def smaller(images: Tensor) -> Tensor:
    """Images of at most 32 pixels a side, in their proportions."""
    height, width = images.shape[2:]
    shrink = MOST_PIXELS / max(height, width)
    if shrink >= 1:
        return images
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    return F.interpolate(images, size, mode="area")


def trained(train: ImageSet, num_classes: int) -> dict[str, Tensor]:
    """The state of a network that is trained on labelled images, on the CPU: the same each time on the same
    machine, whatever was drawn before, and nothing else's random numbers change.

    Args:
        train: with labels in [0, num_classes).
        num_classes: how many there are.
    """
    assert train.labels is not None
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        network = SmallClassifier(train.image_shape[0], num_classes)
        optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
        with Countdown("classifier", STEPS) as countdown:
            for step in range(STEPS):
                indices = draws(0, len(train), step * BATCH, BATCH)
                images = torch.from_numpy(np.ascontiguousarray(train.images[indices])).float()
                labels = torch.from_numpy(train.labels[indices])
                for group in optimizer.param_groups:
                    group["lr"] = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()
                countdown.advance(step + 1)
    return {name: value.detach() for name, value in network.state_dict().items()}


def loaded(state: Mapping[str, Tensor]) -> SmallClassifier:
    """The network of a state, on the CPU; no random numbers are drawn for it."""
    with torch.device("meta"):
        network = SmallClassifier(state["body.0.weight"].shape[1], len(state["last.bias"]))
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def accuracy(state: Mapping[str, Tensor], images: ImageSet) -> float:
    """Share of labelled images whose class a network names."""
    assert images.labels is not None
    network = loaded(state)
    right = 0
    for first in range(0, len(images), AT_ONCE):
        part = images.subset(slice(first, first + AT_ONCE))
        assert part.labels is not None
        named = network(torch.from_numpy(np.ascontiguousarray(part.images)).float()).argmax(1)
        right += int((named.numpy() == part.labels).sum())
    return right / len(images)
