"""The options that `conf/` offers, and combinations of them in which every pair occurs."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ddpm import targets
from ddpm.app.command_line import CONF
from ddpm.diffusion.validity import check_combination

GROUPS = ("schedule", "objective", "variance", "weighting", "timesteps", "sampler", "guidance")
"""The groups whose options are mathematics. Which options they have is found in their folders."""

SMALL = {"num_timesteps": 40, "num_steps": None, "timesteps": None, "interval": None, "rescale": 0.0}
"""Settings of the examination, for every constructor that takes them: a short chain, all of it visited, and
nothing that is stated for a longer one; rescaled guidance depends on what the network predicts.
"""

BETAS = torch.linspace(0.002, 0.4, 40, dtype=torch.float64)
"""A chain of the examination's own: from nearly clean to nearly noise."""

CLASSES = 2


@dataclass(frozen=True, eq=False)
class Option:
    """One yaml of a group.

    Attributes:
        group: its folder.
        name: without `.yaml`.
        make: its constructor, with the yaml's settings.
        takes: the names of all settings that the constructor knows.
    """

    group: str
    name: str
    make: Callable[..., Any]
    takes: frozenset[str]

    def build(self, **changes: Any) -> Any:
        """What the yaml names, with those of the changes that its constructor takes."""
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


def discover(
    betas: Path, config_dir: Path | None = None, allowed: Sequence[str] = ()
) -> tuple[Catalogue, dict[str, Exception]]:
    """Every option of every group, and what was wrong with those that cannot be built.

    Args:
        betas: a file for the schedule whose yaml leaves the file to the user.
        config_dir: a directory with more groups' folders, whose options come before those of the same name.
        allowed: packages that a `_target_` may name beside the usual ones.
    """
    directories = [CONF] if config_dir is None else [CONF, config_dir]
    found: dict[str, dict[str, Option]] = {group: {} for group in GROUPS}
    broken: dict[str, Exception] = {}
    for directory in directories:
        with initialize_config_dir(str(directory.absolute()), version_base="1.3"):
            for group in GROUPS:
                for name in sorted(file.stem for file in (directory / group).glob("*.yaml")):
                    found[group].pop(name, None)
                    broken.pop(f"{group}={name}", None)
                    try:
                        option = _read(group, name, betas, allowed)
                        option.small()
                        found[group][name] = option
                    except Exception as error:
                        broken[f"{group}={name}"] = error
    return {group: [options[name] for name in sorted(options)] for group, options in found.items()}, broken


def _read(group: str, name: str, betas: Path, allowed: Sequence[str]) -> Option:
    node = compose(None, [f"+{group}={name}"])[group]
    if OmegaConf.is_missing(node, "path"):
        node.path = str(betas)
    settings = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    target = targets.check_name(group, settings.get("_target_"), allowed)
    takes = inspect.signature(targets.resolve(group, target)).parameters
    make = instantiate({**settings, "_partial_": True}, _convert_="all")
    return Option(group, name, make, frozenset(takes))


def validity(catalogue: Catalogue) -> Callable[[Combination], bool]:
    """Asks the project's function for combinations without meaning, once for each."""
    built = {str(option): option.small() for options in catalogue.values() for option in options}
    known: dict[tuple[str, ...], bool] = {}

    def makes_sense(combination: Combination) -> bool:
        parts = {group: built[str(option)] for group, option in combination.items() if group != "timesteps"}
        key = tuple(str(combination[group]) for group in parts)
        if key not in known:
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
