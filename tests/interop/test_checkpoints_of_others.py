"""Checkpoints of other codebases: the run that becomes of each computes what its own network computes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsewhere import (
    HO,
    DiTNetwork,
    OpenAIUNet,
    PyTorchDDPMUNet,
    ho_network,
    ho_variables,
    tensorflow_checkpoint,
)
from published import awake
from torch import Tensor, nn

from ddpm.diffusion.objectives import X0
from ddpm.diffusion.variances import FixedLarge, FixedSmall, LearnedRange
from ddpm.interop.checkpoints_of_others import import_model
from ddpm.interop.diffusers import export_run
from ddpm.run import Run, load

pytestmark = pytest.mark.usefixtures("seeded")


def imported(state: Mapping[str, Any], place: Path, *words: str, name: str = "theirs.pt") -> Run:
    torch.save(dict(state), place / name)
    import_model(place / name, place / "run", words)
    return load(place / "run", "cpu")


def same(run: Run, theirs: nn.Module, *, told: float = 1, labels: Tensor | None = None) -> None:
    """Their outputs and those of the run's averaged weights, in float32 and in float64."""
    channels, height, width = run.module.image_shape
    x, t = torch.randn(3, channels, height, width), torch.tensor([0, 7, 900])
    with torch.no_grad(), run.module.ema.swapped_in():
        ours = run.module.network.eval()
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            seen = t * told if told != 1 else t
            given = () if labels is None else (labels,)
            expected = theirs.to(dtype).eval()(x.to(dtype), seen, *given)
            output = ours.to(dtype)(x.to(dtype), t, *given)
            scale = expected.abs().max()
            assert 0.1 < scale < 100
            assert (output - expected).abs().max() <= tolerance * max(1, scale)


OPENAI: dict[str, tuple[dict[str, Any], list[str]]] = {
    "improved": ({"out": 6}, ["diffusion_steps=1000"]),
    "improved, added and no learned sigma": (
        {"scale_shift": False, "heads": 2, "blocks": 2, "attention": [0, 1]},
        ["num_heads=2", "rescale_timesteps=false", "sigma_small=true", "predict_xstart=true"],
    ),
    "improved, heads of the decoder": ({"heads_up": 2}, ["num_heads_upsample=2", "rescale_timesteps=no"]),
    "guided, old order": ({"updown": True, "each": 16, "out": 6, "classes": 5}, ["num_head_channels=16"]),
    "guided, new order": (
        {"updown": True, "new_order": True, "mult": [1, 2, 2], "attention": [1, 2], "heads": 2},
        ["use_new_attention_order=true", "num_heads=2"],
    ),
    "guided without residual resampling": (
        {"each": 32, "new_order": True},
        ["kind=guided-diffusion", "num_head_channels=32", "use_new_attention_order=true"],
    ),
}


@pytest.mark.parametrize("case", OPENAI)
def test_a_network_of_openai_gives_the_same_outputs(case: str, tmp_path: Path) -> None:
    options, words = OPENAI[case]
    theirs = awake(OpenAIUNet(**options))
    run = imported(theirs.state_dict(), tmp_path, "image_size=8", *words)
    classes = options.get("classes")
    same(run, theirs, labels=None if classes is None else torch.arange(3))
    assert isinstance(run.module.variance, LearnedRange) == (options.get("out") == 6)
    if "predict_xstart=true" in words:
        assert isinstance(run.module.objective, X0)
        assert isinstance(run.module.variance, FixedSmall)
    if classes is not None:
        assert run.module.classes == ["0", "1", "2", "3", "4"]


def test_rescaled_timesteps_reach_the_network(tmp_path: Path) -> None:
    theirs = awake(OpenAIUNet())
    run = imported(theirs.state_dict(), tmp_path, "image_size=8")
    assert run.module.schedule.num_timesteps == 4000
    same(run, theirs, told=0.25)
    with pytest.raises(ValueError, match=r"model\.timestep_scale=0\.25"):
        export_run(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pytorch_ddpm_gives_the_same_outputs_averaged_and_raw(tmp_path: Path) -> None:
    raw, averaged = PyTorchDDPMUNet(1000, 32, [1, 2], [1], 1), PyTorchDDPMUNet(1000, 32, [1, 2], [1], 1)
    table = averaged.time_embedding.timembedding[0].weight.clone()
    for network in (raw, awake(averaged)):
        network.time_embedding.timembedding[0].weight.data = table
    content = {
        "net_model": raw.state_dict(),
        "ema_model": averaged.state_dict(),
        "step": 7,
        "optim": {"state": {}},
    }
    run = imported(content, tmp_path, "img_size=8")
    same(run, averaged)
    assert run.module.schedule.num_timesteps == 1000
    assert isinstance(run.module.variance, FixedLarge)
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["network.conv_in.weight"], raw.head.weight)


def test_a_diffusion_transformer_gives_the_same_outputs(tmp_path: Path) -> None:
    """Their places of patches are rounded from float64, and ours are computed in float32."""
    theirs = DiTNetwork(8, 2, 64, 2, 4, 10)
    places = theirs.pos_embed.clone()
    awake(theirs).pos_embed.data = places
    run = imported({"ema": theirs.state_dict()}, tmp_path, "num_heads=4")
    assert run.module.image_shape == (4, 8, 8)
    assert run.module.num_classes == 10
    assert run.config["clip_x_0"] is False
    x, t, labels = torch.randn(3, 4, 8, 8), torch.tensor([0, 7, 900]), torch.tensor([0, 9, 10])
    with torch.no_grad():
        expected = theirs(x, t, labels)
        output = run.module.network(x, t, torch.tensor([0, 9, -1]))
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", ["npz", "index"])
def test_the_papers_tensorflow_network_gives_the_same_outputs(form: str, tmp_path: Path) -> None:
    averaged = {name: value.float() for name, value in ho_variables(**HO).items()}
    variables = {f"{name}/ExponentialMovingAverage": value.numpy() for name, value in averaged.items()}
    variables |= {name: np.zeros_like(value.numpy()) for name, value in averaged.items()}
    variables |= {f"{name}/Adam": value.numpy() for name, value in averaged.items()}
    variables["global_step"] = np.array(7)
    if form == "npz":
        np.savez(tmp_path / "model.npz", **variables)
        source = tmp_path / "model.npz"
    else:
        for suffix, content in zip(
            ("index", "data-00000-of-00001"), tensorflow_checkpoint(variables), strict=True
        ):
            (tmp_path / f"model.ckpt-7.{suffix}").write_bytes(content)
        source = tmp_path / "model.ckpt-7"
    import_model(source, tmp_path / "run", ["image_size=8"])

    class Theirs(nn.Module):
        dtype = torch.float32

        def to(self, dtype: torch.dtype) -> "Theirs":  # type: ignore[override]
            self.dtype = dtype
            return self

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return ho_network({name: value.to(self.dtype) for name, value in averaged.items()}, x, t, **HO)

    run = load(tmp_path / "run", "cpu")
    same(run, Theirs())
    assert not run.module.network.conv_in.weight.any()  # the raw weights
