"""What the ranks of a run tell each other beside the collectives that train: a star around rank 0."""

import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ddpm.runtime.peers.lines import Line
from ddpm.runtime.peers.meeting import Search, open_port
from ddpm.runtime.peers.states import Seen, State, behind, copied, listed, missing, read, told
from ddpm.runtime.processes import host, place, start_of
from ddpm.runtime.progress import duration
from ddpm.runtime.signals import ENDING

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two words of a rank."""

WORTH_A_WORD = 10.0
"""Seconds of start-up after which it is said who is missing."""

LONGEST_UNSAID = 30.0
"""Seconds that ranks may be behind without a word about it; a tenth of the timeout if that is less."""

LEAST_PATIENCE = 5.0
"""Seconds: what a busy machine may take for nothing."""


@dataclass(frozen=True)
class Failure:
    """Why a run of several ranks cannot go on.

    Attributes:
        text: in one line, with the rank and its machine.
        ranks: whose fault it is.
        stopped: whether these may still be there, and have to be ended.
        raised: whether they say and record it themselves.
        grace: seconds in which whoever can end by itself may do so.
    """

    text: str
    ranks: tuple[int, ...] = ()
    stopped: bool = False
    raised: bool = False
    grace: float = 5.0


class Peers:
    """The ranks of a run as one of them sees them. All of it happens in a thread, whatever the main one does.

    Each rank says every second how far it is. The leader, rank 0, hears all; the others hear the leader. What
    one receives or dies of goes to all: a signal, the first failure. A rank that says nothing, or that keeps
    the others waiting, for as long as the timeout is such a failure.

    Args:
        rank: of this process.
        world_size: of the run.
        timeout: seconds.
        on_signal: called with the number of a signal that another rank has received.
        on_failure: called with the first failure.
        on_text: of the leader, called with the number of another rank and what it has said.
        on_tick: of the leader, called about once a second.
        children: exit codes by rank of those processes that the leader has started; None while one lives.
        parent: the process that started this one and without which it is nothing, or None.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        timeout: float,
        *,
        on_signal: Callable[[int], None],
        on_failure: Callable[[Failure], None],
        on_text: Callable[[int, str], None] = lambda _rank, _text: None,
        on_tick: Callable[[], None] = lambda: None,
        children: Callable[[], Mapping[int, int | None]] = dict,
        parent: int | None = None,
    ):
        self.rank = rank
        self.world_size = world_size
        self.timeout = timeout
        self.failure: Failure | None = None
        self.signum = 0  # that ends the run
        self.state = State(rank, host(), os.getpid(), place(), start_of(os.getpid()))
        self.seen: dict[int, tuple[State, float]] = {}  # with the time; of others than the leader: it alone
        self._progressed = time.monotonic()
        self._on_signal = on_signal
        self._on_failure = on_failure
        self._on_text = on_text
        self._on_tick = on_tick
        self._children = children
        self._parent = parent
        self._left: set[int] = set()
        self._lost: dict[int, float] = {}
        self._turn = 0
        self._changed = threading.Condition()
        self._outbox: deque[dict[str, Any]] = deque()
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._leaving: float | None = None
        self._thread: threading.Thread | None = None
        self._warned = 0.0

    # Of the main thread

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    def begin(self, address: str, port: int, *, on_this_machine: bool) -> None:
        """Begin to speak and to listen; does not wait for anyone.

        Args:
            address, port: where torch's ranks meet.
            on_this_machine: whether all ranks are.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._wake = ours, theirs
        if self.is_leader:
            opened = open_port(address, port, on_this_machine=on_this_machine)
            body = partial(self._lead, *opened)
        else:
            search = Search(address, port, on_this_machine=on_this_machine)
            body = partial(self._follow, search)
        self._began = time.monotonic()
        self._thread = threading.Thread(target=body, name="peers", daemon=True)
        self._thread.start()

    def progress(
        self,
        *,
        phase: str | None = None,
        step: int | None = None,
        within: tuple[int, int] | None = None,
        waiting: bool | None = None,
    ) -> None:
        """This rank has got further."""
        state = self.state
        if phase is not None:
            state.phase = phase
        if step is not None:
            state.step = step
        if within is not None:
            state.within = list(within)
        if waiting is not None:
            state.waiting = waiting
        self._progressed = time.monotonic()

    def tell_signal(self, signum: int) -> None:
        """This process is asked to end; so are all."""
        self.signum = self.signum or signum
        self._tell(signal=signum)

    def fail(self, failure: Failure) -> None:
        """The run cannot go on; what was first is the reason for all."""
        if self.is_leader:
            self._failed(failure)
        else:
            self._tell(failure=asdict(failure))

    def say(self, text: str) -> None:
        """Of another rank: have the leader say this."""
        self._tell(text=text)

    def announce(self, turn: int) -> None:
        """Of the leader: what it did alone for the `turn`-th time is done."""
        self._tell(turn=turn)

    def wait(self, turn: int) -> bool:
        """Of another rank: until the leader has announced this turn; False where the run failed before."""
        with self._changed:
            while self._turn < turn and self.failure is None:
                self._changed.wait(timeout=1.0)
            return self.failure is None

    def leave(self, seconds: float) -> None:
        """Say that this rank goes, and let what is to be said be said; the leader stays for the others as
        long.
        """
        if self._thread is None:
            return
        self._leaving = time.monotonic() + seconds
        self._tell()
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds + EVERY)

    def _tell(self, **message: Any) -> None:
        if message:
            self._outbox.append(message)
        if self._wake is not None:
            with suppress(OSError):
                self._wake[1].send(b"x")

    # Of the thread

    def _now(self) -> State:
        return copied(self.state, time.monotonic() - self._progressed)

    def _signalled(self, signum: int) -> None:
        if not self.signum:
            self.signum = signum
            self._on_signal(signum)

    def _failed(self, failure: Failure) -> None:
        with self._changed:
            if self.failure is not None:
                return
            self.failure = failure
            self._changed.notify_all()
        self._tell(failure=asdict(failure))
        self._on_failure(failure)

    def _ranks(self) -> list[Seen]:
        """The last of every rank that has not left, this one included."""
        now = time.monotonic()
        theirs = [Seen(state, now - at) for rank, (state, at) in self.seen.items() if rank not in self._left]
        return [Seen(self._now(), 0.0), *theirs]

    @property
    def _patience(self) -> float:
        return max(LEAST_PATIENCE, 0.9 * self.timeout)  # before the collectives, whose words name nobody

    def _judge(self) -> None:
        """Whether somebody keeps the others waiting for too long, or so long that it is said."""
        if self.failure is not None or self._leaving is not None:
            return
        ranks = self._ranks()
        if culprits := behind(ranks, self._patience):
            who = tuple(seen.state.rank for seen in culprits)
            self._failed(Failure(f"{told(culprits)}; timeout={self.timeout:g}", who, stopped=True))
            return
        unsaid = max(LEAST_PATIENCE, min(LONGEST_UNSAID, self.timeout / 10))
        slow = behind(ranks, max(unsaid, 2 * self._warned))
        if slow:
            self._warned = max(seen.idle for seen in slow)
            log.log(logging.WARNING if self.is_leader else logging.ERROR, "%s", told(slow))
        elif not behind(ranks, unsaid):
            self._warned = 0.0

    # The leader

    def _lead(self, listening: socket.socket, word: str, store: Any) -> None:
        assert self._wake is not None
        lines: dict[Line, int | None] = {}
        select = selectors.DefaultSelector()
        select.register(listening, selectors.EVENT_READ)
        select.register(self._wake[0], selectors.EVENT_READ)
        tick, said_missing = 0.0, False
        while True:
            for key, _ in select.select(timeout=max(0.0, min(EVERY, tick - time.monotonic()))):
                if key.fileobj is listening:
                    with suppress(OSError):
                        line = Line(listening.accept()[0])
                        lines[line] = None
                        select.register(line, selectors.EVENT_READ, line)
                elif isinstance(key.data, Line):
                    self._heard(key.data, lines, word)
                else:
                    _drain(self._wake[0])
            while self._outbox:
                message = self._outbox.popleft()
                for line, rank in lines.items():
                    if rank is not None:
                        line.send(**message)
            for line in [line for line in lines if not line.is_open]:
                select.unregister(line)
                rank = lines.pop(line)
                line.close()
                if rank is not None and rank not in self._left:
                    self._lost.setdefault(rank, time.monotonic())
            now = time.monotonic()
            if self._leaving is not None:
                is_awaited = any(rank is not None for rank in lines.values())
                if self.failure is not None:  # those that come yet would wait for a leader in vain
                    is_awaited |= len(self.seen) < self.world_size - 1
                if not is_awaited or now > self._leaving:
                    break
            if now >= tick:
                tick = now + EVERY
                state = asdict(self._now())
                for line, rank in lines.items():
                    if rank is not None:
                        line.send(state=state, left=self._leaving is not None)
                self._on_tick()
                self._look_for_lost()
                self._judge()
                if self._leaving is None:
                    said_missing = self._look_for_missing(said_missing)
        for line in lines:
            line.close()
        listening.close()
        select.close()

    def _heard(self, line: Line, lines: dict[Line, int | None], word: str) -> None:
        """What a rank has said."""
        for message in line.receive():
            if lines[line] is None:
                rank = message.get("rank")
                known = message.get("word") == word and isinstance(rank, int) and 0 < rank < self.world_size
                if not known:
                    line.is_open = False
                    return
                lines[line] = rank
                if self.signum:
                    line.send(signal=self.signum)
                if self.failure is not None:
                    line.send(failure=asdict(self.failure))
                line.send(state=asdict(self._now()), turn=self._turn)
            rank = lines[line]
            assert rank is not None
            self._take(message, rank)
            if isinstance(text := message.get("text"), str):
                self._on_text(rank, text)
            if message.get("left"):
                self._left.add(rank)
            if isinstance(signum := message.get("signal"), int) and signum != self.signum:
                self._signalled(signum)
                self._tell(signal=signum)

    def _take(self, message: Mapping[str, Any], rank: int) -> None:
        """What any rank may say."""
        if "state" in message:
            with suppress(ValueError):
                self.seen[rank] = read(message["state"]), time.monotonic()
        if isinstance(told_failure := message.get("failure"), Mapping):
            with suppress(TypeError, ValueError):
                self._failed(Failure(**{**told_failure, "ranks": tuple(told_failure["ranks"])}))

    def _look_for_lost(self) -> None:
        """Ranks whose process is gone without having said that it goes."""
        now = time.monotonic()
        codes = self._children()
        for rank, code in codes.items():
            if code is not None and rank not in self._left:
                self._lost.setdefault(rank, now)
        for rank, since in list(self._lost.items()):
            code = codes.get(rank)
            if rank in codes and code is None and now - since < 2 * EVERY:
                continue  # it is ending: its exit code tells more
            del self._lost[rank]
            self._left.add(rank)
            if code is not None and (signum := -code if code < 0 else code - 128) in ENDING:
                self._signalled(signum)
                self._tell(signal=signum)
                continue
            name = self.seen[rank][0].name if rank in self.seen else f"rank {rank}"
            at = self.seen[rank][0].at if rank in self.seen else " before it joined"
            how = "" if code is None else f" ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
            self._failed(Failure(f"{name} is gone{how}{at}", (rank,)))

    def _look_for_missing(self, said: bool) -> bool:
        """Say once whom the start waits for; give up after the timeout."""
        waited = time.monotonic() - self._began
        absent = missing({**self.seen, 0: None}, self.world_size)
        if not absent or waited < WORTH_A_WORD:
            return said
        if waited > max(self.timeout, WORTH_A_WORD):
            one = len(absent) == 1
            text = f"{listed(absent)} {'has' if one else 'have'} not joined within {duration(waited)}"
            self._failed(Failure(f"{text}; timeout={self.timeout:g}", tuple(absent)))
        elif not said:
            log.info("waiting for %s of %d to join", listed(absent), self.world_size)
        return True

    # The others

    def _follow(self, search: Search) -> None:
        assert self._wake is not None
        line = self._joined(search)
        if line is None:
            return
        select = selectors.DefaultSelector()
        select.register(line, selectors.EVENT_READ)
        select.register(self._wake[0], selectors.EVENT_READ)
        tick = 0.0
        self.seen[0] = State(0), time.monotonic()
        while line.is_open:
            for key, _ in select.select(timeout=max(0.0, min(EVERY, tick - time.monotonic()))):
                if key.fileobj is not line:
                    _drain(self._wake[0])
                    continue
                for message in line.receive():
                    self._take(message, 0)
                    if message.get("left"):
                        self._left.add(0)
                    if isinstance(signum := message.get("signal"), int):
                        self._signalled(signum)
                    if isinstance(turn := message.get("turn"), int):
                        with self._changed:
                            self._turn = max(turn, self._turn)
                            self._changed.notify_all()
            while self._outbox:
                line.send(**self._outbox.popleft())
            now = time.monotonic()
            if self._leaving is not None:
                line.send(left=True)
                break
            if now >= tick:
                tick = now + EVERY
                line.send(state=asdict(self._now()))
                self._judge_leader()
        select.close()
        gone = not line.is_open
        line.close()
        if gone and self._leaving is None:
            self._without_leader()

    def _joined(self, search: Search) -> Line | None:
        """The line to the leader; None where this process ends before there is one."""
        began, said = time.monotonic(), False
        while self._leaving is None and self.failure is None:
            if found := search.try_once():
                line = Line(found[0])
                line.send(rank=self.rank, word=found[1], state=asdict(self._now()))
                return line
            self._look_for_parent()
            waited = time.monotonic() - began
            if waited > max(self.timeout, WORTH_A_WORD):
                where = f"{search.address}:{search.port}"
                text = f"rank 0 has not been there within {duration(waited)}, at {where}"
                self._failed(Failure(f"{text}; timeout={self.timeout:g}", (0,)))
            elif waited > WORTH_A_WORD and not said and speaks_for_others(self.rank):
                said = True
                log.error("waiting for rank 0 at %s:%d", search.address, search.port)
            time.sleep(0.1)
        return None

    def _judge_leader(self) -> None:
        """A leader that says nothing cannot say so."""
        if self.failure is not None or 0 in self._left:
            return
        self._look_for_parent()
        state, at = self.seen[0]
        seen = Seen(state, time.monotonic() - at)
        if culprits := behind([seen], self._patience) if seen.is_silent else []:
            self._failed(Failure(f"{told(culprits)}; timeout={self.timeout:g}", (0,), stopped=True))
        elif seen.is_silent and self.rank == 1 and seen.ago > max(LEAST_PATIENCE, 2 * self._warned):
            self._warned = seen.ago
            log.error("%s", seen)

    def _look_for_parent(self) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            self._without_leader()

    def _without_leader(self) -> None:
        """Its end of the line is gone. Where it said that it goes, this rank has a moment to go as well."""
        if 0 in self._left:
            self._failed(Failure("rank 0 has ended", (0,), grace=60.0))
            return
        state = self.seen[0][0] if 0 in self.seen else State(0)
        name = state.name if state.pid else "rank 0"
        self._failed(Failure(f"{name} is gone{state.at}", (0,)))


def speaks_for_others(rank: int) -> bool:
    """Whether this rank says what those beside it see as well: one on each machine."""
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    return rank == 1 or local == "0"


def _drain(wake: socket.socket) -> None:
    with suppress(BlockingIOError):
        while wake.recv(256):
            pass
