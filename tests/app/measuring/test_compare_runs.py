"""evaluate.py 'ckpt=[A,B]': each run is measured as by itself, and the two are compared."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, run_here
from PIL import Image

from ddpm.app import check
from ddpm.app.measuring.drawn_quality import DrawnQuality
from ddpm.app.measuring.several_runs import KEPT
from ddpm.errors import UsageError
from ddpm.evaluation.kept import read
from ddpm.run import found
from ddpm.sampling.drawing import Drawing

WORDS = (
    "metrics=[kid,precision_recall,nearest,nll]", "extractor=pixels", "n=12", "sampler.num_steps=2",
    "metrics.nll.n=6", "metrics.nll.num_steps=2", "trainer.accelerator=cpu", "trainer.devices=1",
)  # fmt: skip


@pytest.fixture
def here(conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two runs, a and b, of which the second's weights are another's."""
    made(conditional_run, tmp_path / "a", 1.0)
    made(conditional_run, tmp_path / "b", 0.7)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(origin: Path, directory: Path, factor: float, **changes: Any) -> None:
    """A run like another, with weights times a factor."""
    _, checkpoint = found(origin)
    for name, value in checkpoint["ema"].items():
        scaled = {key: factor * part for key, part in value.items()} if isinstance(value, dict) else value
        checkpoint["ema"][name] = scaled
    (directory / "checkpoints").mkdir(parents=True)
    torch.save({**checkpoint, **changes}, directory / "checkpoints" / "last.ckpt")


def without_seconds(node: Any) -> Any:
    """Values that are the same whenever they are measured."""
    if isinstance(node, dict):
        return {key: without_seconds(value) for key, value in node.items() if key != "seconds_per_image"}
    return node


@pytest.mark.e2e
def test_each_run_is_measured_as_by_itself_and_they_are_compared(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    assert run_here(monkeypatch, "evaluate", "ckpt=[a,./b]", *WORDS, "hydra.run.dir=both") == 0
    said = capsys.readouterr().out
    for name in "ab":
        assert run_here(monkeypatch, "evaluate", f"ckpt=[{name}]", *WORDS, f"hydra.run.dir=only_{name}") == 0
    both = json.loads((here / "both/metrics.json").read_text())
    assert list(both) == ["runs", "differences"]
    assert list(both["runs"]) == ["a", "b"]
    for name, values in both["runs"].items():
        alone = json.loads((here / f"only_{name}/metrics.json").read_text())
        assert without_seconds(values) == without_seconds(alone)
        assert values == json.loads((here / f"both/compared/{name}/metrics.json").read_text())
        assert (here / f"both/compared/{name}/nearest.png").is_file()
    assert list(both["differences"]) == ["kid", "precision", "recall", "nearest", "nll"]
    assert both["differences"]["nearest"]["pairs"] == []
    assert "no spread" in both["differences"]["nearest"]["why"]
    (pair,) = both["differences"]["nll"]["pairs"]
    bits = [values["nll"]["bits_per_dim"] for values in both["runs"].values()]
    assert pair["difference"] == pytest.approx(bits[0] - bits[1])
    assert pair["interval"][0] < pair["difference"] < pair["interval"][1]
    (line,) = (line for line in said.splitlines() if line.startswith("run "))
    assert line.split() == ["run", "kid", "precision", "recall", "nearest", "nll"]
    assert len(re.findall(r"^[ab] (?:is better than|and) [ab] .*\[.*\]", said, re.MULTILINE)) == 4
    assert sorted(path.name for path in (here / "both").iterdir()) == [
        "compare.png", "compared", "evaluate.log", "metrics.json", "request.json", "values.png",
    ]  # fmt: skip
    assert sorted(path.name for path in (here / "both/compared/a").iterdir()) == [
        "metrics.json", "nearest.png", "nll.png", "paired.npz",
    ]  # fmt: skip
    assert np.asarray(Image.open(here / "both/compare.png")).shape[1] > 8 * 64
    capsys.readouterr()
    assert run_here(monkeypatch, "evaluate", "ckpt=[b,a]", *WORDS, "hydra.run.dir=both") == 0
    assert "both: holds these measurements already" in capsys.readouterr().out


@pytest.mark.e2e
def test_what_was_measured_before_a_stop_is_not_measured_again(here: Path, monkeypatch: pytest.MonkeyPatch):
    words = ("ckpt=[a,b]", "metrics=[kid]", *WORDS[1:4], *WORDS[-2:], "hydra.run.dir=out")
    drawn: list[range] = []
    draw, measure = Drawing.__call__, DrawnQuality.measure

    def counted(self: Drawing, indices: range, **settings: Any) -> torch.Tensor:
        drawn.append(indices)
        return draw(self, indices, **settings)

    def stops(self: DrawnQuality, directory: Path, *rest: Any) -> Any:
        if directory.name == "b":
            raise RuntimeError("stopped")
        return measure(self, directory, *rest)

    monkeypatch.setattr(Drawing, "__call__", counted)
    with monkeypatch.context() as patch:
        patch.setattr(DrawnQuality, "measure", stops)
        assert run_here(monkeypatch, "evaluate", *words) == 1
    assert drawn == [range(12)]
    assert not (here / "out/metrics.json").exists()
    assert (here / "out/compared/a/metrics.json").exists()
    assert run_here(monkeypatch, "evaluate", *words) == 0
    assert drawn == [range(12)] * 2
    assert len(json.loads((here / "out/metrics.json").read_text())["runs"]) == 2
    made(here / "b", here / "other", 0.5)
    shutil.copy(here / "other/checkpoints/last.ckpt", here / "b/checkpoints/last.ckpt")
    assert run_here(monkeypatch, "evaluate", *words) == 2


@pytest.mark.e2e
def test_the_noise_of_a_sample_is_the_same_for_every_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Runs of one network draw the same samples, whatever they are called: nothing differs."""
    _, checkpoint = found(here / "a")
    (here / "again/checkpoints").mkdir(parents=True)
    torch.save({**checkpoint, "global_step": 7}, here / "again/checkpoints/last.ckpt")
    words = ("metrics=[kid,nll]", *WORDS[1:], "hydra.run.dir=out")
    assert run_here(monkeypatch, "evaluate", "ckpt=[a,again]", *words) == 0
    kept = [read(here / "out/compared" / name / KEPT) for name in ("a", "again")]
    assert np.array_equal(kept[0].images, kept[1].images)
    assert kept[0].images.shape == (8, 1, 8, 8)
    said = capsys.readouterr().out
    for name, value in json.loads((here / "out/metrics.json").read_text())["differences"].items():
        (pair,) = value["pairs"]
        assert (pair["difference"], pair["p_value"]) == (0, 1)
        assert (pair["meaningful"], pair["better"]) == (False, None)
        assert f"a and again do not differ in {name} beyond chance" in said


REFUSED = {
    "ckpt=[a,a]": r"ckpt: .*a/checkpoints/last\.ckpt and .* are the same checkpoint; leave one of them out",
    "ckpt=[a,c]": r"ckpt=.*/c: there is no such run directory",
    "ckpt=[a,]": r"ckpt=\[a,\]: one path is empty; write \[A,B\]",
    "ckpt=[]": r"one path is empty",
    "ckpt=[a,b] samples=a": r"ckpt and samples: give one",
    "ckpt=[a,b] strategy=fsdp": r"strategy=fsdp: parts the network of one run, and ckpt names 2; leave",
    "ckpt=[a,b] metrics=[kid] n=1": r"metrics=kid: 1 samples are too few, .* \(the run a\)",
    "ckpt=[a,b] metrics=[nll] n=5": r"n: is for metrics of samples",
    "ckpt=[a,other] ": r"ckpt: a has the classes 0, 1, .* and other has cat, 1, .*; compare runs with",
    "ckpt=[a,turned] ": r"and turned has 1, 0, .* in another order",
    "ckpt=[a,plain] metrics=[own_label]": r"metrics=own_label: .* \(the run plain\)",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_a_mistake_is_told(
    arguments: str,
    here: Path,
    unconditional_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    if "plain" in arguments:
        shutil.copytree(unconditional_run, here / "plain")
    _, checkpoint = found(here / "a")
    classes = checkpoint["data"]["classes"]
    for name, other in {
        "other": ["cat", *classes[1:]],
        "turned": [classes[1], classes[0], *classes[2:]],
    }.items():
        if name in arguments:
            made(here / "a", here / name, 1.0, data={**checkpoint["data"], "classes": other})
    before = sorted(path.name for path in here.iterdir())
    words = (*arguments.split(), "trainer.accelerator=cpu", "trainer.devices=1")
    assert run_here(monkeypatch, "evaluate", *words) == 2
    said = capsys.readouterr().err
    assert re.search(REFUSED[arguments], said), said
    assert sorted(path.name for path in here.iterdir()) == before


@pytest.mark.parametrize("program", ["train", "sample"])
def test_other_programs_take_one_run(program: str):
    config = composed(program, "ckpt=[a,b]")
    with pytest.raises(UsageError, match=r"ckpt=\[a,b\]: names several runs, which evaluate.py compares"):
        check.check_paths(config)
