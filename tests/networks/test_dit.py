"""The diffusion transformer: patches, positions, labels."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.networks.dit import DiT, positions

pytestmark = pytest.mark.usefixtures("seeded")

SMALL = {"width": 16, "depth": 2, "heads": 4}


def awake(network: nn.Module) -> nn.Module:
    """The network with every weight drawn anew, so that no gate is closed."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def dit(**options: object) -> DiT:
    return awake(DiT(3, 3, **{**SMALL, **options})).eval()


def inputs(height: int = 8, width: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(4, 3, height, width), torch.tensor([0, 3, 500, 999])


def test_starts_as_zero_and_its_blocks_as_the_identity() -> None:
    network = DiT(3, 3, **SMALL)
    assert network(*inputs()).abs().max() == 0
    tokens = torch.randn(2, 4, 16)
    assert torch.equal(network.layers[0](tokens, torch.randn(2, 16)), tokens)


def test_gradients_reach_every_parameter() -> None:
    network = dit(num_classes=5)
    network(*inputs(), torch.tensor([0, 1, -1, 4])).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_a_fresh_network_is_wholly_trained_after_three_steps() -> None:
    network = DiT(3, 3, **SMALL)
    start = copy.deepcopy(network.state_dict())
    x, t = inputs()
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(network(x, t), torch.randn_like(x)).backward()
        optimizer.step()
    assert [name for name, p in network.named_parameters() if torch.equal(p, start[name])] == []


@pytest.mark.parametrize(("height", "width", "patch_size"), [(4, 8, 2), (4, 12, 4), (6, 9, 3), (3, 5, 1)])
def test_patches_come_back_where_they_were(height: int, width: int, patch_size: int) -> None:
    network = DiT(3, 3, **SMALL, patch_size=patch_size)
    x, _ = inputs(height, width)
    patches = network._patchify(x)
    assert patches.shape == (4, height * width // patch_size**2, 3 * patch_size**2)
    right = x[:, :, :patch_size, patch_size : 2 * patch_size]  # row by row: the second is one to the right
    assert torch.equal(patches[:, 1], right.flatten(1))
    back = network._unpatchify(patches, height // patch_size, width // patch_size)
    assert torch.equal(back, x)


def test_positions_are_sinusoids_of_column_and_row() -> None:
    embedding = positions(3, 5, 16, torch.device("cpu"))
    assert embedding.shape == (15, 16)
    for row in range(3):
        for column in range(5):
            for i in range(4):
                frequency = 10_000 ** (-i / 4)
                features = embedding[row * 5 + column]
                for offset, place in ((0, column), (8, row)):
                    angle = torch.tensor(place * frequency, dtype=torch.float64)
                    assert features[offset + i] == pytest.approx(angle.sin().item(), abs=1e-6)
                    assert features[offset + 4 + i] == pytest.approx(angle.cos().item(), abs=1e-6)


def test_the_position_matters() -> None:
    """Without positions, patches that change places only change places in the output."""
    network = dit()
    x, t = inputs(2, 4)
    swapped = network(x.roll(2, dims=3), t).roll(-2, dims=3)
    assert not torch.allclose(swapped, network(x, t), atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "says"), [(7, 8, "height 7.* use 6 or 8"), (8, 1, "width 1.* use 2")]
)
def test_a_size_that_does_not_divide_is_refused(height: int, width: int, says: str) -> None:
    network = DiT(3, 3, **SMALL)
    assert network.size_multiple == 2
    with pytest.raises(ValueError, match=says):
        network(*inputs(height, width))


@pytest.mark.parametrize(
    ("options", "says"), [({"heads": 3}, "heads=3 does not divide"), ({"width": 18, "heads": 2}, "width=18")]
)
def test_settings_that_do_not_fit_are_refused(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DiT(3, 3, **{**SMALL, **options})


def test_no_label_is_the_last_row() -> None:
    network, (x, t) = dit(num_classes=5), inputs()
    assert network.classes.weight.shape == (6, 16)
    without = network(x, t)
    assert torch.equal(without, network(x, t, torch.full((4,), -1)))
    mixed = network(x, t, torch.tensor([-1, 0, -1, 4]))
    changed = (mixed - without).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert changed.tolist() == [False, True, False, True]
    network.classes.weight.data[5] += 1
    assert not torch.allclose(network(x, t), without, atol=1e-3)


def test_unconditional_networks_take_no_labels() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        dit()(*inputs(), torch.zeros(4, dtype=torch.int64))


def test_time_and_class_condition_every_block() -> None:
    network = dit()
    x, t = inputs()
    assert not torch.allclose(network(x, t), network(x, t.flip(0)), atol=1e-3)
    output = network(x, t)
    for block in network.layers:
        changed = copy.deepcopy(block.modulation.weight.data)
        block.modulation.weight.data.zero_()
        assert not torch.allclose(network(x, t), output, atol=1e-3)
        block.modulation.weight.data = changed


def test_checkpointing_gives_the_same_gradients() -> None:
    x, t = inputs()
    gradients, runs = [], [0, 0]
    for index, gradient_checkpointing in enumerate((False, True)):
        network = dit(gradient_checkpointing=gradient_checkpointing).train()

        def count(*_: object, index: int = index) -> None:
            runs[index] += 1

        network.layers[0].register_forward_pre_hook(count)
        network(x, t).square().mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    assert runs == [1, 2]
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_channels_last_gives_the_same() -> None:
    network, (x, t) = dit(), inputs(8, 4)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last), t), network(x, t))
