"""Work in pieces that the ranks of a program take from one pile, each as it becomes free."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.distributed import PrefixStore, Store

from ddpm.errors import UsageError
from ddpm.random import BLOCK
from ddpm.runtime.pieces import Like, Pieces
from ddpm.runtime.progress import Countdown

log = logging.getLogger(__name__)

PAUSE = 0.1
"""Seconds between two looks for the pieces of others."""

UNSEEN = 60.0
"""Seconds in which a file that one machine has written is seen by every other."""

TOLD_EVERY = 1.0
"""Seconds between two words of a rank on how far it is."""

LEAST_ROUNDS = 4
"""Pieces for each of several ranks, as long as they have a block of random numbers each."""

Compute = Callable[[range, Callable[[], None]], Mapping[str, np.ndarray]]
"""(indices, called after each step) -> arrays whose first axis counts the indices."""


def size_of_a_piece(n: int, at_once: int, world_size: int) -> int:
    """How many of n indices a rank computes at once: equal pieces, each shape being compiled by itself, and
    some for each rank, so that a slow one does not keep the others waiting.

    Args:
        n: indices.
        at_once: that a device can take.
        world_size: ranks that share them.
    """
    rounds = math.ceil(n / (at_once * world_size))
    if world_size > 1:
        rounds = max(rounds, min(LEAST_ROUNDS, n // (BLOCK * world_size)))
    return math.ceil(n / (world_size * max(1, rounds)))


@dataclass
class Sharing:
    """How a program's work is shared by its ranks, and where it keeps what is done.

    All ranks go through the same works in the same order.

    Attributes:
        directory: for the pieces; one that all ranks see.
        rank: of this process.
        world_size: how many there are.
        store: that they all reach; None for a single one.
        in_step: whether no rank can compute without the others, as where each holds a part of the network:
            then all compute at the same time, and one that has no piece left repeats the last.
        progressed: called with whether this rank waits for others, whenever it gets further.
        works: that it has been through.
    """

    directory: Path
    rank: int = 0
    world_size: int = 1
    store: Store | None = None
    in_step: bool = False
    progressed: Callable[[bool], None] = lambda waits: None
    works: list[Pieces] = field(default_factory=list)

    @property
    def is_leader(self) -> bool:
        """Whether this rank speaks and writes for all."""
        return self.rank == 0

    def through(
        self,
        name: str,
        n: int,
        at_once: int,
        compute: Compute,
        *,
        title: str | None = None,
        steps: int = 1,
        like: Like | None = None,
    ) -> Pieces:
        """Compute the results for indices 0 ... n-1, those that an earlier start has not kept.

        Args:
            name: of this work in the program; a folder for its pieces.
            n: number of indices.
            at_once: indices that a device can take at once; see `size_of_a_piece`.
            compute: the results of a piece.
            title: what the progress is called.
            steps: how often `compute` says that it got further, for a piece.
            like: what the results of an index are like; a piece that is otherwise is computed again.

        Returns:
            All of them, on every rank, when every rank is through.

        Raises:
            ddpm.runtime.writing.WriteError: where a piece cannot be written.
            ddpm.errors.UsageError: where the directory is not one that all ranks see.
            ValueError: where a work before has this name.
        """
        pieces = Pieces(self.directory / name, n)
        if any(other.directory == pieces.directory for other in self.works):
            raise ValueError(f"{name}: another work of this program is called so")
        self.works.append(pieces)
        missing = self._agreed(name, pieces, like, size_of_a_piece(n, at_once, self.world_size))
        with _Progress(self, name, title or name, missing, n, steps) as progress:
            for indices, counts in self._taken(name, missing):
                arrays = compute(indices, progress.step)
                if counts:
                    pieces.keep(indices, arrays)
                    if self.store is not None:
                        self.store.add(f"{name}/kept", len(indices))
                progress.done()
            self._wait_for_all(name, pieces, _count(missing), progress)
        return pieces

    def missing(self, name: str, n: int) -> int:
        """How many of n results of a work no earlier start has kept; asked before any rank begins with it."""
        return n - _count(Pieces(self.directory / name, n).kept())

    def leaders(self, name: str, find: Callable[[], Any]) -> Any:
        """What the leader finds, on every rank: plain containers, numbers and text.

        Args:
            name: that nothing else is called by.
            find: called by the leader alone; the others wait for it.
        """
        if self.is_leader:
            found = find()
            if self.store is not None:
                self.store.set(name, json.dumps(found))
            return json.loads(json.dumps(found))
        assert self.store is not None
        while not self.store.check([name]):  # its other end may be reading what there is
            self.progressed(True)
            time.sleep(PAUSE)
        self.progressed(False)
        return json.loads(self.store.get(name))

    def of(self, name: str) -> "Sharing":
        """The same, for works whose names others may have given too."""
        store = None if self.store is None else PrefixStore(name, self.store)
        return replace(self, directory=self.directory / name, store=store)

    def apart(self, name: str, directory: Path) -> "Sharing":
        """One for a part of the program that ends by itself, before the others.

        Args:
            name: that nothing else is called by.
            directory: for its pieces.
        """
        store = None if self.store is None else PrefixStore(name, self.store)
        return replace(self, directory=directory, store=store, works=[])

    def _wait_for_all(self, name: str, pieces: Pieces, missing: int, progress: "_Progress") -> None:
        """Wait until the pieces of all ranks are there.

        Raises:
            UsageError: where they have written them, and this one does not see them.
        """
        unseen_since: float | None = None
        while (count := _count(pieces.kept())) < pieces.n:
            self.progressed(True)
            progress.look()
            written = missing if self.store is None else self.store.add(f"{name}/kept", 0)
            if written < missing:
                unseen_since = None
            elif unseen_since is None:
                unseen_since = time.monotonic()
            elif time.monotonic() - unseen_since > UNSEEN:
                raise UsageError(
                    f"{pieces.directory}: {pieces.n - count} of {pieces.n} results are not there, though all "
                    "have been written: the directory must be one that every machine sees, and nobody may "
                    "delete what is in it; name another one"
                )
            time.sleep(PAUSE)
        self.progressed(False)

    def end(self) -> None:
        """Leave the others when all works are through and what came of them is written: the leader, which
        keeps the store and deletes the pieces, as the last.
        """
        if self.store is not None:
            gone = self.store.add("gone", 1)
            while self.is_leader and gone < self.world_size:
                self.progressed(True)
                time.sleep(PAUSE)
                gone = self.store.add("gone", 0)
        if self.is_leader:
            for pieces in self.works:
                pieces.remove()
                for folder in (pieces.directory.parent, self.directory):
                    with suppress(OSError):
                        folder.rmdir()

    def _agreed(self, name: str, pieces: Pieces, like: Like | None, size: int) -> list[range]:
        """The pieces that are to be computed, the same on every rank: those that the leader found missing."""

        def found() -> list[tuple[int, int]]:
            if damaged := pieces.drop_damaged(like):
                log.warning("%s: damaged, computed again", ", ".join(damaged))
            return [(piece.start, piece.stop) for piece in pieces.missing(size)]

        return [range(*ends) for ends in self.leaders(f"{name}/missing", found)]

    def _taken(self, name: str, missing: list[range]) -> Iterator[tuple[range, bool]]:
        """The pieces that are this rank's, and whether their results count."""
        if self.in_step:
            for first in range(0, len(missing), self.world_size):
                own = first + self.rank
                yield missing[min(own, len(missing) - 1)], own < len(missing)
        elif self.store is None:
            yield from ((piece, True) for piece in missing)
        else:
            while (taken := self.store.add(f"{name}/taken", 1) - 1) < len(missing):
                yield missing[taken], True


class _Progress:
    """How far all ranks are: shown by the leader, told to it by the others."""

    def __init__(self, sharing: Sharing, name: str, title: str, missing: list[range], n: int, steps: int):
        self._sharing = sharing
        self._key = f"{name}/steps"
        self._made = 0  # steps, of all ranks, as far as is known here
        self._untold = 0
        self._told = time.monotonic()
        self._n = n
        self._here = n - _count(missing)
        rounds = math.ceil(len(missing) / sharing.world_size) * sharing.world_size
        total = steps * (rounds if sharing.in_step else len(missing))
        self._countdown = Countdown(title, total) if sharing.is_leader and total else None
        if self._here and sharing.is_leader:
            log.info("%d of %d are there from an earlier start", self._here, n)

    def __enter__(self) -> "_Progress":
        if self._countdown is not None:
            self._countdown.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._countdown is not None:
            self._countdown.__exit__()

    def step(self) -> None:
        """This rank has made a step."""
        self._untold += 1
        self._sharing.progressed(False)
        if self._sharing.store is None or time.monotonic() - self._told > TOLD_EVERY:
            self._tell()

    def done(self) -> None:
        """This rank has computed a piece."""
        self._tell()

    def look(self) -> None:
        """Show what the others have done meanwhile."""
        if time.monotonic() - self._told > TOLD_EVERY:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        untold, self._untold = self._untold, 0
        self._made += untold
        if (store := self._sharing.store) is not None:
            self._made = store.add(self._key, untold)
        if self._countdown is not None:
            self._countdown.advance(min(self._made, self._countdown.total))


def _count(pieces: list[range]) -> int:
    return sum(map(len, pieces))
