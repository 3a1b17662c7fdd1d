"""The processes of one run, watching each other beside the collectives that train."""

from ddpm.runtime.peers.channel import Failure, Peers

__all__ = ["Failure", "Peers"]
