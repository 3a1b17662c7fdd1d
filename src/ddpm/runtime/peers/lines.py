"""Messages over a socket: a line of JSON each, sent and received without ever waiting."""

import json
import socket
from contextlib import suppress
from typing import Any

LONGEST = 1 << 16
"""Bytes of a message; what sends more is none of ours."""

MOST_WAITING = 1 << 20
"""Bytes kept for a receiver that takes none, because it is stopped; later messages are dropped."""


class Line:
    """One end of a connection.

    Args:
        connection: that is set up; it is closed with the line.
    """

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.connection = connection
        self.is_open = True
        self._in = bytearray()
        self._out = bytearray()

    def fileno(self) -> int:
        return self.connection.fileno()

    def send(self, **message: Any) -> None:
        """Send a message, or keep it until `flush`."""
        if self.is_open and len(self._out) < MOST_WAITING:
            self._out += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send of what is kept as much as can be."""
        try:
            while self.is_open and self._out:
                del self._out[: self.connection.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self.is_open = False

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have come. The line is no longer open where the other end is gone, or speaks
        another language.
        """
        try:
            while self.is_open:
                received = self.connection.recv(LONGEST)
                if not received:
                    self.is_open = False
                self._in += received
                if len(self._in) > LONGEST and b"\n" not in self._in:
                    self.is_open = False
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False
        *whole, rest = bytes(self._in).split(b"\n")
        self._in = bytearray(rest)
        messages = []
        for line in whole:
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                self.is_open = False
                break
            messages.append(message)
        return messages

    def close(self) -> None:
        """End the connection."""
        self.is_open = False
        self.connection.close()
