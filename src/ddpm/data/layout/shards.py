"""Folders that are only the pieces of a set, since so many images do not fit into one."""

import re
from collections.abc import Mapping, Sequence

from ddpm.data import splits

_WORDS = "shard shards part parts chunk chunks batch batches image images img imgs"
WORDS = frozenset(_WORDS.split())
"""Before a number, these name pieces."""

LEAST_DIGITS = 4
"""Of folders whose numbers may count pieces rather than name classes."""

NUMBER = re.compile(r"\d+")


def are_shards(stems: Mapping[str, Sequence[str]]) -> bool:
    """Whether the names of folders only count them, as the names in them go on to count images.

    So `00000/img00000999.png`, `00001/img00001000.png` are pieces; `00000/00000.ppm`, `00001/00000.ppm` are
    not. Of `batch_1`, `batch_2` the names alone say so.

    Args:
        stems: names of the files in and below each of some folders, without suffix.
    """
    folders = sorted(stems)
    if len(folders) < 2:
        return False
    if len({NUMBER.sub("0", folder) for folder in folders}) == 1 and not folders[0].isdecimal():
        *_, word, number = ["", *splits.words(folders[0])]
        return number.isdecimal() and word in WORDS
    if not all(re.fullmatch(rf"[0-9]{{{LEAST_DIGITS},}}", folder) for folder in folders):
        return False
    if len({len(folder) for folder in folders}) > 1:
        return False
    numbers: list[int] = []
    for folder in folders:
        found = [NUMBER.findall(stem) for stem in stems[folder]]
        if not all(len(one) == 1 for one in found):
            return False
        ascending = sorted(int(one[0]) for one in found)
        if numbers and ascending[0] <= numbers[-1]:
            return False
        numbers += ascending
    # Names that begin with the number of their class ascend too, but leave gaps.
    return 2 * len(numbers) > numbers[-1] - numbers[0]
