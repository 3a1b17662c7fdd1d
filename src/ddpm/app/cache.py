"""What `python -m ddpm cache list` and `python -m ddpm cache clear` do."""

import math
import time
from pathlib import Path

from ddpm.data.cache import Cache


def list_entries(cache_dir: str | Path | None = None) -> int:
    """Print every prepared data set of a cache, the last used first; the exit code.

    Args:
        cache_dir: None is $DDPM_CACHE or ~/.cache/ddpm.
    """
    cache = Cache(cache_dir)
    entries = cache.entries()
    print(f"{cache.directory}: {_size(sum(entry.size for entry in entries))} in {len(entries)} entries")
    for entry in entries:
        shape = entry.about.get("shape")
        what = f"{shape[0]:,} images of {shape[2]}x{shape[3]}x{shape[1]}" if shape else "counts of shards"
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        print(f"  {_size(entry.size):>10}  {used}  {entry.path.name}  {what}")
    return 0


def clear(cache_dir: str | Path | None = None) -> int:
    """Remove every prepared data set of a cache but those that are being prepared; the exit code.

    Args:
        cache_dir: None is $DDPM_CACHE or ~/.cache/ddpm.
    """
    cache = Cache(cache_dir)
    print(f"{cache.directory}: {_size(cache.clear())} freed")
    return 0


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} bytes"
    power = min(4, int(math.log10(size) / 3))
    return f"{size / 1000**power:.1f} {' kMGT'[power]}B"
