"""Options of an experiment, and combinations of them in which every pair occurs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from ddpm.diffusion.validity import check_combination

GROUPS = ("schedule", "objective", "variance", "weighting", "timesteps", "sampler", "guidance")
"""The groups of options that are mathematics."""

NUM_TIMESTEPS = 29
"""Long enough that shortened chains have uneven strides, and prime, so that no number of steps divides it.
The examination's time grows with it.
"""

SMALL = {
    "num_timesteps": NUM_TIMESTEPS,
    "num_steps": None,
    "timesteps": None,
    "interval": None,
    "rescale": 0.0,
}
"""Settings of the examination, for every constructor that takes them: a short chain, all of it visited, and
nothing that is stated for a longer one; rescaled guidance depends on what the network predicts.
"""

BETAS = torch.linspace(0.002, 0.4, NUM_TIMESTEPS, dtype=torch.float64)
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

Pairs = Mapping[tuple[int, int], Tensor]
"""Places of two groups in the catalogue, the earlier first -> a table over an option of each."""


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
    options = list(catalogue.values())
    two_groups = list(combinations(range(len(options)), 2))
    # of an option of the one group and an option of the other
    missing = {(g, h): torch.ones(len(options[g]), len(options[h]), dtype=torch.bool) for g, h in two_groups}
    refused = {(g, h): torch.zeros_like(table) for (g, h), table in missing.items()}
    found: list[Combination] = []
    for g, h in two_groups:
        for pair in product(range(len(options[g])), range(len(options[h]))):
            if not missing[g, h][pair]:
                continue
            for chosen in _completions(options, {g: pair[0], h: pair[1]}, missing, refused):
                combination = {group: of[i] for (group, of), i in zip(catalogue.items(), chosen, strict=True)}
                if makes_sense(combination):
                    found.append(combination)
                    for one, other in two_groups:
                        missing[one, other][chosen[one], chosen[other]] = False
                    break
            else:
                missing[g, h][pair], refused[g, h][pair] = False, True
    pairs = sum(int((~table).sum()) for table in refused.values())
    without_meaning = [
        (options[g][a], options[h][b])
        for (g, h), table in refused.items()
        for a, b in table.nonzero().tolist()
    ]
    return Cover(tuple(found), pairs, tuple(without_meaning))


def _completions(
    options: Sequence[Sequence[Option]], fixed: Mapping[int, int], missing: Pairs, refused: Pairs
) -> Iterator[list[int]]:
    """An option of each group, those of `fixed` given: all choices without a refused pair, those that hold
    the most missing pairs first.
    """
    choices = [[fixed[g]] if g in fixed else list(range(len(of))) for g, of in enumerate(options)]
    size = [len(choice) for choice in choices]

    def counted(tables: Pairs) -> Tensor:
        total = torch.zeros(size, dtype=torch.int64)
        for (g, h), table in tables.items():
            shape = [n if k in (g, h) else 1 for k, n in enumerate(size)]
            total += table[choices[g]][:, choices[h]].view(shape)
        return total.flatten()

    order = counted(missing).argsort(descending=True, stable=True)
    order = order[counted(refused)[order] == 0]
    for indices in torch.stack(torch.unravel_index(order, size), dim=1).tolist():
        yield [choice[i] for choice, i in zip(choices, indices, strict=True)]
