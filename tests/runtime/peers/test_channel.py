"""Ranks that tell each other what happens to them; all of them in this process."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from ddpm.runtime.peers import Failure, Peers, channel

WAITS = 30.0
"""Seconds, at most, for what happens within a second or two."""


class Ranks:
    """Of one run, each with what it was told."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.peers: dict[int, Peers] = {}
        self.signals: dict[int, list[int]] = {}
        self.failures: dict[int, list[Failure]] = {}

    def start(self, rank: int, world_size: int = 2, timeout: float = 1000.0, **more: Any) -> Peers:
        self.signals[rank], self.failures[rank] = [], []
        peers = Peers(
            rank,
            world_size,
            timeout,
            on_signal=self.signals[rank].append,
            on_failure=self.failures[rank].append,
            **more,
        )
        peers.begin("127.0.0.1", self.port, on_this_machine=True)
        self.peers[rank] = peers
        return peers

    def start_all(self, world_size: int, **more: Any) -> list[Peers]:
        started = [self.start(rank, world_size, **more) for rank in range(world_size)]
        until(lambda: started[0].seen.keys() == set(range(1, world_size)))
        return started

    def cut(self, rank: int) -> None:
        """What happens to the others when a process is killed."""
        peers = self.peers.pop(rank)
        peers._leaving = 0.0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(channel.Line, "send", lambda *_, **__: None)
            peers._tell()
            assert peers._thread is not None
            peers._thread.join(WAITS)


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAITS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    found = Ranks()
    yield found
    for rank in sorted(found.peers, reverse=True):
        found.peers[rank].leave(0.2)


def test_a_signal_to_any_rank_reaches_all(ranks: Ranks):
    _, _, third = ranks.start_all(3)
    third.tell_signal(signal.SIGUSR1)
    until(lambda: ranks.signals[0] and ranks.signals[1])
    assert ranks.signals == {0: [signal.SIGUSR1], 1: [signal.SIGUSR1], 2: []}
    assert {peers.signum for peers in ranks.peers.values()} == {signal.SIGUSR1}


def test_a_signal_to_the_leader_reaches_who_comes_later(ranks: Ranks):
    ranks.start(0, 2).tell_signal(signal.SIGTERM)
    ranks.start(1, 2)
    until(lambda: ranks.signals[1])
    assert ranks.signals == {0: [], 1: [signal.SIGTERM]}


def test_the_first_failure_is_the_reason_for_all(ranks: Ranks):
    leader, second, third = ranks.start_all(3)
    second.fail(Failure("rank 1: no memory", (1,), raised=True))
    until(lambda: all(ranks.failures.values()))
    third.fail(Failure("rank 2: connection closed", (2,), raised=True))
    leader.fail(Failure("rank 0: connection closed", (0,)))
    time.sleep(0.2)
    assert {peers.failure for peers in ranks.peers.values()} == {
        Failure("rank 1: no memory", (1,), raised=True)
    }
    assert all(len(told) == 1 for told in ranks.failures.values())


def test_a_rank_whose_process_is_gone_is_missed_at_once(ranks: Ranks):
    ranks.start_all(3)[1].progress(step=7, phase="training")
    until(lambda: ranks.peers[0].seen[1][0].step == 7)
    ranks.cut(1)
    until(lambda: ranks.failures[0] and ranks.failures[2])
    failure = ranks.failures[2][0]
    assert failure.text == f"rank 1 on {channel.host()} (pid {os.getpid()}) is gone at step 7"
    assert failure.ranks == (1,)


def test_a_leader_whose_process_is_gone_is_missed_by_each(ranks: Ranks):
    _, second, third = ranks.start_all(3)
    until(lambda: second.seen[0][0].pid and third.seen[0][0].pid)
    ranks.cut(0)
    until(lambda: ranks.failures[1] and ranks.failures[2])
    assert ranks.failures[1][0].text.startswith(f"rank 0 on {channel.host()} (pid {os.getpid()}) is gone")


def test_one_that_says_that_it_goes_is_not_missed(ranks: Ranks):
    leader, second = ranks.start_all(2)
    ranks.peers.pop(1)
    second.leave(5.0)
    until(lambda: 1 in leader._left)
    leader.leave(0.5)
    assert leader.failure is None
    assert second.failure is None


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(-9, "is gone (signal 9)"), (2, "is gone (exit code 2)"), (0, "is gone (exit code 0)")],
)
def test_how_a_process_of_the_leader_ended_is_told(ranks: Ranks, code: int, outcome: str):
    ranks.start(0, 2, children=lambda: {1: code})
    until(lambda: ranks.failures[0])
    assert ranks.failures[0][0].text == f"rank 1 {outcome} before it joined"


@pytest.mark.parametrize("code", [-signal.SIGTERM, 128 + signal.SIGTERM])
def test_one_that_a_signal_ended_before_it_joined_was_asked_to_end(ranks: Ranks, code: int):
    ranks.start(0, 2, children=lambda: {1: code})
    until(lambda: ranks.signals[0])
    assert ranks.signals[0] == [signal.SIGTERM]
    assert not ranks.failures[0]


def test_a_rank_that_hangs_is_named_and_the_timeout_ends_all(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(channel, "LEAST_PATIENCE", 0.3)
    leader, second = ranks.start_all(2, timeout=4.0)
    second.progress(phase="training", step=3, within=(3, 0))
    until(lambda: leader.seen[1][0].step == 3)
    leader.progress(phase="training", step=3, within=(3, 2))
    until(lambda: ranks.failures[0] and ranks.failures[1])
    failure = ranks.failures[1][0]
    assert failure.ranks == (1,)
    assert failure.stopped
    assert failure.text.startswith(f"rank 1 on {channel.host()} (pid {os.getpid()}) has got no further for ")
    assert failure.text.endswith(" s: at step 3, training; timeout=4")
    assert "rank 1 on" in caplog.text, "and it was warned of before"
    assert "rank 0 on" not in caplog.text


def test_a_leader_that_says_nothing_is_noticed_by_the_others(ranks: Ranks, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(channel, "LEAST_PATIENCE", 0.3)
    monkeypatch.setattr("ddpm.runtime.peers.states.SILENT", 1.5)
    leader, second = ranks.start_all(2, timeout=2.0)
    leader.progress(phase="training", step=4)
    until(lambda: second.seen[0][0].step == 4)
    monkeypatch.setattr(leader, "_now", lambda: time.sleep(10) or leader.state)
    until(lambda: ranks.failures[1])
    failure = ranks.failures[1][0]
    assert failure.ranks == (0,)
    assert failure.stopped
    assert "rank 0 on" in failure.text
    assert "has said nothing" in failure.text


def test_it_is_said_who_has_not_come_and_given_up_after_the_timeout(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(channel, "WORTH_A_WORD", 0.5)
    caplog.set_level("INFO")
    ranks.start(0, 4, timeout=3.0)
    ranks.start(2, 4, timeout=1000.0)
    until(lambda: ranks.failures[0] and ranks.failures[2])
    assert "waiting for ranks 1, 3 of 4 to join" in caplog.text
    assert ranks.failures[2][0].text == "ranks 1, 3 have not joined within 3 s; timeout=3"


def test_a_rank_without_a_leader_gives_up_after_the_timeout(ranks: Ranks, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(channel, "WORTH_A_WORD", 0.5)
    ranks.start(1, 2, timeout=0.1)
    until(lambda: ranks.failures[1])
    assert "rank 0 has not been there within" in ranks.failures[1][0].text


def test_a_rank_whose_parent_is_gone_ends(ranks: Ranks):
    ranks.start(1, 2, parent=os.getppid() + 1)
    until(lambda: ranks.failures[1])
    assert ranks.failures[1][0].text == "rank 0 is gone at step 0"


def test_the_others_wait_for_what_the_leader_does_alone(ranks: Ranks):
    leader, second = ranks.start_all(2)
    leader.announce(1)
    assert second.wait(1)
    leader.fail(Failure("rank 0: broken", (0,), raised=True))
    assert not second.wait(2)


def test_a_stranger_is_not_listened_to(ranks: Ranks):
    before = _listening_ports()  # of what other tests, or the one who runs them, have opened
    leader, second = ranks.start_all(2)
    found = [port for port in _listening_ports() if port not in (*before, ranks.port)]
    for port in found:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
            stranger.sendall(b'{"rank": 1, "word": "guessed", "signal": 15}\n{"signal": 15}\n')
            stranger.settimeout(WAITS)
            with suppress(ConnectionResetError):
                assert stranger.recv(100) == b""
    assert found
    assert (leader.signum, second.signum) == (0, 0)


def _listening_ports() -> list[int]:
    """Of this process (Linux)."""
    mine = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            mine.add(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue
    ports = []
    with open("/proc/net/tcp") as table:
        for line in table.read().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in mine:
                ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports


def test_what_a_rank_says_reaches_the_leader(ranks: Ranks):
    said: list[tuple[int, str]] = []
    _, second, third = ranks.start_all(3, on_text=lambda rank, text: said.append((rank, text)))
    third.say("the disk is slow")
    until(lambda: said)
    second.say("so it is")
    until(lambda: len(said) == 2)
    assert said == [(2, "the disk is slow"), (1, "so it is")]
