"""Files that would unpack to very much more than they are: they would fill memory, or never end."""

import gzip
from typing import IO

from ddpm.data import bounds


def check_unpacked(path: str, unpacked: int, packed: int) -> None:
    """Refuse, with ValueError, a file of `packed` bytes that unpacks to `unpacked` ones."""
    if bounds.is_too_much(unpacked, packed):
        raise ValueError(
            f"data.path: {path} of {packed:,} bytes unpacks to {unpacked:,} or more; at most "
            f"{bounds.MOST_TIMES} times as many are read; remove it"
        )


class Unzipped:
    """A gzip file unpacked as it is read, as far as it can be trusted: what `tarfile` needs of a file.

    Args:
        path: of the file, for messages.
        file: opened for reading, at its beginning.

    Raises:
        ValueError: from any use, for what `check_unpacked` refuses, and where more is wanted at once than a
            member may hold.
    """

    def __init__(self, path: str, file: IO[bytes]):
        self.path = path
        self.packed = file.seek(0, 2)
        file.seek(0)
        self.unzipped = gzip.GzipFile(fileobj=file)

    def read(self, size: int) -> bytes:
        if size > bounds.MOST_BYTES:
            raise ValueError(f"data.path: a member of {self.path} unpacks to {size:,} bytes; remove it")
        contents = self.unzipped.read(size)
        check_unpacked(self.path, self.tell(), self.packed)
        return contents

    def seek(self, position: int) -> int:
        check_unpacked(self.path, position, self.packed)
        return self.unzipped.seek(position)

    def tell(self) -> int:
        return self.unzipped.tell()
