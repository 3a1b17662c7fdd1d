"""Options are found where they lie, and every pair of them is covered."""

from itertools import combinations, product
from pathlib import Path

import pytest
from conftest import ROOT

from ddpm.doctor.case import judged
from ddpm.doctor.combinations import GROUPS, Option, cover, validity
from ddpm.doctor.examination import ROOMS, Examined, examined

pytest_plugins = ("all_options",)


def test_every_yaml_of_the_groups_is_an_option(everything: Examined):
    assert everything.broken == {}
    for group in GROUPS:
        there = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert [option.name for option in everything.catalogue[group]] == there


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


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of someone's own options, built from their own package."""
    (tmp_path / "someones.py").write_text(
        "import torch\n"
        "from ddpm.diffusion import NoiseSchedule\n"
        "def steep(num_timesteps=1000, last=0.5):\n"
        "    return NoiseSchedule(torch.linspace(1e-3, last, num_timesteps, dtype=torch.float64))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    conf = tmp_path / "my_conf"
    (conf / "schedule").mkdir(parents=True)
    (conf / "schedule" / "steep.yaml").write_text("_target_: someones.steep\nlast: 0.3\n")
    (conf / "sampler").mkdir()
    (conf / "sampler" / "heun.yaml").write_text("_target_: ddpm.diffusion.samplers.Heun\nnum_steps: 7\n")
    (conf / "objective").mkdir()
    (conf / "objective" / "foreign.yaml").write_text("_target_: someoneelses.Objective\n")
    (conf / "variance").mkdir()
    (conf / "variance" / "mistyped.yaml").write_text("_target_: ddpm.diffusion.variances.FixedLarger\n")
    return conf


def test_an_option_of_ones_own_is_found_covered_and_examined(own: Path):
    with examined(own, ["someones"]) as found:
        names = [option.name for option in found.catalogue["schedule"]]
        assert "steep" in names
        assert "linear" in names
        assert sum(combination["schedule"].name == "steep" for combination in found.cover.combinations) >= 5
        (heun,) = (option for option in found.catalogue["sampler"] if option.name == "heun")
        assert heun.build().nfe(40) == 13, "one's own comes before the project's"
        assert list(found.broken) == ["objective=foreign", "variance=mistyped"]
        assert "allowed package" in str(found.broken["objective=foreign"])
        assert "FixedLarger" in str(found.broken["variance=mistyped"])
        cases = (case for case in ROOMS["forward process"](found) if "steep" in case.option)
        lines = judged(cases)
        assert [line.passed for line in lines] == [True] * 3
