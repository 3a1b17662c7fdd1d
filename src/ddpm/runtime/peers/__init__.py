"""The processes of one run, watching each other beside the collectives that train."""

from ddpm.runtime.peers.channel import Failure, Peers, speaks_for_others

__all__ = ["Failure", "Peers", "speaks_for_others"]
