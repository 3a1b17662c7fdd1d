"""Latents as data: floats with their scale, never clipped or rounded, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.latents import Latents
from ddpm.diffusion.schedules import linear
from ddpm.errors import UsageError
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import SPREAD, to_uint8
from ddpm.sampling.seen import seen, seen_said, seen_shape
from ddpm.training.building import build_module
from ddpm.training.module import DDPM
from tests.conftest import composed


def latents(n: int = 20) -> np.ndarray:
    """float32 [n, 4, 2, 2] that deviate by about 2."""
    return 2 * np.random.default_rng(0).normal(size=(n, 4, 2, 2)).astype(np.float32)


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "latents.npz", **{"latents": latents(), "scale": 0.5, **arrays})
    return folder / "latents.npz"


def test_latents_become_x_0_by_shift_and_scale(tmp_path: Path):
    file = saved(tmp_path, shift=1.0, validation_latents=latents(3))
    for path in (file, tmp_path):
        found = Latents(path).read()
        np.testing.assert_array_equal(found.train.images, (latents() - 1) * np.float32(0.5))
        assert len(found.validation) == 3
        assert found.latents is not None
        assert (found.latents["scale"], found.latents["shift"]) == (0.5, 1.0)
    assert Latents(file, scale=2.0, shift=0.0).read().train.images.std() > 3


def test_labels_are_numbered_and_a_share_is_held_out(tmp_path: Path):
    words = np.array(["dog", "cat"] * 10)
    found = Latents(saved(tmp_path, labels=words), validation_fraction=0.2).read()
    assert found.classes == ["cat", "dog"]
    assert (len(found.train), len(found.validation)) == (16, 4)
    for part in (found.train, found.validation):
        assert isinstance(part, ImageSet)
        for x_0, label in zip(part.images, part.labels, strict=True):
            place = int(np.flatnonzero((latents() * np.float32(0.5) == x_0).all((1, 2, 3)))[0])
            assert found.classes[label] == words[place]


def test_words_are_numbered_as_the_classes_that_are_named(tmp_path: Path):
    """Also those that no latent is of: the network has an input for each."""
    file = saved(tmp_path, labels=["owl", "cat"] * 10, classes=["owl", "dog", "cat"])
    found = Latents(file, validation_fraction=0.0).read()
    assert found.classes == ["owl", "dog", "cat"]
    assert isinstance(found.train, ImageSet)
    assert found.train.labels is not None
    assert sorted(found.train.labels.tolist()) == [0] * 10 + [2] * 10


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"scale": np.array([])}, "scale must be one finite number"),
        ({"scale": np.nan}, "scale must be one finite number"),
        ({"scale": 0.0}, "scale is 0"),
        ({"latents": latents().astype(np.uint8)}, "latents must be floats"),
        ({"latents": latents()[0]}, "latents must be floats"),
        ({"latents": latents(0)}, "holds no latents"),
        (
            {"latents": np.where(np.arange(20)[:, None, None, None] == 7, np.nan, latents())},
            "latent 7 of latents",
        ),
        ({"validation_latents": latents()[:, :3]}, "of one shape"),
        ({"labels": np.arange(3)}, "labels must be whole numbers or words"),
        (
            {"labels": np.arange(20) % 3 + 1, "classes": list("abc")},
            "labels name a class 3, and classes are 3",
        ),
        ({"labels": list("ab" * 10), "classes": list("ac")}, "labels name a class b, and classes are 2"),
        (
            {"labels": np.arange(20), "validation_latents": latents()},
            "labels and validation_labels is missing",
        ),
        ({"vae": "[1]"}, "vae must be a JSON object"),
    ],
)
def test_files_that_hold_no_such_latents_are_refused(tmp_path: Path, arrays: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        Latents(saved(tmp_path, **arrays)).read()


def test_latents_without_their_scale_are_refused_by_the_key(tmp_path: Path):
    np.savez(tmp_path / "x.npz", latents=latents())
    with pytest.raises(ValueError, match=r"data\.scale is not set, .* deviate by 2"):
        Latents(tmp_path / "x.npz").read()
    assert Latents(tmp_path / "x.npz", scale=0.5).read().image_shape == (4, 2, 2)
    np.savez(tmp_path / "y.npz", images=latents())
    with pytest.raises(ValueError, match="no array called latents, but images float32"):
        Latents(tmp_path / "y.npz").read()
    (tmp_path / "z.npz").write_bytes(b"no npz")
    with pytest.raises(ValueError, match="cannot be read as an npz file of latents"):
        Latents(tmp_path / "z.npz").read()


def test_floats_that_are_no_latents_are_refused():
    part = ImageSet(latents())
    with pytest.raises(ValueError, match="float32, which is for latents"):
        DataSet(part, part)


def test_figures_of_latents_are_on_their_own_scale(tmp_path: Path):
    found = Latents(saved(tmp_path)).read()
    every = np.concatenate([found.train.images, found.validation.images])
    np.testing.assert_allclose(found.facts["mean"], every.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.facts["std"], every.std((0, 2, 3)), atol=1e-6)


def test_levels_are_not_spread_where_there_are_none(tmp_path: Path):
    data = ImageDataModule(Latents(saved(tmp_path)), dequantize=True)
    with pytest.raises(ValueError, match=r"data\.dequantize=true: latents have no levels"):
        _ = data.data_set


def module_of(**settings: Any) -> DDPM:
    """A model of latents that predicts eps = 0, so that x_0 grows beyond [-1, 1]."""

    class Zero(torch.nn.Module):
        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return torch.zeros_like(x_t)

    about = {"scale": 0.5, "shift": 0.0, "vae": None}
    return DDPM(
        Zero(), linear(100), image_shape=(4, 2, 2), clip_x_0=False, data={"latents": about}, **settings
    )


def test_samples_of_latents_are_not_clipped():
    x_0 = Drawing(module_of())(range(4))
    assert x_0.abs().max() > 1


def test_without_an_autoencoder_the_channels_of_latents_are_seen():
    module, x_0 = module_of(), torch.linspace(-4, 4, 16).view(1, 4, 2, 2)
    assert torch.equal(seen(module, x_0), to_uint8(x_0 / SPREAD))
    assert seen_shape(module) == (4, 2, 2)
    assert seen_said(module) == "; latents, channels 0 to 3 of each side by side, -3 black and 3 white"


@pytest.mark.parametrize(
    ("word", "said"), [("clip_x_0=true", "clip_x_0=true: latents"), ("weighting=bound", "VariationalBound")]
)
def test_what_is_for_images_of_256_levels_is_refused_for_latents(word: str, said: str):
    config = composed("train", "experiment=smoke", "clip_x_0=false", word)
    data = {"image_shape": [4, 8, 8], "classes": None, "latents": {"scale": 1.0, "shift": 0.0, "vae": None}}
    with pytest.raises(UsageError, match=said):
        build_module(config, data)


def test_a_learned_variance_is_trained_on_latents_by_a_density(tmp_path: Path):
    words = ("experiment=smoke", "clip_x_0=false", "variance=learned_range", "weighting=hybrid")
    config = composed("train", *words, "weighting.levels=false")
    data = {"image_shape": [4, 8, 8], "classes": None, "latents": {"scale": 1.0, "shift": 0.0, "vae": None}}
    module = build_module(config, data)
    x_0, t = 3 * torch.randn(2, 4, 8, 8), torch.tensor([0, 500])
    assert module.losses(x_0, t, torch.randn_like(x_0)).isfinite().all()
    with pytest.raises(UsageError, match=r"weighting\.levels=false: is for latents"):
        build_module(config, {**data, "latents": None})


def test_the_recipe_of_latents_clips_nothing(tmp_path: Path):
    config = composed("train", "data=latents", f"data.path={saved(tmp_path)}")
    assert config["clip_x_0"] is False
    assert config["data"]["horizontal_flip"] is False


def pretend(folder: Path, **config: Any) -> Path:
    """A directory as an autoencoder's, whose weights are none."""
    folder.mkdir(exist_ok=True)
    about = {"_class_name": "AutoencoderKL", "latent_channels": 4, "block_out_channels": [8, 8], **config}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    return folder


def test_an_autoencoder_that_does_not_fit_is_refused(tmp_path: Path):
    file, vae = saved(tmp_path), tmp_path / "vae"
    for config, said in (
        ({"_class_name": "UNet2DModel"}, "is a UNet2DModel"),
        ({"latent_channels": 16}, "decodes latents of 16 channels, and these have 4"),
    ):
        with pytest.raises(ValueError, match=said):
            Latents(file, vae=str(pretend(vae, **config))).read()
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no diffusion_pytorch_model\.safetensors"):
        Latents(file, vae=str(vae)).read()
    with pytest.raises(ValueError, match="is no directory of a diffusers AutoencoderKL"):
        Latents(file, vae=str(vae.parent.parent)).read()
    with pytest.raises(ValueError, match="there is no such directory"):
        Latents(file, vae=str(tmp_path / "none")).read()


def test_latents_of_another_autoencoder_are_refused(tmp_path: Path):
    file = saved(tmp_path, vae=json.dumps({"checksum": "0" * 16}))
    with pytest.raises(ValueError, match="has other weights"):
        Latents(file, vae=str(pretend(tmp_path / "vae"))).read()
