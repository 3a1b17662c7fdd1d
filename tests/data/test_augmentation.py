"""What is changed on the device: keyed by seed, step and index, and nothing else."""

from collections import Counter
from functools import partial

import numpy as np
import torch

from ddpm.data.augmentation import Augmentation, normalize, windows
from ddpm.networks.inputs import NO_LABEL


def bytes_(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(0).randint(0, 256, (n, 3, 4, 5)).astype(np.uint8))


def test_normalizing():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x_0 = normalize(levels)
    assert x_0.dtype == torch.float32
    assert (x_0.min(), x_0.max()) == (-1, 1)
    torch.testing.assert_close(((x_0 + 1) * 127.5).round().byte(), levels)


def test_half_are_mirrored_and_which_depends_on_seed_step_and_index():
    images = bytes_(400)
    flip = Augmentation(horizontal_flip=True, seed=0)
    x_0 = flip(images, 3, range(400))
    mirrored = (x_0 == normalize(images).flip(-1)).flatten(1).all(1)
    assert torch.equal(x_0[~mirrored], normalize(images)[~mirrored])
    assert 160 < int(mirrored.sum()) < 240
    assert torch.equal(flip(images[37:90], 3, range(37, 90)), x_0[37:90])
    assert not torch.equal(flip(images, 4, range(400)), x_0)
    assert not torch.equal(Augmentation(horizontal_flip=True, seed=1)(images, 3, range(400)), x_0)


def test_dequantizing_fills_each_level_evenly():
    images = bytes_(300)
    dequantize = partial(Augmentation(dequantize=True, seed=0).dequantized, normalize(images))
    x_0 = dequantize(3, range(300))
    assert x_0.dtype == torch.float32
    noise = (x_0 + 1) * 128 - images
    assert -1e-4 < float(noise.min()) < 0.01
    assert 0.99 < float(noise.max()) < 1 + 1e-4
    assert abs(float(noise.mean()) - 0.5) < 0.01
    assert float(x_0.min()) >= -1
    assert float(x_0.max()) <= 1
    some = Augmentation(dequantize=True, seed=0).dequantized(normalize(images[16:50]), 3, range(16, 50))
    assert torch.equal(some, x_0[16:50])
    assert not torch.equal(dequantize(4, range(300)), x_0)


WINDOW = (3, 4)
"""Of images of 5x7, which have nine such parts in two rows more and three columns more."""


def places(seed: int, step: int, indices: range) -> list[tuple[int, int]]:
    """Where the part of each image that is shown lies, read from its pixels."""
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    images = torch.stack([rows, columns, rows * 7 + columns]).to(torch.uint8).expand(len(indices), 3, 5, 7)
    x_0 = Augmentation(seed=seed)(images, step, indices, WINDOW)
    assert x_0.shape == (len(indices), 3, *WINDOW)
    found = ((x_0 + 1) * 127.5).round().byte()
    corners = [(int(image[0, 0, 0]), int(image[1, 0, 0])) for image in found]
    for (top, left), image in zip(corners, found, strict=True):
        assert torch.equal(image, images[0, :, top : top + 3, left : left + 4])
    return corners


def test_each_time_another_part_of_an_image_is_shown_and_all_parts_as_often():
    many = [places(0, step, range(96)) for step in range(100)]
    counts = Counter(corner for step in many for corner in step)
    assert counts.keys() == {(top, left) for top in range(3) for left in range(4)}
    expected = 9600 / 12
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 31.3  # one in 1,000 of chi2
    assert len({many[step][7] for step in range(100)}) == 12
    assert places(0, 3, range(37, 90)) == many[3][37:90]
    assert places(1, 3, range(96)) != many[3]


def test_parts_are_chosen_apart_from_flips():
    """Held at the first index of each block of numbers, which two uses of one stream would share."""
    indices, first = range(16 * 1000), slice(None, None, 16)
    images = bytes_(len(indices))
    flip = Augmentation(horizontal_flip=True, seed=0)
    mirrored = (flip(images, 3, indices) != normalize(images)).flatten(1).any(1)[first]
    top, left = (torch.tensor(corners)[first] == 0 for corners in zip(*places(0, 3, indices), strict=True))
    for one, other, share in ((mirrored, top, 1 / 6), (top, left, 1 / 12)):
        both = float((one & other).float().mean())
        assert abs(both - share) < 4 * (share * (1 - share) / 1000) ** 0.5


def test_the_corner_of_the_last_part_is_within_the_image():
    images = bytes_(2)
    u = torch.tensor([[0.0, 0.0], [1 - 2**-24, 1 - 2**-24]])
    first, last = windows(images, u, (3, 2))
    assert torch.equal(first, images[0, :, :3, :2])
    assert torch.equal(last, images[1, :, -3:, -2:])


def withheld(label_drop: float, step: int, indices: range, seed: int = 0) -> torch.Tensor:
    """bool [B]: of which indices the label is withheld."""
    labels = torch.arange(len(indices)) % 5
    shown = Augmentation(label_drop=label_drop, seed=seed).drop_labels(labels, step, indices)
    assert shown.dtype == torch.int64
    assert torch.equal(shown[shown != NO_LABEL], labels[shown != NO_LABEL])
    return shown == NO_LABEL


def test_a_share_of_the_labels_is_withheld_and_of_which_depends_on_seed_step_and_index():
    many = torch.stack([withheld(0.1, step, range(96)) for step in range(200)]).float()
    n, p = many.numel(), 0.1
    assert abs(float(many.sum()) - n * p) < 4 * (n * p * (1 - p)) ** 0.5
    assert 0.5 < float(many.sum(1).var()) / (96 * p * (1 - p)) < 1.5  # 96 if a batch were dropped whole
    assert 0.5 < float(many.sum(0).var()) / (200 * p * (1 - p)) < 1.5
    assert torch.equal(withheld(0.1, 3, range(37, 90)), many[3, 37:90].bool())
    assert not torch.equal(withheld(0.1, 3, range(96), seed=1), many[3].bool())
    assert not withheld(0.0, 3, range(96)).any()
    assert withheld(1.0, 3, range(96)).all()


def test_flips_and_withheld_labels_are_drawn_apart():
    images = bytes_(2000)
    mirrored = (
        (Augmentation(horizontal_flip=True, seed=0)(images, 3, range(2000)) != normalize(images))
        .flatten(1)
        .any(1)
    )
    both = float((mirrored & withheld(0.5, 3, range(2000))).float().mean())
    assert abs(both - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5


def test_generators_are_made_once():
    change = Augmentation(horizontal_flip=True, dequantize=True, label_drop=0.5, seed=0)
    for step in range(3):
        change.dequantized(change(bytes_(4), step, range(4)), step, range(4))
        change.drop_labels(torch.zeros(4, dtype=torch.int64), step, range(4))
    streams = dict(change._streams)
    change.dequantized(change(bytes_(4), 3, range(4)), 3, range(4))
    assert len(streams) == 3
    assert all(change._streams[key] is stream for key, stream in streams.items())
