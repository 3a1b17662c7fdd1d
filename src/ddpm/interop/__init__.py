"""Conversion to and from other libraries: what leaves here is theirs, what comes in is ours, bit for bit."""
