"""The ranks that torchrun starts again meet anew, and not those that are dead.

torchrun keeps one store for all attempts of a job. In it torch's ranks find the addresses of each other, and
those of the attempt before: a rank that is started again connects to one that is gone, and fails or waits for
ever.
"""

import json
import os
import secrets
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.distributed import PrefixStore, Store, TCPStore

PAUSE = 0.05
"""Seconds between two looks into the store."""


def meet_anew(trainer: Trainer) -> None:
    """Make the process group of ranks that torchrun has started, with keys that no attempt before has used.

    Elsewhere there is nothing to do: Lightning makes it.

    Raises:
        TimeoutError: where a rank does not come within the strategy's timeout.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True) or trainer.world_size == 1:
        return
    strategy: Any = trainer.strategy
    timeout: timedelta = getattr(strategy, "_timeout", timedelta(minutes=30))
    device = strategy.root_device
    store = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout
    )
    attempt = agreed(store, trainer.global_rank, trainer.world_size, timeout.total_seconds())
    torch.distributed.init_process_group(
        strategy.process_group_backend or torch.distributed.get_default_backend_for_device(device),
        store=PrefixStore(f"ddpm/{attempt}", store),
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        timeout=timeout,
        device_id=device if device.type != "cpu" else None,
    )


def agreed(store: Store, rank: int, world_size: int, seconds: float) -> str:
    """A name for this attempt, the same on all of its ranks and new.

    Each rank says that it is here, by a word of its own. Rank 0 lists the words that it sees; who finds his
    own in the list knows that it is of this attempt.

    Args:
        store: that all ranks share, with whatever earlier attempts have left in it.
        rank: of this process.
        world_size: of the run.
        seconds: to wait.

    Raises:
        TimeoutError: where they are over.
    """
    own, until = secrets.token_hex(8), time.monotonic() + seconds
    store.set(f"ddpm/here/{rank}", own)
    while time.monotonic() < until:
        if rank == 0:
            here = {one: _read(store, f"ddpm/here/{one}") for one in range(world_size)}
            store.set("ddpm/attempt", json.dumps({"name": own, "here": here}))
            if store.check([f"ddpm/{own}/{word}" for one, word in here.items() if one != 0]):
                return own
        else:
            found: Mapping[str, Any] = json.loads(_read(store, "ddpm/attempt") or "{}")
            if found and found["here"].get(str(rank)) == own:
                name = str(found["name"])
                store.set(f"ddpm/{name}/{own}", "seen")
                return name
        time.sleep(PAUSE)
    raise TimeoutError(f"not all {world_size} ranks have come within {seconds:g} s")


def _read(store: Store, key: str) -> str | None:
    """What is under a key, if anything."""
    return store.get(key).decode() if store.check([key]) else None
