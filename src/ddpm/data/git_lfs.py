"""Files that stand for others which Git has not fetched."""

POINTER = b"version https://git-lfs.github.com/spec/"
"""What they begin with."""

LARGEST = 1024
"""Files of so many bytes or more are no pointers."""

NOT_FETCHED = "a pointer of Git LFS, not the file itself; fetch it with git lfs pull"


def check_fetched(name: object, beginning: bytes) -> None:
    """Refuse, with ValueError, a file that by its first bytes stands for another."""
    if beginning.startswith(POINTER):
        raise ValueError(f"data.path: {name} is {NOT_FETCHED}")
