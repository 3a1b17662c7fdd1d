"""Messages over a socket."""

import socket

import pytest

from ddpm.runtime.peers.lines import LONGEST, MOST_WAITING, Line


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    lines = Line(a), Line(b)
    yield lines
    for line in lines:
        line.close()


def test_messages_arrive_whole_and_in_order(pair: tuple[Line, Line]):
    ours, theirs = pair
    ours.send(a=1)
    ours.send(text="zwei\n", parts=[1, None])
    assert theirs.receive() == [{"a": 1}, {"text": "zwei\n", "parts": [1, None]}]
    assert theirs.receive() == []
    ours.connection.send(b'{"half": ')
    assert theirs.receive() == []
    ours.connection.send(b"2}\n")
    assert theirs.receive() == [{"half": 2}]


def test_what_was_said_last_is_heard_of_one_that_is_gone(pair: tuple[Line, Line]):
    ours, theirs = pair
    ours.send(left=True)
    ours.close()
    assert theirs.receive() == [{"left": True}]
    assert not theirs.is_open
    theirs.send(a=1)  # says nothing, raises nothing


def test_one_that_is_stopped_makes_nobody_wait(pair: tuple[Line, Line]):
    ours, _ = pair
    for _ in range(3000):
        ours.send(text="x" * 1000)
    assert ours.is_open
    assert len(ours._out) <= MOST_WAITING + 2000


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"\xff\n", b"x" * (2 * LONGEST)])
def test_another_language_ends_the_line(pair: tuple[Line, Line], said: bytes):
    ours, theirs = pair
    ours.connection.setblocking(True)
    ours.connection.settimeout(1)
    sent = 0
    while sent < len(said) and theirs.is_open:
        sent += ours.connection.send(said[sent : sent + 10_000])
        assert theirs.receive() == []
    assert not theirs.is_open
