"""All ranks run the same, or nothing at all."""

import platform
from collections.abc import Callable, Mapping, Sequence

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.training.ending import TrainingError

NAMED = 6
"""Differences that a message names."""


class NotOneRunError(TrainingError):
    """The ranks were started as different runs."""

    exit_code = 2


class SameRun(Callback):
    """Has the ranks compare what they are about to run, before they share anything.

    Machines of a cluster may have another checkout, another environment, other files; what they would train
    together is no run, and often a hang.

    Args:
        identity: what makes the run, as text by name; called where there are several ranks.
    """

    def __init__(self, identity: Callable[[], Mapping[str, str]]):
        self.identity = identity

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            compare(trainer.world_size, self.identity())


def compare(world_size: int, identity: Mapping[str, str]) -> None:
    """Have all ranks compare what they are about to do. Each must call it.

    Args:
        world_size: how many they are.
        identity: what makes it, as text by name.

    Raises:
        NotOneRunError: on every rank, where one is not like the first.
    """
    everyone: list[tuple[str, Mapping[str, str]]] = [("", {})] * world_size
    torch.distributed.all_gather_object(everyone, (platform.node(), dict(identity)))
    if (said := difference(everyone)) is not None:
        raise NotOneRunError(said)


def difference(everyone: Sequence[tuple[str, Mapping[str, str]]]) -> str | None:
    """Where the first rank that is not like rank 0 differs from it, in words; None where all are alike.

    Args:
        everyone: machine and identity, by rank.
    """
    _, first = everyone[0]
    for rank, (host, own) in enumerate(everyone):
        names = [name for name in {**first, **own} if own.get(name) != first.get(name)]
        if names:
            said = [f"{name} is {own.get(name)} there and {first.get(name)} on rank 0" for name in names]
            more = f" and {len(said) - NAMED} more" if len(said) > NAMED else ""
            return (
                f"rank {rank} on {host} runs something else: {', '.join(said[:NAMED])}{more}; start all "
                "ranks by the same command, with the same code, environment and images"
            )
    return None
