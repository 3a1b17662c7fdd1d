"""The averaged weights: their formula, and that nothing can swap or lose them."""

import pytest
import torch
from torch import nn

from ddpm.training.ema import EMA, NoAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def change(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_average_follows_its_formula_with_warm_up():
    net = network()
    ema = EMA(net, decay=0.6)
    expected = [p.detach().clone() for p in net.parameters()]
    for n in range(30):
        change(net)
        ema.update()
        decay = min(0.6, (1 + n) / (10 + n))
        expected = [
            decay * a + (1 - decay) * p.detach() for a, p in zip(expected, net.parameters(), strict=True)
        ]
    assert (1 + 10) / (10 + 10) < 0.6 < (1 + 29) / (10 + 29)  # both sides of the minimum were used
    for found, wanted in zip(ema.state_dict()["parameters"].values(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_only_parameters_are_averaged():
    net = network()
    assert set(EMA(net).state_dict()["parameters"]) == {name for name, _ in net.named_parameters()}
    assert any("running_mean" in name for name, _ in net.named_buffers())


def test_swapping_in_returns_the_networks_own_weights_also_after_an_error():
    net = network()
    ema = EMA(net, decay=0.9)
    change(net)
    own = [p.detach().clone() for p in net.parameters()]
    with ema.swapped_in():
        inside = [p.detach().clone() for p in net.parameters()]
    assert not torch.equal(inside[0], own[0])

    def fail() -> None:
        with ema.swapped_in():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert all(torch.equal(p, o) for p, o in zip(net.parameters(), own, strict=True))
    average = ema.state_dict()["parameters"].values()
    assert all(torch.equal(a, i) for a, i in zip(average, inside, strict=True))


def test_an_optimizer_keeps_working_after_a_swap():
    net = network()
    ema = EMA(net, decay=0.9)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with ema.swapped_in():
        pass
    before = net[0].weight.detach().clone()
    net(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(net[0].weight, before)


def test_state_returns_whole():
    first, second = network(), network()
    ema = EMA(first, decay=0.9)
    for _ in range(5):
        change(first)
        ema.update()
    other = EMA(second, decay=0.9)
    other.load_state_dict(ema.state_dict())
    second.load_state_dict(first.state_dict())
    for net, average in ((first, ema), (second, other)):
        torch.manual_seed(1)
        change(net)
        average.update()
    a, b = ema.state_dict(), other.state_dict()
    assert a["num_updates"] == b["num_updates"] == 6
    assert all(torch.equal(a["parameters"][name], b["parameters"][name]) for name in a["parameters"])


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_decay_out_of_range_is_refused(decay: float):
    with pytest.raises(ValueError, match=f"ema.decay={decay}"):
        EMA(network(), decay)


def test_a_swap_within_a_swap_changes_nothing():
    net = network()
    ema = EMA(net, decay=0.9)
    change(net)
    own = [p.detach().clone() for p in net.parameters()]
    with ema.swapped_in():
        outer = [p.detach().clone() for p in net.parameters()]
        with ema.swapped_in():
            assert all(torch.equal(p, o) for p, o in zip(net.parameters(), outer, strict=True))
        assert all(torch.equal(p, o) for p, o in zip(net.parameters(), outer, strict=True))
    assert all(torch.equal(p, o) for p, o in zip(net.parameters(), own, strict=True))


def test_whoever_refers_to_a_parameter_sees_the_average_within_a_swap():
    """As an optimizer, compiled code or a shard does: by the tensor, or by its memory."""
    net = network()
    ema = EMA(net, decay=0.9)
    change(net)
    parameter = next(net.parameters())
    memory = parameter.detach()
    with ema.swapped_in():
        assert torch.equal(memory, parameter.detach())
        assert torch.equal(memory, network()[0].weight)
    assert not torch.equal(memory, network()[0].weight)


def test_a_reset_average_begins_at_the_parameters():
    net = network()
    ema = EMA(net, decay=0.9)
    change(net)
    ema.update()
    change(net)
    ema.reset()
    assert ema.num_updates == 0
    state = ema.state_dict()["parameters"]
    assert all(torch.equal(state[name], value) for name, value in net.named_parameters())


def test_without_an_average_the_networks_own_weights_are_used():
    net = network()
    average = NoAverage(net)
    change(net)
    own = [p.detach().clone() for p in net.parameters()]
    average.update()
    with average.swapped_in():
        assert all(torch.equal(p, o) for p, o in zip(net.parameters(), own, strict=True))
    assert average.state_dict() == {}
