"""Work shared by ranks: each piece once, as each rank becomes free, and all of it on all of them."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch.distributed import HashStore

from ddpm.errors import UsageError
from ddpm.runtime import sharing as sharing_module
from ddpm.runtime.pieces import Pieces
from ddpm.runtime.sharing import Sharing, size_of_a_piece


def shared(
    directory: Path,
    world_size: int,
    n: int,
    at_once: int,
    *,
    in_step: bool = False,
    slow: Callable[[int], float] = lambda rank: 0.0,
) -> tuple[list[Pieces], dict[int, list[range]]]:
    """What each rank gets, and which pieces it computed; ranks are threads here."""
    store = HashStore() if world_size > 1 else None
    taken: dict[int, list[range]] = {rank: [] for rank in range(world_size)}
    got: dict[int, np.ndarray] = {}
    failed: list[BaseException] = []

    def work(rank: int) -> None:
        def compute(indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
            taken[rank].append(indices)
            time.sleep(slow(rank))
            on_step()
            return {"square": np.arange(indices.start, indices.stop) ** 2}

        try:
            sharing = Sharing(directory, rank, world_size, store, in_step)
            pieces = sharing.through("squares", n, at_once, compute)
            got[rank] = pieces.together()["square"]
            sharing.end()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert len(got) == world_size
    return [got[rank] for rank in range(world_size)], taken


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_rank_gets_all_of_it_and_each_piece_is_computed_once(world_size: int, tmp_path: Path):
    got, taken = shared(tmp_path / "pieces", world_size, 100, 7)
    for squares in got:
        assert np.array_equal(squares, np.arange(100) ** 2)
    computed = Counter(i for pieces in taken.values() for piece in pieces for i in piece)
    assert computed == Counter(range(100))
    assert not (tmp_path / "pieces").exists()  # what it was kept for is done


def test_a_slow_rank_does_not_hold_the_others(tmp_path: Path):
    _, taken = shared(tmp_path, 3, 96, 4, slow=lambda rank: 0.3 if rank == 1 else 0.005)
    assert len(taken[1]) <= 3
    assert sum(map(len, taken.values())) == 24


def test_ranks_that_need_each_other_compute_as_often(tmp_path: Path):
    got, taken = shared(tmp_path, 3, 100, 16, in_step=True)
    assert len({len(pieces) for pieces in taken.values()}) == 1
    for squares in got:
        assert np.array_equal(squares, np.arange(100) ** 2)


def test_what_is_there_is_not_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    kept = Pieces(tmp_path / "squares", 100)
    for piece in kept.missing(10)[::2]:
        kept.keep(piece, {"square": np.arange(piece.start, piece.stop) ** 2})
    got, taken = shared(tmp_path, 2, 100, 10)
    assert np.array_equal(got[0], np.arange(100) ** 2)
    computed = {i for pieces in taken.values() for piece in pieces for i in piece}
    assert computed == {i for i in range(100) if i // 10 % 2}
    assert "50 of 100 are there from an earlier start" in caplog.text


def test_pieces_that_are_written_and_not_seen_end_the_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As where each machine has a directory of its own of that name, or somebody deletes them."""
    monkeypatch.setattr(sharing_module, "UNSEEN", 0.3)
    monkeypatch.setattr(Pieces, "keep", lambda *_: None)
    with pytest.raises(UsageError, match="10 of 10 results are not there"):
        Sharing(tmp_path).through(
            "squares", 10, 4, lambda indices, on_step: {"square": np.zeros(len(indices))}
        )


def test_two_works_of_one_name_are_kept_apart_or_refused(tmp_path: Path):
    sharing = Sharing(tmp_path / "pieces")

    def compute(indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
        return {"number": np.arange(indices.start, indices.stop)}

    for name, n in (("first", 4), ("second", 7)):
        assert len(sharing.of(name).through("nll", n, 2, compute).together()["number"]) == n
    with pytest.raises(ValueError, match="another work"):
        sharing.of("first").through("nll", 9, 2, compute)
    sharing.end()
    assert not (tmp_path / "pieces").exists()


@pytest.mark.parametrize("n", [1, 5, 16, 63, 64, 2000, 50_000])
@pytest.mark.parametrize("at_once", [1, 7, 256])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_pieces_fit_a_device_and_there_are_some_for_each(n: int, at_once: int, world_size: int):
    size = size_of_a_piece(n, at_once, world_size)
    assert 1 <= size <= at_once
    assert size_of_a_piece(n, size, world_size) == size
    if n >= 4 * 16 * world_size and world_size > 1:
        assert -(-n // size) >= 4 * world_size - 3 or size <= 16 or at_once < size


def test_what_the_leader_finds_is_on_every_rank(tmp_path: Path):
    store, found = HashStore(), {}
    waited: list[bool] = []

    def find() -> list[object]:
        time.sleep(0.15)
        return [1, "two", None, {"three": 0.1}]

    def work(rank: int) -> None:
        progressed = waited.append if rank else lambda waits: None
        sharing = Sharing(tmp_path, rank, 3, store, progressed=progressed)
        asked = find if sharing.is_leader else pytest.fail
        found[rank] = [sharing.leaders("one", asked), sharing.of("metric").leaders("one", asked)]

    ranks = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(3)]
    for rank in reversed(ranks):  # the leader comes last
        rank.start()
    for rank in ranks:
        rank.join(30)
    assert [found[rank] for rank in range(3)] == [[find()] * 2] * 3
    assert True in waited
    assert not waited[-1]


def test_alone_the_leader_finds_what_others_would_be_told(tmp_path: Path):
    assert Sharing(tmp_path).leaders("one", lambda: (1, 2)) == [1, 2]


def test_how_many_results_are_missing(tmp_path: Path):
    sharing = Sharing(tmp_path)
    assert sharing.missing("squares", 9) == 9
    Pieces(tmp_path / "squares", 9).keep(range(4, 7), {"square": np.arange(3)})
    assert sharing.missing("squares", 9) == 6
