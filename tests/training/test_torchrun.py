"""Ranks of one attempt agree on a name that no attempt before has had, whatever those left."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from ddpm.training import torchrun
from ddpm.training.torchrun import agreed


def attempt(
    store: HashStore, world_size: int, delays: list[float], *, present: int | None = None
) -> list[str]:
    def rank(number: int) -> str:
        time.sleep(delays[number])
        return agreed(store, number, world_size, 0.5 if present is not None else 60)

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(rank, range(present if present is not None else world_size)))


def test_each_attempt_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torchrun, "PAUSE", 0.001)
    random.seed(0)
    store, names = HashStore(), []
    for _ in range(30):
        found = attempt(store, 4, [random.choice((0.0, 0.003, 0.02)) for _ in range(4)])
        assert len(set(found)) == 1
        names.append(found[0])
    assert len(set(names)) == 30


@pytest.mark.parametrize("present", [1, 3])
def test_an_attempt_that_not_all_ranks_came_to_disturbs_no_later_one(present: int):
    store = HashStore()
    attempt(store, 4, [0.0] * 4)
    with pytest.raises(TimeoutError, match="not all 4 ranks have come"):
        attempt(store, 4, [0.0] * 4, present=present)
    assert len(set(attempt(store, 4, [0.0, 0.1, 0.0, 0.2]))) == 1
