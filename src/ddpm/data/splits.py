"""Which parts of a set are for training and which for validation, by the names that people give them."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

MEANINGS = {
    **dict.fromkeys(("train", "training", "trn", "trainset", "trainval", "训练", "训练集"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating", "dev", "eval"), "validation"),
    **dict.fromkeys(("valset", "devset", "验证", "验证集"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "t10k", "testset", "测试", "测试集"), "test"),
}
"""What the words mean that name a part."""

_BESIDE = (
    "extra unlabeled unlabelled unsup unsupervised pred predict prediction predictions holdout truth gt "
    "mask masks"
)
BESIDE = frozenset(_BESIDE.split())
"""Words of what stands beside parts and is one under its own name."""

_NEUTRAL = (
    "set sets data dataset split image images img imgs picture pictures photo photos file files folder "
    "dir jpg jpeg jpegs png"
)
NEUTRAL = frozenset(_NEUTRAL.split())
"""Words that a part's name may have or lack."""

ORDER = ("train", "validation", "test")
HELD_OUT = ("validation", "test")
"""Parts to validate on where nothing is said, the first that is there."""

WORD = re.compile(r"t10k|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^\W\d_A-Za-z]+")


class Parts(NamedTuple):
    """The parts of a set that are used.

    Attributes:
        train: names of those to train on, at least one.
        validation: name of that to validate on; None is a share of those to train on.
    """

    train: tuple[str, ...]
    validation: str | None


def words(name: str) -> list[str]:
    """The words in a name, small letters: `trainLabels_2` is train, labels, 2."""
    return [word.lower() for word in WORD.findall(name)]


def meaning(name: str) -> str | None:
    """train, validation or test where one word of a name, and no other, says so."""
    found = {MEANINGS[word] for word in words(name) if word in MEANINGS}
    return found.pop() if len(found) == 1 else None


def rest(name: str) -> tuple[str, ...]:
    """The words in a name beside those that make it a part, small letters; numbers do not count."""
    makes_it = MEANINGS if meaning(name) else BESIDE
    return tuple(
        word for word in words(name) if word not in makes_it and word not in NEUTRAL and not word.isdecimal()
    )


def parts_among(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Which part each of some names stands for; nothing where they are not names of parts.

    They are where two of them mean different parts and are called alike in all else (`seg_train`,
    `seg_test`), or where one means a part and all others are of the kind that stands beside parts (`train`,
    `extra`). Then those without a meaning are parts under their own names.

    Args:
        names: that stand beside each other, such as those of the folders in a folder.

    Returns:
        of each name the part, and the class of all that is in it, "" where it says none: `trainA`, `trainB`,
        `testA` and `testB` are two parts of two classes.
    """
    every = list(names)
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name in every:
        if part := meaning(name):
            groups.setdefault(rest(name), {})[name] = part
    several = {key: group for key, group in groups.items() if len(set(group.values())) > 1}
    if not several:
        if len(groups) != 1:
            return {}
        [(key, group)] = groups.items()
        others = [name for name in every if name not in group]
        alone = len(group) == 1 and (not key or bool(others))
        if not alone or not all(rest(name) == key and not BESIDE.isdisjoint(words(name)) for name in others):
            return {}
        return {name: (group.get(name, name), "") for name in every}
    if () not in several and len(several) > 1 and len({frozenset(g.values()) for g in several.values()}) == 1:
        return {
            name: (part, " ".join(word for word in WORD.findall(name) if word.lower() in key))
            for key, group in several.items()
            for name, part in group.items()
        } | {name: (name, "") for name in every if rest(name) not in several or meaning(name) is None}
    used = several.get(()) or max(several.values(), key=lambda group: len(set(group.values())))
    return {name: (used.get(name, name), "") for name in every}


def chosen(sizes: Mapping[str, int], split: str | None, validation_split: str | None, path: object) -> Parts:
    """The parts that settings choose of those that a set has.

    Args:
        sizes: how many images each part holds, by its name; a name with a meaning stands as that.
        split: `data.split`.
        validation_split: `data.validation_split`; of several names with | between, the first that is there.
        path: of the set, for messages.

    Raises:
        ValueError: where there is no such part, it holds no images, or nothing says which to train on.
    """
    there = ", ".join(sizes)
    if split is None:
        if "train" not in sizes and len(sizes) > 1:
            raise ValueError(
                f"data.path={path}: its parts are {there}, and none is called train; choose, as in "
                f"data.split={next(iter(sizes))}"
            )
        train: tuple[str, ...] = ("train",) if "train" in sizes else tuple(sizes)
    elif split == "all":
        train = tuple(sizes)
    else:
        train = tuple(dict.fromkeys(_named("split", name, sizes) for name in split.split("+")))
    for name in train:
        if not sizes[name]:
            others = ", ".join(other for other, size in sizes.items() if size)
            choose = f"; choose by data.split another of {others}" if others else ""
            raise ValueError(f"data.path={path}: its part {name} holds no images{choose}")
    if validation_split is not None:
        *preferred, last = validation_split.split("|")
        wanted = next((name for name in preferred if _known(name, sizes)), last)
        if wanted == "none":
            return Parts(train, None)
        name = _named("validation_split", wanted, sizes)
        if name in train:
            raise ValueError(f"data.validation_split={name}: it is trained on; choose another of {there}")
        if not sizes[name]:
            others = ", ".join(other for other, size in sizes.items() if size and other not in train)
            raise ValueError(
                f"data.validation_split={wanted}: it holds no images; choose another"
                f"{f' of {others}' if others else ''}, or hold out a share by none"
            )
        return Parts(train, name)
    return Parts(train, next((name for name in HELD_OUT if name not in train and sizes.get(name)), None))


def _known(name: str, sizes: Mapping[str, int]) -> str | None:
    """The part that is called so, or by another word for the same."""
    return next((known for known in (name, MEANINGS.get(name.lower(), name)) if known in sizes), None)


def _named(key: str, name: str, sizes: Mapping[str, int]) -> str:
    if (known := _known(name, sizes)) is not None:
        return known
    near = difflib.get_close_matches(name.lower(), [*sizes, *MEANINGS], 1)
    meant = next((known for word in near if (known := _known(word, sizes))), None)
    there = f"there are {', '.join(sizes)}" if sizes else "there are none"
    raise ValueError(
        f"data.{key}={name}: there is no such part; {there}{f' (did you mean {meant}?)' if meant else ''}"
    )


def chosen_by_name(
    sizes: Mapping[str, int], split: str | None, validation_split: str | None, path: object
) -> Parts:
    """`chosen`, where parts have names of their own, such as `valid` or `train_small`, and go by these too.

    Args:
        sizes: how many images each part holds, by its own name.
        split, validation_split, path: as for `chosen`.

    Returns:
        the parts by their own names.

    Raises:
        ValueError: as `chosen`.
    """
    stands = {name: _standing(name, sizes) for name in sizes}
    own = {standing: name for name, standing in stands.items()}

    def standing(names: str | None, between: str) -> str | None:
        return names and between.join(stands.get(name, name) for name in names.split(between))

    found = chosen(
        {stands[name]: size for name, size in sizes.items()},
        standing(split, "+"),
        standing(validation_split, "|"),
        path,
    )
    return Parts(
        tuple(own[name] for name in found.train), None if found.validation is None else own[found.validation]
    )


def _standing(name: str, names: Collection[str]) -> str:
    """train, validation or test where this part alone, of all names, is the one so called; else its name."""
    meant = meaning(name)
    if meant is None:
        return name
    called = [other for other in names if MEANINGS.get(other.lower()) == meant]
    alike = called or [other for other in names if meaning(other) == meant]
    return meant if alike == [name] else name
