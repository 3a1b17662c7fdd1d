"""What `python -m ddpm cache list`, `cache prune` and `cache clear` do."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm.data.prepared.cache import GB, Cache, Entry, described, needless, size_in_words
from ddpm.data.settings import ImageSettings

UNITS = {"": 1.0, "TB": 1e3, "GB": 1.0, "MB": 1e-3, "KB": 1e-6, "B": 1e-9}


def list_entries(cache_dir: str | Path | None = None) -> int:
    """Print everything that a cache keeps, the last used first; the exit code.

    Args:
        cache_dir: None is $DDPM_CACHE or ~/.cache/ddpm.
    """
    cache = Cache(cache_dir)
    entries = cache.entries()
    total = size_in_words(sum(entry.size for entry in entries))
    print(f"{cache.directory}: {total} in {len(entries)} entries")
    reasons = needless(entries)
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        states = ["in use"] if cache.is_used(entry) else []
        states += [reasons[entry.path]] if entry.path in reasons else []
        words = [entry.path.name, _what(entry), _from(entry.about), ", ".join(states)]
        print(f"  {size_in_words(entry.size):>10}  {used}  {'  '.join(word for word in words if word)}")
    return 0


def prune(cache_dir: str | Path | None = None, limit: float | None = ImageSettings.cache_limit) -> int:
    """Remove what no source needs, and the least recently used beyond a limit; the exit code.

    Args:
        cache_dir: None is $DDPM_CACHE or ~/.cache/ddpm.
        limit: GB that may stay.
    """
    cache = Cache(cache_dir)
    removed, leftovers = cache.prune(limit)
    for one in removed:
        print(f"removed {described(one)}")
    if leftovers:
        print(f"removed what killed builds left ({size_in_words(leftovers)})")
    left = sum(entry.size for entry in cache.entries())
    freed = leftovers + sum(one.entry.size for one in removed)
    of = "" if limit is None else f"; the limit is {size_in_words(round(limit * GB))}"
    print(f"{cache.directory}: {size_in_words(freed)} freed, {size_in_words(left)} left{of}")
    if limit is not None and left > limit * GB:
        print("what is left is in use, or not yours to remove, and stays")
    return 0


def clear(cache_dir: str | Path | None = None) -> int:
    """Remove every prepared data set of a cache but those that are being prepared or used; the exit code.

    Args:
        cache_dir: None is $DDPM_CACHE or ~/.cache/ddpm.
    """
    cache = Cache(cache_dir)
    freed = cache.clear()
    for entry in cache.entries():
        why = "is in use" if cache.is_used(entry) else "cannot be removed by you"
        print(f"{entry.path.name} {why}, and stays")
    print(f"{cache.directory}: {size_in_words(freed)} freed")
    return 0


def parse_limit(text: str) -> float:
    """GB of a number of them, or of a size with its unit, as in 20, 20GB, 500 MB or 1.5TB.

    Raises:
        ValueError: where it is none.
    """
    match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([TGMKtgmk]?[Bb]|)", text.strip())
    if match is None:
        raise ValueError(f"LIMIT {text}: must be a number of GB, or a size such as 500MB")
    return float(match[1]) * UNITS[match[2].upper()]


def _what(entry: Entry) -> str:
    about = entry.about
    if shape := about.get("shape"):
        return f"{shape[0]:,} images of {shape[2]}x{shape[3]}x{shape[1]}"
    if "num_classes" in about:
        return f"classifier of {about['num_classes']} classes, {round(100 * about['accuracy'])} % right"
    if "weights" in about:
        return f"weights of {about['weights']}"
    if of := about.get("statistics"):
        return f"features of {of['images']:,} images ({of['split']}) by {of['extractor']}"
    return "counts of shards"


def _from(about: Mapping[str, Any]) -> str:
    if "num_classes" in about or "statistics" in about:  # of data that may be anywhere
        return ""
    source = about.get("source") or about.get("url") or about.get("name")
    return f"from {source}" if source else ""
