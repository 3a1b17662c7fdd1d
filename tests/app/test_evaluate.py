"""evaluate.py: figures in metrics.json, and one message for what it cannot do."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.app import command_line
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.evaluation.nll import NLL
from ddpm.run import found

MISTAKES = {
    "metrics=[nl]": r"metrics=nl: there is no such option; did you mean nll",
    "metrics=[]": r"metrics: cannot be left out",
    "metrics.nl.n=3": r"metrics\.nl: there is no such key; did you mean metrics\.nll",
    "metrics.nll.n=0": r"metrics\.nll\.n=0 must be null or at least 1",
    "metrics.nll.n=361": r"metrics\.nll\.n=361: 360 images were held out",
    "metrics.nll.num_steps=50": r"metrics\.nll\.num_steps=50: the schedule has 49 steps beside t = 0",
    "variance=learned": r"variance: one that is learned belongs to its network",
    "data.pat=x": r"data\.pat: there is no such key",
    "data=folder": r"data\.path is missing",
    "data=folder data.path=others data.image_size=8 data.channels=1": (
        r"data: its classes are cat, dog, and .* conditional=true on 0, 1, 2, 3, 4 \.\.\."
    ),
    "metrics.nll=null": r"metrics: nothing is to be measured; choose metrics=",
    "metrics.nil.n=3": r"metrics\.nil: there is no such key; did you mean metrics\.nll\?",
    "variance.x=1": r"variance\.x: what is chosen for variance takes no keys; .*variance=fixed_small",
    "weights=best": r"weights=best: must be ema or raw",
}


def evaluated(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        command_line.run("evaluate")
    return exit_.value.code


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_told(
    arguments: str,
    conditional_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "others" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "others" / name / "1.png")
    assert evaluated(f"ckpt={conditional_run}", *arguments.split(), monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert re.search(MISTAKES[arguments], said), said
    assert [path.name for path in tmp_path.iterdir()] == ["others"]


def test_classes_in_another_order_are_numbered_as_the_runs_are(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Earlier versions put names in another order; which image is of which class has not changed."""
    monkeypatch.chdir(tmp_path)
    names = [str(i) for i in reversed(range(10))]
    _, checkpoint = found(conditional_run)
    checkpoint["data"]["classes"] = names
    torch.save(checkpoint, tmp_path / "old.ckpt")
    seen: list[ImageDataModule] = []
    measure = NLL.__call__

    def look(self: NLL, module: Any, data: ImageDataModule, **settings: Any) -> dict[str, Any]:
        seen.append(data)
        return measure(self, module, data, **settings)

    monkeypatch.setattr(NLL, "__call__", look)
    words = ("ckpt=old.ckpt", "metrics.nll.n=4", "metrics.nll.num_steps=2")
    assert evaluated(*words, monkeypatch=monkeypatch) == 0
    own = Digits().read()
    assert seen[0].data_set.classes == names
    assert np.array_equal(seen[0].data_set.validation.labels, 9 - own.validation.labels)


@pytest.mark.e2e
def test_figures_are_left_in_metrics_json(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, settings in {
        "own": [],
        "small": ["variance=fixed_small"],
        "raw": ["weights=raw"],
        "drawn": ["metrics.nll.num_steps=7"],
    }.items():
        directory = tmp_path / name
        arguments = (f"ckpt={conditional_run}", "metrics.nll.n=20", f"hydra.run.dir={directory}", *settings)
        assert evaluated(*arguments, monkeypatch=monkeypatch) == 0
        found[name] = json.loads((directory / "metrics.json").read_text())
        assert (directory / "nll.png").exists() == (name != "drawn")
    assert found["own"]["step"] == 0
    assert found["own"]["settings"]["variance"]["_target_"].endswith("FixedLarge")
    assert found["small"]["settings"]["variance"]["_target_"].endswith("FixedSmall")
    assert found["drawn"]["settings"]["metrics"]["nll"]["num_steps"] == 7
    assert found["own"]["data"]["num_validation"] == 360
    bits = {name: values["nll"]["bits_per_dim"] for name, values in found.items()}
    assert len(set(bits.values())) == 4  # the output layer is random, so variances and weights show
    own = found["own"]["nll"]
    assert own["bits_per_dim"] == pytest.approx(own["prior"] + own["middle"] + own["decoder"])
    assert own["standard_error_of_steps"] == 0
    assert found["drawn"]["nll"]["standard_error_of_steps"] > 0
    assert abs(bits["drawn"] - bits["own"]) < 5 * found["drawn"]["nll"]["standard_error_of_steps"]
