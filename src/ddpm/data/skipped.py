"""What cannot be read is left out and listed, or refused, as `data.on_error` says."""

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ddpm.runtime import writing

logger = logging.getLogger(__name__)

NAMED = 20
"""Unreadable files that are named in warnings; all are listed."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Skipped:
    """Name and reason of what could not be read: a collection of pairs, each name once.

    Args:
        on_error: `skip` lists it, `fail` refuses it.
        found: what is known already.

    Raises:
        ValueError: where `on_error` is neither.
    """

    def __init__(self, on_error: str = "skip", found: Iterable[tuple[str, str]] = ()):
        check_on_error(on_error)
        self.on_error = on_error
        self._reasons: dict[str, str] = {}
        self.update(found)

    def __len__(self) -> int:
        return len(self._reasons)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._reasons.items())

    def __contains__(self, pair: object) -> bool:
        return pair in list(self)

    def add(self, name: str, reason: str) -> None:
        """Leave something out; the first few are named in warnings.

        Raises:
            ValueError: where `on_error` is `fail`.
        """
        known = name in self._reasons
        self.update([(name, reason)])
        if not known and len(self) <= NAMED:
            logger.warning("skipped %s: %s", printable(name), reason)

    def update(self, found: Iterable[tuple[str, str]]) -> None:
        """The same of what was warned of before.

        Raises:
            ValueError: as `add`.
        """
        for name, reason in found:
            if self.on_error == "fail":
                raise ValueError(
                    f"data.on_error=fail: {printable(name)} cannot be read ({reason}); mend or remove it, or "
                    "leave such files out with data.on_error=skip"
                )
            self._reasons[name] = reason


def check_on_error(on_error: str) -> None:
    """Refuse, with ValueError, what is neither `skip` nor `fail`."""
    if on_error not in ("skip", "fail"):
        raise ValueError(f"data.on_error={on_error} must be skip or fail")


def write_list(skipped: Iterable[tuple[str, str]], directory: Path) -> None:
    """List in `skipped.txt` what was left out, a line each; no file where it is nothing.

    What the disk refuses is told, and tried again with what is written next: see `ddpm.runtime.writing`.
    """
    lines = [f"{printable(name)}: {reason}\n" for name, reason in skipped]
    if lines:
        writing.write(directory / "skipped.txt", "".join(lines))


def printable(name: str) -> str:
    """File names need not be text in any encoding, and a terminal refuses or obeys the rest."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
