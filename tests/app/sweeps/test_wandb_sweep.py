"""The search by Weights & Biases that conf/ brings is one that its agent and our programs take."""

from typing import Any

import pytest
import yaml
from conftest import ROOT, composed

SEARCH: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text())


@pytest.mark.parametrize("end", [0, -1], ids=["first", "last"])
def test_the_words_of_an_agent_are_taken(end: int):
    """`${args_no_hyphens}` is KEY=VALUE for each parameter."""
    words = []
    for key, parameter in SEARCH["parameters"].items():
        ends = parameter.get("values") or [parameter["min"], parameter["max"]]
        words.append(f"{key}={ends[end]}")
    config = composed("train", *words)
    assert config["optimizer"]["lr"] == SEARCH["parameters"]["optimizer.lr"][("min", "max")[end]]
    assert (
        config["schedule"]["_target_"].rpartition(".")[2] == SEARCH["parameters"]["schedule"]["values"][end]
    )


def test_the_program_is_started_as_the_agent_does():
    assert (ROOT / SEARCH["program"]).is_file()
    assert SEARCH["command"] == ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
    assert SEARCH["metric"] == {"name": "val/loss", "goal": "minimize"}
