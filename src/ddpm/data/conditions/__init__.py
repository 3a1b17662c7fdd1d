"""What a network can be conditioned on beside the class, one kind a file."""

from ddpm.data.conditions.conditioning import Conditioning, Derived, Stored

__all__ = ["Conditioning", "Derived", "Stored"]
