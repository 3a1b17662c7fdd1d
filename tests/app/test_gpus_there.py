"""GPUs that are not there are refused in a message; CPU processes may be any number."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import accepted, run_here

from ddpm.app import gpus_there
from ddpm.errors import UsageError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends that there are as many."""

    def pretend(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return pretend


@pytest.mark.parametrize(
    ("there", "trainer", "said"),
    [
        (
            0,
            {"accelerator": "gpu", "devices": 1},
            "trainer.accelerator=gpu: .* sees no GPU here; use trainer.acc",
        ),
        (0, {"accelerator": "cuda", "devices": "auto"}, "trainer.accelerator=cuda: "),
        (
            2,
            {"accelerator": "gpu", "devices": 3},
            "trainer.devices=3: there are 2 GPUs here; use trainer.devi",
        ),
        (1, {"accelerator": "auto", "devices": 2}, "trainer.devices=2: there is 1 GPU here"),
    ],
)
def test_gpus_that_are_not_there_are_refused(there: int, trainer: dict[str, Any], said: str, gpus: Any):
    gpus(there)
    with pytest.raises(UsageError, match=said):
        gpus_there.check(trainer)


@pytest.mark.parametrize(
    ("there", "trainer"),
    [
        (0, {"accelerator": "cpu", "devices": 64}),
        (0, {"accelerator": "auto", "devices": 64}),
        (2, {"accelerator": "cpu", "devices": 64}),
        (2, {"accelerator": "gpu", "devices": 2}),
        (2, {"accelerator": "gpu", "devices": "auto"}),
        (2, {"accelerator": "auto", "devices": -1}),
    ],
)
def test_others_are_taken(there: int, trainer: dict[str, Any], gpus: Any):
    gpus(there)
    gpus_there.check(trainer)


@pytest.mark.parametrize("launcher", ["fresh_process", "basic"])
def test_a_sweep_is_refused_before_its_first_job(
    launcher: str,
    gpus: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    gpus(0)
    monkeypatch.chdir(tmp_path)
    words = ("-m", f"hydra/launcher={launcher}", "trainer.accelerator=cpu,gpu")
    assert run_here(monkeypatch, "train", *words, prepare=accepted) == 2
    assert capsys.readouterr().err.startswith("error: trainer.accelerator=gpu: ")
    assert not list(tmp_path.iterdir())


def test_more_jobs_at_once_than_gpus_are_refused(
    gpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    gpus(2)
    monkeypatch.chdir(tmp_path)
    words = ("-m", "hydra.launcher.n_jobs=3", "seed=0,1,2", "trainer.devices=1")
    assert run_here(monkeypatch, "train", *words, prepare=accepted) == 2
    assert (
        "n_jobs=3: jobs at once of trainer.devices=1 need 3 GPUs, and there are 2" in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())
