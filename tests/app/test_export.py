"""`python -m ddpm export`: what lies beside the weights, and sending it to a hub."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from conftest import run_command
from PIL import Image

from ddpm.interop import sums
from ddpm.interop.diffusers import import_pipeline

MEASURED = """{"ckpt": "/moved/away/run/checkpoints/last.ckpt", "step": STEP, "weights": "ema",
"fid": {"fid50k_train_inception_ema_ddim4": 40.5, "interval": [40.0, 41.0], "of": {"nfe": 4}}}"""

RECORD = """{"status": "finished", "step": 0, "parameters": 1234, "choices": {"data": "digits"},
"git": {"commit": "603f07ef", "changed": false}, "metrics": {"val/loss": 0.25, "train/loss": 0.2}}"""


def export(monkeypatch: pytest.MonkeyPatch, *words: Path | str) -> int:
    return run_command(monkeypatch, "export", *words)


@pytest.fixture
def run(unconditional_run: Path, tmp_path: Path) -> Path:
    """A run directory with a record, grids and measurements."""
    directory = tmp_path / "run"
    shutil.copytree(unconditional_run, directory)
    (directory / "run.json").write_text(RECORD)
    for step, level in ((0, 10), (10, 20)):
        (directory / "samples").mkdir(exist_ok=True)
        Image.new("L", (8, 8), level).save(directory / "samples" / f"step_{step:08d}.png")
    for place, step in (("measured", 0), ("earlier", 5)):
        (directory / place).mkdir()
        (directory / place / "metrics.json").write_text(MEASURED.replace("STEP", str(step)))
    return directory


def snippets(card: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)


def test_a_card_and_a_picture_lie_beside_the_weights(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Of the grids the last that these weights are not behind, of the measurements all, by their steps."""
    assert export(monkeypatch, run, tmp_path / "out") == 0
    out = tmp_path / "out"
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out / "samples.png") as picture:
        assert picture.getpixel((0, 0)) == 10
    card = (out / "README.md").read_text()
    assert "\n# out\n" in card
    assert "![Samples at step 0](samples.png)" in card
    assert "| commit | 603f07ef |" in card
    for step in (0, 5):
        name = "fid50k\\_train\\_inception\\_ema\\_ddim4"
        assert f"| {name} | 40.5 | 40 to 41 | Fréchet Inception distance | step {step} |" in card
    assert "| val/loss | 0.25 |" in card
    assert "train/loss" not in card
    (result,) = huggingface_hub.ModelCard.load(out / "README.md").data.eval_results
    assert result.metric_value == 40.5
    assert {"README.md", "samples.png"} <= {
        line.split("  ")[1] for line in (out / sums.SUMS).read_text().splitlines()
    }
    assert import_pipeline(out, tmp_path / "back").is_dir(), "what lies beside it is no hindrance"


def test_what_another_run_measured_is_left_out(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "other.ckpt"
    other.touch()
    for place in ("measured", "earlier"):
        file = run / place / "metrics.json"
        file.write_text(file.read_text().replace("/moved/away/run/checkpoints/last.ckpt", str(other)))
    (run / "samples" / "step_00000000.png").write_bytes(b"half")
    assert export(monkeypatch, run, tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "fid50k" not in card
    assert "model-index" not in card
    assert not (tmp_path / "out" / "samples.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_what_the_card_says_of_use_runs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    run = request.getfixturevalue(f"{kind}_run")
    assert export(monkeypatch, run, tmp_path / "out") == 0
    monkeypatch.chdir(tmp_path / "out")
    known: dict[str, Any] = {}
    directory, with_diffusers, with_ddpm = snippets(tmp_path / "out" / "README.md")
    exec(directory + with_diffusers, known)
    images = known["images"]
    assert len(images) == 4
    assert images.shape[1:] == (1, 8, 8) if kind == "conditional" else images[0].size == (8, 8)
    exec(with_ddpm, known)
    assert known["images"].shape == (4, 1, 8, 8)
    assert torch.isfinite(known["images"]).all()


class StandIn:
    """Of the hub's interface: keeps what it is sent."""

    sent: dict[str, bytes]
    fails: Exception | None = None

    def create_repo(self, repo_id: str, *, exist_ok: bool) -> Any:
        assert exist_ok, "a repository that is there is used"
        if StandIn.fails is not None:
            raise StandIn.fails
        return SimpleNamespace(repo_id=repo_id, __str__=lambda self: repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        files = (path for path in folder_path.rglob("*") if path.is_file())
        StandIn.sent = {f"{repo_id}/{path.relative_to(folder_path)}": path.read_bytes() for path in files}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """Stands for the Hugging Face hub and for a person's token of it."""
    monkeypatch.setattr(huggingface_hub, "HfApi", StandIn)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    monkeypatch.setattr(StandIn, "sent", {}, raising=False)
    monkeypatch.setattr(StandIn, "fails", None)
    return StandIn


def test_a_run_is_sent_whole(run: Path, tmp_path: Path, hub: type[StandIn], monkeypatch: pytest.MonkeyPatch):
    assert export(monkeypatch, run, tmp_path / "out", "--push-to-hub", "me/digits") == 0
    files = {f"me/digits/{path.relative_to(tmp_path / 'out')}" for path in (tmp_path / "out").rglob("*.*")}
    assert files <= hub.sent.keys()
    card = hub.sent["me/digits/README.md"].decode()
    assert "\n# digits\n" in card
    assert 'directory = snapshot_download("me/digits")' in card


@pytest.mark.parametrize(
    ("token", "fails", "message"),
    [
        (None, None, "there is no token of the hub; hf auth login asks for one"),
        ("hf_token", ConnectionError("[Errno -2] Name or service not known"), "Name or service not known"),
        (
            "hf_token",
            RuntimeError("403 Forbidden: read only token\nmore"),
            "(403 Forbidden: read only token)",
        ),
    ],
)
def test_what_is_not_sent_stays(
    token: str | None,
    fails: Exception | None,
    message: str,
    run: Path,
    tmp_path: Path,
    hub: type[StandIn],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    monkeypatch.setattr(hub, "fails", fails)
    out = tmp_path / "out"
    assert export(monkeypatch, run, out, "--push-to-hub", "me/digits") == 2
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert message in said.err
    assert f"hf upload me/digits {out}" in said.err
    assert len(said.err.splitlines()) == 1
    assert not hub.sent
    sums.check(out, [out / "README.md", out / "unet" / "diffusion_pytorch_model.safetensors"])


@pytest.mark.parametrize("name", ["me/my digits", "digits"])
def test_a_name_that_no_repository_can_have_is_told_before_anything_is_written(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    assert export(monkeypatch, run, tmp_path / "out", "--push-to-hub", name) == 2
    assert f"--push-to-hub {name}: is no name of a repository" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
