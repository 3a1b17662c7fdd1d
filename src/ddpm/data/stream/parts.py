"""Which shards are for training and which for validation, by their names and folders."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ddpm.data import splits
from ddpm.data.settings import ReadingSettings

NUMBERING = re.compile(r"[-_.]?[0-9]+([-_.]of[-_.][0-9]+)?$")


class ShardParts(NamedTuple):
    """The shards that are used.

    Attributes:
        train: paths of those to train on.
        validation: paths of those to validate on; none where rows of the others are held out.
        train_name, validation_name: ends of sentences that say which these are.
    """

    train: Sequence[str]
    validation: Sequence[str]
    train_name: str
    validation_name: str


def chosen_shards(paths: Sequence[str], folder: str, settings: ReadingSettings, where: object) -> ShardParts:
    """The shards of the parts that settings choose; of all, where no name says a part.

    Args:
        paths: of all shards.
        folder: that they lie in or below; only what follows it says a part.
        settings: see `ddpm.data.splits.chosen`.
        where: they are, for messages.

    Raises:
        ValueError: as `ddpm.data.splits.chosen`, or where a part is asked for and there are none.
    """
    own = {path: _own_name(path.removeprefix(folder).lstrip("/")) for path in paths}
    if not any(map(splits.meaning, own.values())):
        for key, asked in (("split", settings.split), ("validation_split", settings.validation_split)):
            if asked not in (None, "all", "none"):
                raise ValueError(
                    f"data.{key}={asked}: no name of the shards at {where} says a part; call them or their "
                    "folders train and validation, or give those to train on as a pattern, as in "
                    "data.path=shards/a-*.tar"
                )
        return ShardParts(paths, [], _number(len(paths)), "")
    parts: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        parts[_part(own[path], own.values())].append(path)
    sizes = {name: len(held) for name, held in sorted(parts.items(), key=_train_first)}
    chosen = splits.chosen(sizes, settings.split, settings.validation_split, where)
    train = sorted(path for name in chosen.train for path in parts[name])
    validation = [] if chosen.validation is None else parts[chosen.validation]
    held_out = ""
    if chosen.validation is not None:
        held_out = f"{_number(len(validation))} of {chosen.validation}"
        if settings.validation_split is None and chosen.validation == "test":
            held_out += "; there is none of validation"
    return ShardParts(train, validation, f"{_number(len(train))} of {' and '.join(chosen.train)}", held_out)


def _own_name(path: str) -> str:
    """The part that a shard is of, as its name or else a folder says it; else what its name is but for the
    number.
    """
    *folders, base = path.split("/")
    name = NUMBERING.sub("", base.split(".")[0])
    return next((one for one in (name, *reversed(folders)) if splits.meaning(one)), name)


def _part(own: str, others: Iterable[str]) -> str:
    """train, validation or test for every shard that means it; but `train_small` is a part of its own where
    another is called `train`.
    """
    meant = splits.meaning(own)
    exact = {splits.MEANINGS.get(other.lower()) for other in others}
    return own if meant is None or (meant in exact and own.lower() not in splits.MEANINGS) else meant


def _train_first(part: tuple[str, Sequence[str]]) -> tuple[int, str]:
    name = part[0]
    return splits.ORDER.index(name) if name in splits.ORDER else len(splits.ORDER), name


def _number(shards: int) -> str:
    return f"{shards:,} shard{'' if shards == 1 else 's'}"
