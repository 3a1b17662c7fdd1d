"""How large the parts of the network, their gradients and their steps are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from ddpm.runtime.progress import Pause
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.metrics import log_scalars
from ddpm.training.shards import are_shards, parts, sum_over_parts

MOST_OF_A_LIST = 8
"""Blocks that the members of one list are told apart as; of more, neighbours are one block."""


def blocks(network: nn.Module) -> dict[str, list[int]]:
    """The parameters of a network by its blocks, as indices into `network.parameters()`.

    A block is a child of the network, or a member of a child that is a list, such as `encoder.0`; of a list
    of more than eight members neighbours are together, `layers.00-03`. Parameters that are the network's own
    are `own`.
    """
    names = dict(_names(network))
    found: dict[str, list[int]] = {}
    for index, (name, _) in enumerate(network.named_parameters()):
        words = name.split(".")
        block = next((names[key] for n in (2, 1) if (key := ".".join(words[:n])) in names), "own")
        found.setdefault(block, []).append(index)
    return found


def _names(network: nn.Module) -> Iterator[tuple[str, str]]:
    """What each child, or member of a list of them, is called."""
    for name, child in network.named_children():
        if not isinstance(child, nn.ModuleList):
            yield name, name
            continue
        size, digits = math.ceil(len(child) / MOST_OF_A_LIST), len(str(len(child) - 1))
        for i in range(len(child)):
            first = i - i % size
            last = min(first + size, len(child)) - 1
            group = f"{first:0{digits}d}" + (f"-{last:0{digits}d}" if last > first else "")
            yield f"{name}.{i}", f"{name}.{group}"


class Diagnostics(EveryNSteps):
    """Logs every `every_n_steps`, of the step that was made last:

    - `diagnostics/gradient_norm/BLOCK` and `diagnostics/parameter_norm/BLOCK`, see `blocks`: of the gradients
      before they are clipped, and of the parameters after the step;
    - `diagnostics/update_ratio`: the norm of what the step has changed by that of the parameters;
    - `diagnostics/ema_distance`: the norm of the difference between averaged and own parameters by that of
      the latter; not where nothing is averaged.

    Nothing in training depends on it. The parameters are copied before such a step, when what the network
    has computed is let go of already; the host reads all norms at once. Those of a network whose processes
    hold a part each (strategy=fsdp) are of the whole. What is not finite is left out.

    Args:
        every_n_steps: optimizer steps from one look to the next.
    """

    def __init__(self, every_n_steps: int = 100):
        super().__init__(every_n_steps)
        self._copy: list[Tensor] | None = None  # of the parameters, before a step that is looked at
        self._blocks: dict[str, list[int]] = {}

    def pause(self, trainer: Trainer, module: LightningModule) -> Pause | None:
        return None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._blocks = blocks(pl_module.network)
        self._copy = None

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        if (trainer.global_step + 1) % self.every_n_steps == 0:
            self._copy = [part.clone() for part in parts(list(pl_module.network.parameters()))]

    @torch.no_grad()
    def on_step(self, trainer: Trainer, module: Any, step: int) -> None:
        copy, self._copy = self._copy, None
        if module.gradient_norms is None:
            return
        present, gradients = module.gradient_norms
        of = list(module.network.parameters())
        own = parts(of)
        measured = {"parameter": torch._foreach_norm(own)}
        if copy is not None:
            measured["update"] = torch._foreach_norm(torch._foreach_sub(copy, own))
        average = list(module.ema.state_dict().get("parameters", {}).values())
        if [one.shape for one in average] == [one.shape for one in of]:  # one of one's own may lack some
            measured["ema"] = torch._foreach_norm(torch._foreach_sub(parts(average), own))
        found = read_norms(measured, gradients, of)
        by_parameter = dict(zip(present, found.pop("gradient"), strict=True))
        found["gradient"] = [by_parameter.get(i, 0.0) for i in range(len(of))]
        log_scalars(trainer, {name: value for name, value in self._row(found) if math.isfinite(value)})

    def _row(self, norms: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, float]]:
        for block, indices in self._blocks.items():
            for what in ("gradient", "parameter"):
                yield f"diagnostics/{what}_norm/{block}", math.hypot(*(norms[what][i] for i in indices))
        whole = math.hypot(*norms["parameter"])
        for what, name in (("update", "update_ratio"), ("ema", "ema_distance")):
            if what in norms and whole > 0:
                yield f"diagnostics/{name}", math.hypot(*norms[what]) / whole


def read_norms(
    measured: Mapping[str, Sequence[Tensor]], gradients: Tensor, of: Sequence[Tensor]
) -> dict[str, list[float]]:
    """The norms on the host, which waits once.

    Args:
        measured: norms of the parts of the parameters that this process holds, by what they are of.
        gradients: norms [n] of whole gradients.
        of: the parameters. Where they are parted every process must call it.
    """
    stacked = torch.stack([norm for norms in measured.values() for norm in norms])
    if are_shards(of):
        stacked = sum_over_parts(stacked.double().square(), of).sqrt().float()
    numbers = iter(torch.cat([stacked, gradients]).tolist())
    counts = {**{name: len(norms) for name, norms in measured.items()}, "gradient": len(gradients)}
    return {name: list(islice(numbers, count)) for name, count in counts.items()}
