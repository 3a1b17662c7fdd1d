"""The largest micro-batch is the one that fits, and finding it leaves nothing behind."""

from collections.abc import Callable

import pytest
import torch
from models import make_module
from torch import Tensor, nn

from ddpm.runtime.computing import Computing
from ddpm.training import micro_batch
from ddpm.training.micro_batch import BEYOND_TENSORS, SHARE, STATE, WEIGHT, Room, confirmed, fits, largest

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Full(nn.Module):
    """A network for at most so many images, with everything that a pass may change."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most
        self.tried: list[int] = []
        self.layers = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Dropout(0.5))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.tried.append(len(x))
        output = self.layers(x + t[:, None, None, None] + 1)
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return output


def everything(module: nn.Module) -> list[Tensor]:
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(gradient is not None for gradient in gradients)
    found = [*module.state_dict().values(), *gradients, torch.get_rng_state()]
    return [tensor.clone() for tensor in found]


def test_it_halves_until_one_fits_and_leaves_the_module_as_it_was():
    network = Full(10)
    module = make_module(network)
    for number, parameter in enumerate(module.parameters()):
        parameter.grad = torch.full_like(parameter, float(number))
    before = everything(module)
    gradients = [parameter.grad for parameter in module.parameters()]
    assert confirmed([64, 32, 16, 8, 4, 2, 1], lambda images: fits(module, images, CPU, beside=1000)) == 8
    assert network.tried == [64, 32, 16, 8]
    assert all(a.equal(b) for a, b in zip(before, everything(module), strict=True))
    assert all(a is b.grad for a, b in zip(gradients, module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("most", "sizes", "tried", "found"),
    [
        (10, [60, 30, 20, 15, 12, 10, 6, 5, 4, 3, 2, 1], [60, 30, 15, 6], 6),
        (60, [60, 30], [60], 60),
        (0, [3, 1], [3, 1], None),
        (5, [], [], None),
    ],
)
def test_the_next_size_is_at_most_half_as_large(
    most: int, sizes: list[int], tried: list[int], found: int | None
):
    asked: list[int] = []

    def fits(images: int) -> bool:
        asked.append(images)
        return images <= most

    assert confirmed(sizes, fits) == found
    assert asked == tried


def test_another_error_is_no_lack_of_memory():
    class Broken(Full):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        fits(make_module(Broken(1)), 1, CPU)


def test_a_conditional_network_is_tried_with_labels():
    seen = []

    class Conditional(Full):
        def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
            seen.append(labels)
            return super().forward(x, t)

    assert fits(make_module(Conditional(4), classes=["a", "b"]), 3, CPU)
    assert seen[0].tolist() == [0, 0, 0]


@pytest.fixture
def of_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let a device have so many bytes free."""

    def have(free: float) -> None:
        monkeypatch.setattr(micro_batch, "free_memory", lambda device: int(free))

    return have


SIZES = [64, 32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize(
    ("images", "room", "found"),
    [
        (16, Room(CPU), 16),
        (15.9, Room(CPU), 8),
        (500, Room(CPU), 64),
        (0.9, Room(CPU), None),
        (16, Room(CPU, taken=10), 8),
        (16, Room(CPU, processes=2), 4),
        (14, Room(CPU, shards=2), 16),
        (13, Room(CPU, shards=2), 8),
    ],
)
def test_the_estimate_is_of_weights_their_state_and_images(
    images: float, room: Room, found: int | None, of_memory: Callable[[float], None]
):
    module = make_module()
    state = (WEIGHT + STATE) * module.num_parameters
    image = BEYOND_TENSORS * module.training_bytes
    assert state == pytest.approx(5 * image, rel=0.01)
    of_memory((state + images * image) / SHARE + 2)
    assert largest(module, SIZES, room) == found


def test_what_is_not_known_is_taken_whole(of_memory: Callable[[float], None]):
    module = make_module()
    of_memory(0)
    assert largest(module, SIZES, Room(CPU)) == 64
    module.training_bytes = float("nan")
    of_memory(1e6)
    assert largest(module, SIZES, Room(CPU)) == 64


@pytest.mark.parametrize(
    ("precision", "images", "most", "tried"),
    [
        ("32-true", 16, 64, [16]),
        ("bf16-mixed", 16, 64, [32]),  # half of the bytes
        ("32-true", 16, 5, [16, 8, 4]),
        ("32-true", 0, 64, [1]),  # the estimate may be wrong
    ],
)
def test_a_gpu_confirms_the_estimate(
    precision: str, images: int, most: int, tried: list[int],
    of_memory: Callable[[float], None], monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    module = make_module()
    module.computing = Computing(precision, channels_last=False, compile=False)
    free = int(((WEIGHT + STATE) * module.num_parameters + images * module.training_bytes) / SHARE) + 2
    of_memory(free)
    asked = []

    def fits(module: nn.Module, images: int, device: torch.device, beside: int) -> bool:
        assert device == GPU
        assert beside == pytest.approx(STATE * module.num_parameters + (1 - SHARE) * free, abs=2)
        asked.append(images)
        return images <= most

    monkeypatch.setattr(micro_batch, "fits", fits)
    assert largest(module, SIZES, Room(GPU)) == tried[-1]
    assert asked == tried
