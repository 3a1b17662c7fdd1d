"""Options of an experiment, and combinations of them in which every pair occurs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import torch

from ddpm.diffusion.validity import check_combination

GROUPS = ("schedule", "objective", "variance", "weighting", "timesteps", "sampler", "guidance")
"""The groups of options that are mathematics."""

SMALL = {"num_timesteps": 40, "num_steps": None, "timesteps": None, "interval": None, "rescale": 0.0}
"""Settings of the examination, for every constructor that takes them: a short chain, all of it visited, and
nothing that is stated for a longer one; rescaled guidance depends on what the network predicts.
"""

BETAS = torch.linspace(0.002, 0.4, 40, dtype=torch.float64)
"""A chain of the examination's own: from nearly clean to nearly noise."""

CLASSES = 2


@dataclass(frozen=True, eq=False)
class Option:
    """One way to build a part of an experiment.

    Attributes:
        group: one of `GROUPS`.
        name: within the group.
        make: the constructor, with the settings that belong to this name.
        takes: the names of all settings that the constructor knows.
    """

    group: str
    name: str
    make: Callable[..., Any]
    takes: frozenset[str]

    def build(self, **changes: Any) -> Any:
        """The part, with those of the changes that its constructor takes."""
        return self.make(**{name: value for name, value in changes.items() if name in self.takes})

    def small(self, **changes: Any) -> Any:
        """The same at the size of the examination."""
        return self.build(**(SMALL | changes))

    def __str__(self) -> str:
        return f"{self.group}={self.name}"


Catalogue = Mapping[str, Sequence[Option]]
"""Group -> its options."""

Combination = Mapping[str, Option]
"""Group -> the option chosen."""


@dataclass(frozen=True)
class Cover:
    """Combinations in which all pairs of options of two groups occur, but for those that are refused."""

    combinations: tuple[Combination, ...]
    pairs: int
    refused: tuple[tuple[Option, Option], ...]


def validity(catalogue: Catalogue) -> Callable[[Combination], bool]:
    """Asks the project's function for combinations without meaning, once for each."""
    built = {option: option.small() for options in catalogue.values() for option in options}
    known: dict[tuple[Option, ...], bool] = {}

    def makes_sense(combination: Combination) -> bool:
        key = tuple(combination.values())
        if key not in known:
            parts = {group: built[option] for group, option in combination.items()}
            conditional = parts["guidance"].needs_unconditional
            try:
                check_combination(
                    **parts,
                    num_classes=CLASSES if conditional else None,
                    label_drop=0.1 if conditional else 0.0,
                )
                known[key] = True
            except ValueError:
                known[key] = False
        return known[key]

    return makes_sense


def cover(catalogue: Catalogue, makes_sense: Callable[[Combination], bool]) -> Cover:
    """Combinations with every pair that makes sense in any of them; the same ones each time.

    Each begins with the first pair that is missing and is completed so that it holds as many missing ones as
    it can. A pair that no completion makes sense of is refused.
    """
    missing = {
        pair: None for one, other in combinations(catalogue.values(), 2) for pair in product(one, other)
    }
    total = len(missing)
    found: list[Combination] = []
    refused: list[tuple[Option, Option]] = []
    while missing:
        pair = next(iter(missing))
        best: Combination | None = None
        most = 0
        for candidate in _completions(catalogue, pair):
            new = sum(held in missing for held in combinations(candidate.values(), 2))
            if new > most and makes_sense(candidate):
                best, most = candidate, new
        if best is None:
            refused.append(pair)
            del missing[pair]
            continue
        found.append(best)
        for held in combinations(best.values(), 2):
            missing.pop(held, None)
    return Cover(tuple(found), total - len(refused), tuple(refused))


def _completions(catalogue: Catalogue, pair: tuple[Option, Option]) -> Iterator[Combination]:
    fixed = {option.group: [option] for option in pair}
    for options in product(*(fixed.get(group, catalogue[group]) for group in catalogue)):
        yield dict(zip(catalogue, options, strict=True))
