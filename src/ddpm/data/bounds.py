"""How much a file may unpack to: more would fill memory or disk, or never end."""

MOST_BYTES = 256 << 20
"""Of one file that is read whole: an image, or whatever else is in an archive or a bucket."""

MOST_TIMES = 200
"""What unpacks to more than `MOST_BYTES` may have so many times its size; images are packed already."""


def is_too_much(unpacked: int, packed: int) -> bool:
    """Whether so many bytes from so few are what only an attack or an accident makes."""
    return unpacked > MOST_BYTES and unpacked > MOST_TIMES * packed
