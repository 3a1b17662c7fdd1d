"""What ends a run from outside its training: signals, and ranks that die, hang or raise."""

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import Trainer

from ddpm.app import terminal
from ddpm.app.left_run import RECORD, read_record
from ddpm.app.requeue import requeue
from ddpm.app.run_directory import Place, is_leader
from ddpm.runtime import processes, writing
from ddpm.runtime.peers import Failure, Peers, speaks_for_others
from ddpm.runtime.signals import Signals
from ddpm.training.callbacks.interruption import Interruption
from ddpm.training.ending import Ending, Interrupted, Pruned, TrainingError
from ddpm.training.launching import answer_for_ranks, children, kill_children, parent

log = logging.getLogger(__name__)

CONSEQUENCE = re.compile(r"gloo|nccl|connection|socket|process group|timed? ?out|peer", re.IGNORECASE)
"""In the words of a collective whose other side is gone."""

FOR_THE_CAUSE = 6.0
"""Seconds in which the rank that failed first is heard of."""

BEHIND_A_SIGNAL = 3.0
"""The same where a signal may be all that there is to it."""

TO_THE_END = 40.0
"""Seconds for an orderly end after a failure: the record, the loggers."""

TO_SAY_IT = 5.0
"""Seconds for the last words of a process that ends at once: whoever reads them may be stopped."""

Record = Callable[[Ending], None]


class TakenPortError(TrainingError):
    """The port at which the ranks were to meet is somebody else's."""

    exit_code = 2


class Watch:
    """Watches over one process of a run, from the check of the command line to its end.

    Until a step is made nothing is lost by ending at once. Then a signal is for the loops of training to see,
    which save first: `Interruption`. What no loop can see, because it waits for a rank that will never come,
    ends the process from here.

    Args:
        place: of the run.
        timeout: seconds that a rank waits for the others.
        requeues: whether a job of SLURM is queued again where a signal ends it.
    """

    def __init__(self, place: Place, timeout: float, *, requeues: bool = False):
        self.directory = place.directory
        self._lock = place.lock
        self.timeout = timeout
        self.requeues = requeues
        self.doing = "training"  # what a failure is said to be one of
        self.signals = Signals(self._first_signal, self._end_by_signal)
        self.callback = Interruption(self.signals)
        self.peers: Peers | None = None
        self.record: Record | None = None
        self._trainer: Trainer | None = None
        self._parent = parent()
        self._is_leader = is_leader()
        self._came_out = False  # the main thread has seen why it ends
        self._ends = threading.Lock()

    def begin(self) -> None:
        """Hear signals from now on, in the main thread; begin to watch the process that started this one."""
        self.signals.listen()
        if self._parent is not None:
            threading.Thread(target=self._watch_parent, name="parent", daemon=True).start()

    def meet(self, trainer: Trainer) -> None:
        """Begin to watch the other ranks of a trainer, and to be watched."""
        self._trainer = trainer
        self._is_leader = trainer.is_global_zero
        if trainer.world_size == 1:
            return
        answer_for_ranks(trainer)
        peers = Peers(
            trainer.global_rank,
            trainer.world_size,
            self.timeout,
            on_signal=self._told_of_signal,
            on_failure=self._failed,
            on_text=terminal.from_ranks.hear,
            on_tick=terminal.from_ranks.say,
            children=lambda: children(trainer),
            parent=self._parent,
        )
        environment: Any = getattr(trainer.strategy, "cluster_environment", None)
        if environment is None:
            return
        address, port = environment.main_address, environment.main_port
        try:
            peers.begin(address, port, on_this_machine=trainer.num_nodes == 1)
        except torch.distributed.DistError as error:
            raise TakenPortError(
                f"MASTER_PORT={port}: cannot be listened at on {address} ({_first_line(error)}); another "
                "process has it, or the address is not this machine's; give another MASTER_PORT"
            ) from error
        self.peers = self.callback.peers = peers
        if not peers.is_leader:
            terminal.to_leader.tell(peers.say)

    # Of the main thread, when training is over

    def cause(self, error: Exception) -> Exception:
        """Why a training has ended that raised this: what another rank failed of, where this follows from
        it. What is not said to the others, they could only guess.
        """
        peers = self.peers
        if peers is None or isinstance(error, Interrupted | Pruned):
            return error
        follows = isinstance(error, torch.distributed.DistError) or (
            isinstance(error, RuntimeError)
            and not isinstance(error, TrainingError)
            and CONSEQUENCE.search(str(error)) is not None
        )
        began = time.monotonic()
        while follows and peers.failure is None:
            # torchrun sends SIGTERM to the ranks that are left where one has died
            if time.monotonic() - began > (BEHIND_A_SIGNAL if peers.signum else FOR_THE_CAUSE):
                break
            time.sleep(0.05)
        self._came_out = True
        if peers.failure is not None:
            return error if str(error) == peers.failure.text else TrainingError(peers.failure.text)
        if follows and peers.signum:  # a rank had nothing to lose, and has ended at once
            return Interrupted(peers.signum)
        why = str(error) if isinstance(error, TrainingError) else f"{peers.state.name}: {_first_line(error)}"
        peers.fail(Failure(why, (peers.rank,), raised=True))
        return error

    def is_over(self) -> None:
        """Training is: what comes yet (the record, what a logger sends) takes as long as it takes."""
        if self.peers is not None:
            self.peers.progress(phase="ending", waiting=True)

    def named(self, ended: Ending) -> Ending:
        """With the rank and its machine, where one of several has failed of something."""
        if self.peers is None or ended.status != "failed":
            return ended
        failure = self.peers.failure
        return ended if failure is None else Ending(ended.status, ended.exit_code, failure.text)

    def queued_again(self, ended: Ending) -> str | None:
        """Have the job queued again where that is asked for; what came of it. Once all is saved."""
        if not self.requeues or ended.status != "interrupted" or not self._is_leader:
            return None
        return requeue(ended.exit_code - 128)

    def close(self, ended: Ending | None = None) -> None:
        """Leave the others in an orderly way, and let nothing behind."""
        self._came_out = True
        if self.peers is not None:
            failure = self.peers.failure
            if ended is not None and failure is not None and self._inherits(failure):
                self._last_words(ended, speaks=False, inherits=True)
            self.peers.leave(10.0 if ended is None or ended.status == "failed" else 30.0)
            terminal.from_ranks.say(all_of_it=True)
            if ended is not None and ended.status != "finished" and self._trainer is not None:
                self._wait_for_children(5.0)
        self.signals.close()

    def _wait_for_children(self, seconds: float) -> None:
        assert self._trainer is not None
        until = time.monotonic() + seconds
        while None in children(self._trainer).values() and time.monotonic() < until:
            time.sleep(0.05)
        kill_children(self._trainer)

    # Of other threads

    def _first_signal(self, signum: int) -> None:
        if self.peers is not None:
            self.peers.tell_signal(signum)
        self._react(signum)

    def _told_of_signal(self, signum: int) -> None:
        self.signals.received = self.signals.received or signum
        self._react(signum)

    def _react(self, signum: int) -> None:
        name = _name(signum)
        if not self.callback.has_begun:
            self._end_by_signal(signum)
        if self._is_leader:
            log.warning("%s: saving and ending; once more to end at once", name)

    def _end_by_signal(self, signum: int) -> None:
        """Nothing is to be saved, or nobody wants to wait for it."""
        if self.peers is not None and not self._is_leader:
            self.peers.leave(1.0)
            joined = 0 in self.peers.seen
            self._end(Ending("interrupted", 0 if joined else 128 + signum, _name(signum)), speaks=False)
        self._end(Ending("interrupted", 128 + signum, _name(signum)), speaks=self._is_leader)

    def _failed(self, failure: Failure) -> None:
        """The run cannot go on. The main thread may notice by itself; it may as well wait for ever."""
        peers = self.peers
        assert peers is not None
        if failure.stopped:
            for rank in failure.ranks:
                state = peers.seen[rank][0] if rank in peers.seen else None
                if state is not None and state.place == processes.place():
                    processes.kill(state.pid, state.start)
        threading.Thread(target=self._end_after, args=(failure,), name="end", daemon=True).start()

    def _end_after(self, failure: Failure) -> None:
        time.sleep(failure.grace)
        if self._came_out:
            time.sleep(TO_THE_END)
        ended = Ending("failed", 1, failure.text)
        self._end(ended, speaks=self._is_leader, inherits=self._inherits(failure))

    def _inherits(self, failure: Failure) -> bool:
        """Whether this rank has to say and to record why the run ends, as its leader cannot. One that raises
        can, and does.
        """
        return not self._is_leader and 0 in failure.ranks and not failure.raised

    def _watch_parent(self) -> None:
        """Of a rank that its leader started, while it is not joined to it: without, it has no purpose."""
        while self.peers is None:
            if os.getppid() != self._parent:
                os._exit(1)
            time.sleep(0.5)

    def _end(self, ended: Ending, *, speaks: bool, inherits: bool = False) -> NoReturn:
        """End this process now, whatever its main thread waits for, with the children that it has.

        Args:
            ended: how.
            speaks: whether this process says and records it.
            inherits: whether it does so where nobody before it has: the leader cannot.
        """
        if not self._ends.acquire(blocking=False):
            threading.Event().wait()  # another thread does it
        said = threading.Thread(target=self._last_words, args=(ended, speaks, inherits), daemon=True)
        said.start()
        if self._trainer is not None:
            with suppress(Exception):
                kill_children(self._trainer)
        for pid in processes.descendants():
            processes.terminate(pid)
        said.join(TO_SAY_IT + (0.5 * min(self._rank, 10) if inherits else 0.0))
        os._exit(ended.exit_code)

    @property
    def _rank(self) -> int:
        return self.peers.rank if self.peers is not None else 0

    def _last_words(self, ended: Ending, speaks: bool, inherits: bool) -> None:
        if inherits:
            time.sleep(0.5 * min(self._rank - 1, 10))  # the lowest that lives comes first
            never_came = not (self.directory / RECORD).exists() and speaks_for_others(self._rank)
            speaks = is_running(self.directory) or never_came
        if not speaks:
            return
        terminal.from_ranks.say(all_of_it=True)
        if self.record is not None:
            with suppress(Exception):
                self.record(ended)
        elif inherits:
            with suppress(OSError, ValueError, LookupError):
                write_end(self.directory, ended)
        self.queued_again(ended)
        if self._is_leader:
            with suppress(OSError):
                if self._lock is not None:
                    self._lock.release()
                if self.record is None:
                    self.directory.rmdir()  # if nothing was written
        if ended.status == "failed":
            log.error("%s failed: %s", self.doing, ended.why)
        else:
            log.warning("ended by %s", ended.why)


def is_running(directory: Path) -> bool:
    """Whether the record of a run has no end yet."""
    with suppress(OSError, ValueError):
        return bool(read_record(directory).get("status") == "running")
    return False


def write_end(directory: Path, ended: Ending) -> None:
    """Write how a run has ended into the record that its leader began."""
    record = read_record(directory)
    how = {"status": ended.status, "why": ended.why}
    record |= {**how, "exit_code": ended.exit_code}
    record["starts"][-1] |= how
    writing.write(directory / RECORD, writing.readable_json(record))


def _name(signum: int) -> str:
    return signal.Signals(signum).name


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
