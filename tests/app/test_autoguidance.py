"""guidance=autoguidance: a second checkpoint as guide, in sample.py, evaluate.py, train.py and notebooks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_here

import ddpm
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.guidance import Autoguidance
from ddpm.errors import UsageError
from ddpm.training.checkpoints import LAST, load, write

MakeGuide = Callable[..., Path]


@pytest.fixture
def make_guide(unconditional_run: Path, tmp_path: Path) -> MakeGuide:
    """A worse run: the averaged weights shrunk; its configuration changed where a test says so."""

    def make(name: str = "guide", of: Path = unconditional_run, **changes: Any) -> Path:
        checkpoint = load(of / "checkpoints" / LAST)
        average = {key: 0.8 * value for key, value in checkpoint["ema"]["parameters"].items()}
        config = {**checkpoint["config"], **changes.get("config", {})}
        made = {**checkpoint, "ema": {**checkpoint["ema"], "parameters": average}, "config": config}
        made |= {key: value for key, value in changes.items() if key != "config"}
        write(made, tmp_path / name / "checkpoints" / LAST)
        return tmp_path / name

    return make


def test_samples_are_led_away_from_the_guide(
    unconditional_run: Path, make_guide: MakeGuide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    guide, run = make_guide(global_step=7), ddpm.load(unconditional_run, "cpu")

    def drawn(out: str, *words: str) -> np.ndarray:
        words = (f"ckpt={unconditional_run}", f"out={tmp_path / out}", "n=2", *words)
        assert run_here(monkeypatch, "sample", *words) == 0
        return np.load(tmp_path / out / "samples.npz")["arr_0"]

    chosen = ("guidance=autoguidance", f"guidance.ckpt={guide}")
    guided = drawn("guided", *chosen)
    assert f"guided by {guide / 'checkpoints' / LAST}, step 7" in (tmp_path / "guided/sample.log").read_text()
    request = json.loads((tmp_path / "guided" / "request.json").read_text())
    assert request["contents"]["guidance.ckpt"]

    in_notebook = run.sample(2, guidance="autoguidance", ckpt=str(guide))
    assert torch.equal(
        ((in_notebook + 1) * 127.5).round().to(torch.uint8)[:, 0], torch.tensor(guided)[..., 0]
    )
    alone = ddpm.load(guide, "cpu").sample(2)
    assert torch.equal(run.sample(2, guidance="autoguidance", ckpt=str(guide), scale=0.0), alone)


def test_a_measurement_records_its_guide(
    unconditional_run: Path, make_guide: MakeGuide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    guide = make_guide(global_step=7)
    words = ("metrics=[kid]", "extractor=pixels", "n=16", f"hydra.run.dir={tmp_path / 'out'}")
    words = (*words, "guidance=autoguidance", f"guidance.ckpt={guide}", "guidance.shape=linear")
    assert run_here(monkeypatch, "evaluate", f"ckpt={unconditional_run}", *words) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["kid"]
    assert any(name.endswith("_ema_ddim4_autoguided2linear") for name in found)
    about = found["of"]["guide"]
    assert (about["ckpt"], about["step"]) == (str(guide / "checkpoints" / LAST), 7)
    assert len(about["fingerprint"]) == 16
    assert found["of"]["nfe"] == 8


REFUSED = {
    "a schedule of 50 steps, not 60": {"schedule": {"num_timesteps": 60}},
    "a schedule of other betas": {"schedule": {"beta_end": 0.01}},
    "the objective Epsilon, not V": {"objective": {"_target_": "ddpm.diffusion.objectives.V"}},
}


@pytest.mark.parametrize("told", REFUSED)
def test_a_guide_of_another_kind_is_refused(told: str, unconditional_run: Path, make_guide: MakeGuide):
    own = load(unconditional_run / "checkpoints" / LAST)["config"]
    guide = make_guide(config={group: own[group] | keys for group, keys in REFUSED[told].items()})
    with pytest.raises(UsageError, match=f"guidance.ckpt={guide}.*the guide is of another kind .*{told}"):
        ddpm.load(unconditional_run, "cpu").sample(1, guidance="autoguidance", ckpt=str(guide))


def test_a_guide_of_latents_of_another_scale_is_refused(unconditional_run: Path, make_guide: MakeGuide):
    data = load(unconditional_run / "checkpoints" / LAST)["data"]
    runs = [
        make_guide(name, data={**data, "latents": {"scale": scale, "shift": 0.0}}, config={"clip_x_0": False})
        for name, scale in (("one", 0.5), ("other", 0.25))
    ]
    run = ddpm.load(runs[0], "cpu")
    run.sample(1, guidance="autoguidance", ckpt=str(runs[0]))
    with pytest.raises(UsageError, match=r"latents of scale 0\.5 and shift 0, not latents of scale 0\.25"):
        run.sample(1, guidance="autoguidance", ckpt=str(runs[1]))


def test_a_guide_under_another_kind_of_condition_is_refused(downsampled_run: Path, make_guide: MakeGuide):
    data = load(downsampled_run / "checkpoints" / LAST)["data"]
    run, condition = ddpm.load(downsampled_run, "cpu"), Condition(torch.zeros(1, 1, 8, 8))
    paired = {**data, "condition": {**data["condition"], "kind": "Paired"}}
    same, other = make_guide(of=downsampled_run), make_guide("other", downsampled_run, data=paired)
    run.sample(1, condition=condition, guidance="autoguidance", ckpt=str(same))
    with pytest.raises(UsageError, match="another condition beside the class"):
        run.sample(1, condition=condition, guidance="autoguidance", ckpt=str(other))


def test_a_guide_that_knows_classes_is_refused_where_the_run_does_not(
    unconditional_run: Path,
    conditional_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    words = (f"ckpt={unconditional_run}", "guidance=autoguidance", f"out={tmp_path / 'out'}")
    assert run_here(monkeypatch, "sample", *words, f"guidance.ckpt={conditional_run}") == 2
    assert "no classes, not 10 classes" in capsys.readouterr().err
    assert run_here(monkeypatch, "sample", *words, f"guidance.ckpt={tmp_path / 'nowhere'}") == 2
    assert f"guidance.ckpt={tmp_path / 'nowhere'}: there is no such run" in capsys.readouterr().err
    assert run_here(monkeypatch, "sample", *words) == 2
    assert "guidance.ckpt is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_whose_own_guide_is_gone_is_loaded_all_the_same(
    unconditional_run: Path, make_guide: MakeGuide, caplog: pytest.LogCaptureFixture
):
    node = {"_target_": "ddpm.diffusion.guidance.Autoguidance", "ckpt": "nowhere", "scale": 2.0}
    run = ddpm.load(make_guide(config={"guidance": node}), "cpu")
    assert isinstance(run.module.guidance, Autoguidance)
    assert "the guide of this run cannot be used: guidance.ckpt=" in caplog.text
    assert run.sample(1, guidance="none").shape == (1, 1, 8, 8)
    with pytest.raises(ValueError, match="the guide is not loaded"):
        run.sample(1)
    with_guide = ddpm.load(make_guide("other", config={"guidance": {**node, "ckpt": str(unconditional_run)}}))
    assert with_guide.sample(1).shape == (1, 1, 8, 8)
