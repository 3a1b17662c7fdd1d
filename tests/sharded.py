"""What sharded parameters do, against the same as one process does it with whole ones.

As a program it is one of several processes: `python sharded.py STORE RANK WORLD_SIZE`.
"""

import copy
import sys
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import SGD, AdamW

from ddpm.networks.dit import DiT
from ddpm.networks.unet import UNet
from ddpm.training.callbacks.diagnostics import read_norms
from ddpm.training.ema import EMA
from ddpm.training.gradients import clip, norms
from ddpm.training.optimizers import make_optimizer
from ddpm.training.sharding import begin_alike, shard
from ddpm.training.shards import gathered, optimizer_parts, parts


class Layers(nn.Module):
    """A network without lists of blocks, that no class or time reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.SiLU(), nn.Conv2d(5, 1, 1))
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.gain * self.layers(x_t)
        return found


NETWORKS = {
    "unet": lambda: UNet(1, 1, channels=8, multipliers=(1, 2), blocks=1, norm_groups=4, dropout=0.0),
    "checkpointed": lambda: UNet(
        1, 1, channels=8, multipliers=(1, 2), norm_groups=4, scale_shift=True, residual_resampling=True,
        num_classes=3, gradient_checkpointing=True, dropout=0.0,
    ),
    "dit": lambda: DiT(1, 1, num_classes=3, width=16, depth=2, heads=2),
    "layers": Layers,
}  # fmt: skip
"""Of our own, and one that nobody has prepared."""

OPTIMIZERS = {
    "adamw": partial(AdamW, lr=1e-2, weight_decay=0.1, eps=1e-3, fused=True),
    "sgd": partial(SGD, lr=1e-2, momentum=0.9, fused=True),
}


def assert_norms_alike(net: nn.Module, whole: nn.Module, gradients: torch.Tensor) -> None:
    """What diagnostics say of a network in parts is what they say of the whole one."""
    of, of_whole = list(net.parameters()), [parameter.detach() for parameter in whole.parameters()]
    found = read_norms({"parameter": torch._foreach_norm(parts(of))}, gradients, of)
    torch.testing.assert_close(torch.tensor(found["parameter"]), torch.stack(torch._foreach_norm(of_whole)))
    torch.testing.assert_close(torch.tensor(found["gradient"]), gradients)


def same_as_whole(network: str, optimizer: str) -> None:
    """Three steps with an average, by parts and by the whole; then what one saves the other goes on from."""
    rank, n = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    whole = NETWORKS[network]()
    for parameter in whole.parameters():
        nn.init.normal_(parameter, std=0.1)
    net = copy.deepcopy(whole)
    if rank:  # all begin as the first
        nn.init.zeros_(next(net.parameters()))
    average, wanted = EMA(net, decay=0.5), EMA(whole, decay=0.5)
    devices = init_device_mesh("cpu", (n, 1), mesh_dim_names=("data", "other"))["data"]
    begin_alike((*net.parameters(), *average.state_dict()["parameters"].values()), devices)
    shard(net, devices, "32-true")
    average.follow()
    steps, reference = (make_optimizer(OPTIMIZERS[optimizer], one.parameters()) for one in (net, whole))
    for step in range(4):
        if step == 2:  # as a checkpoint does
            state = passed_on(steps.state_dict())
            steps = make_optimizer(OPTIMIZERS[optimizer], net.parameters())
            steps.load_state_dict(optimizer_parts(state, steps))
            saved = passed_on(average.state_dict())
            average = EMA(net, decay=0.5)
            average.load_state_dict(saved)
        norm, each = backward(net, step, slice(rank, None, n))
        expected, expected_each = backward(whole, step, slice(None))
        torch.testing.assert_close(norm, expected)
        torch.testing.assert_close(each, expected_each)
        assert_norms_alike(net, whole, each)
        for one, of in ((net, norm), (whole, expected)):
            clip([p.grad for p in one.parameters()], of, *((0.01, "value") if step % 2 else (0.1, "norm")))
        for made in (steps, reference):
            made.step()
            made.zero_grad()
        average.update()
        wanted.update()
    assert_alike(net.state_dict(), whole.state_dict())
    assert_alike(average.state_dict(), wanted.state_dict())
    assert_alike(steps.state_dict()["state"], reference.state_dict()["state"])
    with average.swapped_in(), wanted.swapped_in(), torch.no_grad():
        torch.testing.assert_close(output(net, 9), output(whole, 9))
    assert_alike(net.state_dict(), whole.state_dict())
    held = [*net.parameters(), *average.state_dict()["parameters"].values()]
    held += [value for values in steps.state.values() for value in values.values() if value.ndim]
    most = sum(one.numel() for one in held) / n
    assert sum(one.numel() for one in parts(held)) <= most * 1.3 + 200  # of rows that do not part evenly


def passed_on(content: Any) -> Any:
    """What the first process gathers, on every one, as if it read it from a file."""
    found = [gathered(content, keep=dist.get_rank() == 0)]
    dist.broadcast_object_list(found)
    return found[0]


def assert_alike(sharded: Any, whole: Any) -> None:
    found = gathered(sharded, keep=dist.get_rank() == 0)
    if dist.get_rank() == 0:
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)


def output(network: nn.Module, seed: int, mine: slice = slice(None)) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    x_t = torch.randn(6, 1, 8, 8, generator=drawn)[mine]
    t = torch.randint(0, 100, (6,), generator=drawn)[mine]
    labels = (t % 3,) if getattr(network, "num_classes", None) else ()
    found: torch.Tensor = network(x_t, t, *labels)
    return found


def backward(network: nn.Module, seed: int, mine: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients by two micro-batches; their norms."""
    for micro_batch in range(2):
        (output(network, 10 * seed + micro_batch, mine).square().mean() / 2).backward()
    return norms([p.grad for p in network.parameters()])


def main() -> None:
    store, rank, world_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    dist.init_process_group("gloo", store=dist.FileStore(store, world_size), rank=rank, world_size=world_size)
    for network in NETWORKS:
        for optimizer in OPTIMIZERS:
            same_as_whole(network, optimizer)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
