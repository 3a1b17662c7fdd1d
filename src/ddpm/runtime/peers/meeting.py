"""Where the ranks of a run meet: the leader's port, found through the store that torch's ranks meet by."""

import json
import os
import secrets
import socket
import time
from datetime import timedelta

from torch.distributed import DistError, Store, TCPStore

STORE_SECONDS = 10.0
"""For an answer of a store that has just taken a connection."""


def _key() -> str:
    """Under which the port is found; under torchrun each restart of the ranks has its own."""
    return f"ddpm/peers/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _agent_has_store() -> bool:
    """Whether torchrun's agent keeps the store, and not rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def leaders_store(address: str, port: int, seconds: float = STORE_SECONDS) -> TCPStore:
    """Of the leader: torch's store at its address, which it keeps unless torchrun's agent does.

    Args:
        address, port: `MASTER_ADDR` and `MASTER_PORT`.
        seconds: for an answer.

    Raises:
        torch.distributed.DistError: where the port is somebody else's.
    """
    return TCPStore(
        address,
        port,
        is_master=not _agent_has_store(),
        wait_for_workers=False,
        multi_tenant=True,  # torch's own rendezvous finds the same server here
        timeout=timedelta(seconds=seconds),
    )


def open_port(address: str, port: int, *, on_this_machine: bool) -> tuple[socket.socket, str, Store]:
    """Of the leader: listen, and say where.

    Args:
        address, port: of torch's store, `MASTER_ADDR` and `MASTER_PORT`.
        on_this_machine: whether all ranks are.

    Returns:
        The listening socket, the word that a rank has to give, and the store, to be kept as long as ranks may
        come.
    """
    if on_this_machine:
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    elif socket.has_dualstack_ipv6():
        listening = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    else:
        listening = socket.create_server(("", 0), backlog=1024)
    listening.setblocking(False)
    word = secrets.token_hex(16)
    store = leaders_store(address, port)
    store.set(_key(), json.dumps([listening.getsockname()[1], word]))
    return listening, word, store


class Search:
    """Of another rank: look for the leader.

    Args:
        address, port: of torch's store.
        on_this_machine: whether all ranks are.
    """

    def __init__(self, address: str, port: int, *, on_this_machine: bool):
        self.address = address
        self.port = port
        self.on_this_machine = on_this_machine
        self._store: Store | None = None

    def try_once(self) -> tuple[socket.socket, str] | None:
        """A connection to the leader and the word to give, or None where it is not there yet."""
        try:
            if self._store is None:
                # torch would print a page for each attempt in vain
                socket.create_connection((self.address, self.port), timeout=1).close()
                self._store = TCPStore(
                    self.address,
                    self.port,
                    is_master=False,
                    wait_for_workers=False,
                    timeout=timedelta(seconds=STORE_SECONDS),
                )
            if not self._store.check([_key()]):
                return None
            port, word = json.loads(self._store.get(_key()))
            where = "127.0.0.1" if self.on_this_machine else self.address
            connection = socket.create_connection((where, port), timeout=5)
        except (OSError, DistError, ValueError):
            self._store = None
            time.sleep(0.2)
            return None
        self._store = None
        return connection, word
