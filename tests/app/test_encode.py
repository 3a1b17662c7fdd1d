"""From images to latents and back: `ddpm encode`, training on what it writes, samples that are decoded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.sources.digits import Digits
from ddpm.data.sources.latents import Latents
from ddpm.sampling import seen
from tests.conftest import run_here

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

NETWORK = ("model=dit", "model.patch_size=2", "model.width=16", "model.depth=1", "model.heads=2")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small autoencoder of random weights, which makes images half as large."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        norm_num_groups=2,
        scaling_factor=0.5,
        shift_factor=0.25,
    ).save_pretrained(folder)
    return folder


def test_latents_are_made_trained_on_and_decoded(
    vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from diffusers import AutoencoderKL

    monkeypatch.chdir(tmp_path)
    words = ("data=digits", f"vae={vae}", "out=latents.npz", "batch_size=500")
    assert run_here(monkeypatch, "encode", *words) == 0
    file = tmp_path / "latents.npz"
    assert not list(tmp_path.glob(".*"))  # nothing of the work is left
    found, digits = Latents(file, vae=str(vae)).read(), Digits().read()
    assert found.classes == digits.classes
    np.testing.assert_array_equal(found.validation.labels, digits.validation.labels)
    network = AutoencoderKL.from_pretrained(vae, low_cpu_mem_usage=False).eval()
    x_0 = torch.from_numpy(digits.train.images[:8]).float().expand(-1, 3, -1, -1) / 127.5 - 1
    with torch.no_grad():
        mean = network.encode(x_0).latent_dist.mean
    np.testing.assert_allclose(found.train.images[:8], ((mean - 0.25) * 0.5).numpy(), atol=1e-5)
    made_by = json.loads(str(np.load(file)["vae"]))
    assert made_by["scaling_factor"] == 0.5
    assert run_here(monkeypatch, "encode", *words) == 2
    assert "out=" in capsys.readouterr().err

    run = tmp_path / "run"
    training = ("schedule.num_timesteps=60", "trainer.max_steps=2", "trainer.accelerator=cpu", "logger=none")
    data = ("data=latents", "data.path=latents.npz", f"data.vae={vae}", "data.batch_size=8")
    assert (
        run_here(
            monkeypatch, "train", *data, *NETWORK, *training, "callbacks.samples.n=4", f"hydra.run.dir={run}"
        )
        == 0
    )
    grid = np.asarray(Image.open(run / "samples" / "step_00000002.png"))
    assert grid.ndim == 3

    drawn = tmp_path / "drawn"
    sampling = (f"ckpt={run}", "n=3", "format=both", "sampler=ddim", "sampler.num_steps=2", f"out={drawn}")
    assert run_here(monkeypatch, "sample", *sampling) == 0
    images = np.load(drawn / "samples.npz")["arr_0"]
    assert (images.shape, images.dtype) == ((3, 8, 8, 3), np.uint8)
    assert len(list((drawn / "images").iterdir())) == 3
    assert run_here(monkeypatch, "evaluate", f"ckpt={run}") == 2
    assert "8-bit images, which latents do not have" in capsys.readouterr().err

    vae.rename(vae.with_name("gone"))  # without it the latents themselves are left
    seen._loaded.cache_clear()  # another process would have to load it
    again = tmp_path / "again"
    assert run_here(monkeypatch, "sample", *sampling[:-1], f"out={again}") == 0
    vae.with_name("gone").rename(vae)
    kept = np.load(again / "samples.npz")
    assert kept["latents"].dtype == np.float32
    assert kept["latents"].shape == (3, 4, 4, 4)
    with torch.no_grad():
        decoded = network.decode(torch.from_numpy(kept["latents"])).sample.clamp(-1, 1)
    expected = ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.abs(images.astype(int) - expected).max() <= 1
    assert Latents(again / "samples.npz").read().image_shape == (4, 4, 4)


def test_an_encoding_that_was_stopped_goes_on(vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ddpm.data.autoencoder import Autoencoder

    monkeypatch.chdir(tmp_path)
    words = ("data=digits", f"vae={vae}", "out=latents.npz", "draw=sample", "batch_size=600")
    whole, encode, calls = tmp_path / "whole.npz", Autoencoder.encode, []
    assert run_here(monkeypatch, "encode", *words[:2], f"out={whole}", *words[3:]) == 0

    def counted(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(Autoencoder, "encode", counted)
    assert run_here(monkeypatch, "encode", *words) == 130
    assert not (tmp_path / "latents.npz").exists()
    assert run_here(monkeypatch, "encode", *words[:3], "draw=mean", words[4]) == 2  # another command's pieces
    assert run_here(monkeypatch, "encode", *words) == 0
    assert len(calls) == 5  # of 3 pieces to train on and 1 held out, one was there
    with np.load(tmp_path / "latents.npz") as again, np.load(whole) as first:
        assert again.files == first.files
        for name in first.files:
            np.testing.assert_array_equal(again[name], first[name])
