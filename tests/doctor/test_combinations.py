"""Every pair of options is covered."""

from itertools import combinations, product

import pytest

from ddpm.doctor.combinations import GROUPS, Option, cover, validity
from ddpm.doctor.examination import Examined

pytest_plugins = ("all_options",)


@pytest.mark.e2e
def test_every_pair_is_covered_or_refused_in_any_combination(everything: Examined):
    catalogue, found = everything.catalogue, everything.cover
    makes_sense = validity(catalogue)
    assert all(makes_sense(combination) for combination in found.combinations)
    refused = {frozenset(map(str, pair)) for pair in found.refused}
    occurring = {
        frozenset((str(a), str(b)))
        for combination in found.combinations
        for a, b in combinations(combination.values(), 2)
    }
    pairs = 0
    for first, second in combinations(GROUPS, 2):
        for a, b in product(catalogue[first], catalogue[second]):
            pairs += 1
            assert (frozenset((str(a), str(b))) in occurring) != (frozenset((str(a), str(b))) in refused)
    assert pairs == found.pairs + len(refused)
    assert frozenset(("objective=epsilon", "schedule=jsd")) in refused
    for a, b in found.refused:
        others = {group: options for group, options in catalogue.items() if group not in (a.group, b.group)}
        for rest in product(*others.values()):
            chosen = {option.group: option for option in (a, b, *rest)}
            assert not makes_sense({group: chosen[group] for group in GROUPS})


def test_the_cover_is_the_same_each_time():
    catalogue = {
        group: [Option(group, name, dict, frozenset()) for name in "abc"[:count]]
        for group, count in (("x", 3), ("y", 2), ("z", 3))
    }

    def makes_sense(combination: dict) -> bool:
        return (combination["x"].name, combination["y"].name) != ("a", "b")

    found = cover(catalogue, makes_sense)
    assert found == cover(catalogue, makes_sense)
    assert (found.pairs, len(found.refused)) == (20, 1)
    assert len(found.combinations) <= 10
