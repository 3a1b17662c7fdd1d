"""Checkpoints of other codebases: the run that becomes of each computes what its own network computes."""

import itertools
import math
import pickle
import shutil
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_command, run_here
from diffusers import UNet2DModel
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
from safetensors.torch import save_file
from torch import Tensor, nn

from ddpm.diffusion.objectives import X0
from ddpm.diffusion.variances import FixedLarge, FixedSmall, LearnedRange
from ddpm.interop.checkpoints_of_others import KINDS, import_model
from ddpm.interop.diffusers import export_run
from ddpm.interop.told import Told
from ddpm.run import Run, load
from ddpm.sampling.seen import seen
from ddpm.training.building import build_module

pytestmark = pytest.mark.usefixtures("seeded")


def imported(state: Mapping[str, Any], place: Path, *words: str, name: str = "theirs.pt") -> Run:
    torch.save(dict(state), place / name)
    import_model(place / name, place / "run", words)
    return load(place / "run", "cpu")


def same(
    run: Run, theirs: nn.Module, *, told: float = 1, labels: Tensor | None = None, rounding: float = 1e-6
) -> None:
    """Their outputs and those of the run's averaged weights, in float32 and in float64."""
    channels, height, width = run.module.image_shape
    x, t = torch.randn(3, channels, height, width), torch.tensor([0, 7, 900])
    with torch.no_grad(), run.module.ema.swapped_in():
        ours = run.module.network.eval()
        for dtype, tolerance in ((torch.float32, rounding), (torch.float64, 1e-12)):
            seen = t * told if told != 1 else t
            given = () if labels is None else (labels,)
            expected = theirs.to(dtype).eval()(x.to(dtype), seen, *given)
            output = ours.to(dtype)(x.to(dtype), t, *given)
            scale = expected.abs().max()
            assert 0.1 < scale < 100
            assert (output - expected).abs().max() <= tolerance * max(1, scale)


OPENAI: dict[str, tuple[dict[str, Any], list[str]]] = {
    "improved": ({"out": 6, "heads_up": 2}, ["diffusion_steps=1000", "num_heads_upsample=2"]),
    "guided, old order": ({"updown": True, "each": 16, "out": 6, "classes": 5}, ["num_head_channels=16"]),
    "guided, new order": (
        {"updown": True, "new_order": True, "mult": [1, 2, 2], "attention": [1, 2], "heads": 2},
        ["use_new_attention_order=true", "num_heads=2"],
    ),
    "guided without residual resampling": (
        {"scale_shift": False, "blocks": 2, "attention": [0, 1], "each": 32, "new_order": True},
        [
            *("kind=guided-diffusion", "num_head_channels=32", "use_new_attention_order=true"),
            *("sigma_small=true", "predict_xstart=true"),
        ],
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


def test_what_a_diffusion_transformer_draws_is_decoded_by_the_autoencoder_that_is_told(
    tmp_path: Path,
) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[4, 4],
        norm_num_groups=2,
        latent_channels=4,
    )
    vae.save_pretrained(tmp_path / "vae")
    run = imported(
        {"ema": DiTNetwork(8, 2, 64, 2, 4, 10).state_dict()},
        tmp_path,
        "num_heads=4",
        f"vae={tmp_path / 'vae'}",
    )
    drawn = run.sample(1, sampler="ddim", num_steps=2)
    assert drawn.shape == (1, 4, 8, 8)
    with torch.no_grad():
        expected = vae.eval().decode(drawn / 0.18215).sample
    shown = seen(run.module, drawn)
    assert shown.shape == (1, 3, 16, 16)
    assert ((expected.clamp(-1, 1) + 1) * 127.5 - shown.float()).abs().max() <= 1
    text = (tmp_path / "run/config.yaml").read_text()
    assert "override data: latents" in text
    assert "  scale: 0.18215\n  shift: 0.0\n" in text


def test_a_diffusion_transformer_gives_the_same_outputs(tmp_path: Path) -> None:
    """Their places of patches are rounded from float64, and ours are computed in float32."""
    theirs = DiTNetwork(8, 2, 64, 2, 4, 10)
    places = theirs.pos_embed.clone()
    awake(theirs).pos_embed.data = places
    run = imported({"ema": theirs.state_dict()}, tmp_path, "num_heads=4")
    assert run.module.image_shape == (4, 8, 8)
    assert run.module.num_classes == 10
    assert run.config["clip_x_0"] is False
    assert build_module(run.config, run.module.data or {}).weighting.trains_variance  # init= trains on
    x, t, labels = torch.randn(3, 4, 8, 8), torch.tensor([0, 7, 900]), torch.tensor([0, 9, 10])
    with torch.no_grad():
        expected = theirs(x, t, labels)
        output = run.module.network(x, t, torch.tensor([0, 9, -1]))
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
    import_model(
        tmp_path / "theirs.pt", tmp_path / "all", ["num_heads=4", "num_classes=11"]
    )  # none is no class
    network = load(tmp_path / "all", "cpu").module.network
    with torch.no_grad():
        torch.testing.assert_close(network(x, t, labels), expected, rtol=1e-6, atol=1e-6)
    assert not network.classes.weight[-1].any()
    with pytest.raises(ValueError, match="num_classes=7: its table is of 10 classes and none, or of 11"):
        import_model(tmp_path / "theirs.pt", tmp_path / "b", ["num_classes=7"])
    torch.save({**theirs.state_dict(), "pos_embed": places + 0.01}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="pos_embed holds other numbers"):
        import_model(tmp_path / "other.pt", tmp_path / "b", ["num_heads=4"])


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
        source = tmp_path  # of which it is the newest
        (tmp_path / "model.ckpt-6.index").touch()
    import_model(source, tmp_path / "run", ["image_size=8"])

    class Theirs(nn.Module):
        dtype = torch.float32

        def to(self, dtype: torch.dtype) -> "Theirs":  # type: ignore[override]
            self.dtype = dtype
            return self

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return ho_network({name: value.to(self.dtype) for name, value in averaged.items()}, x, t, **HO)

    run = load(tmp_path / "run", "cpu")
    same(run, Theirs(), rounding=4e-6)  # channels last add up in another order: each is 1.5e-6 from float64
    assert not run.module.network.conv_in.weight.any()  # the raw weights


FULL: dict[str, tuple[int, Callable[[], nn.Module], list[str]]] = {
    "improved-diffusion's CIFAR-10": (
        52_546_438,
        lambda: OpenAIUNet(128, (1, 2, 2, 2), 3, (1, 2), out=6),
        ["kind=improved_diffusion", "image_size=32"],
    ),
    "improved-diffusion's ImageNet 64": (
        121_063_942,
        lambda: OpenAIUNet(128, (1, 2, 3, 4), 3, (2, 3), out=6),
        ["kind=improved_diffusion"],
    ),
    "improved-diffusion's ImageNet 64 with classes": (
        273_049_350,
        lambda: OpenAIUNet(192, (1, 2, 3, 4), 3, (2, 3), out=6, classes=1000),
        ["kind=improved_diffusion"],
    ),
    "improved-diffusion's LSUN": (
        113_676_678,
        lambda: OpenAIUNet(128, (1, 1, 2, 2, 4, 4), 2, (4,), out=6, heads=1, scale_shift=False),
        ["kind=improved_diffusion"],
    ),
    "guided-diffusion's ImageNet 64": (
        295_904_454,
        lambda: OpenAIUNet(
            192, (1, 2, 3, 4), 3, (1, 2, 3), out=6, classes=1000, each=64, updown=True, new_order=True
        ),
        ["kind=guided_diffusion"],
    ),
    "guided-diffusion's ImageNet 256 without classes": (
        552_814_086,
        lambda: OpenAIUNet(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), out=6, each=64, updown=True),
        ["kind=guided_diffusion"],
    ),
    "pytorch-ddpm": (
        35_746_307,
        lambda: PyTorchDDPMUNet(1000, 128, (1, 2, 2, 2), [1], 2),
        ["kind=pytorch_ddpm"],
    ),
    "DiT-S/2": (32_963_360, lambda: DiTNetwork(32, 2, 384, 12, 6, 1000), ["kind=dit"]),
    "DiT-XL/2": (675_129_632, lambda: DiTNetwork(32, 2, 1152, 28, 16, 1000), ["kind=dit"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FULL)
def test_published_networks_have_their_number_of_parameters(case: str) -> None:
    """Names and shapes alone: without memory for the weights. A position embedding is a weight of theirs."""
    count, make, (kind, *words) = FULL[case]
    with torch.device("meta"):
        weights = make().state_dict()
    told = Told(dict(word.split("=") for word in words))
    model = KINDS[kind.removeprefix("kind=")](weights, told)
    ours = sum(weight.numel() for weight in model.network.state_dict().values())
    assert ours + (weights["pos_embed"].numel() if "pos_embed" in weights else 0) == count
    assert "heads=1" not in str(told).split() or "LSUN" in case


@pytest.mark.slow
def test_a_network_of_full_size_gives_the_same_outputs(tmp_path: Path) -> None:
    theirs = awake(OpenAIUNet(128, (1, 2, 2, 2), 3, (1, 2), out=6)).eval()
    run = imported(theirs.state_dict(), tmp_path)
    assert run.module.num_parameters == 52_546_438
    assert run.module.image_shape == (3, 32, 32)
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([3000])
    with torch.no_grad():
        output, expected = run.module.network(x, t), theirs(x, t / 4)
    assert (output - expected).norm() < 1e-6 * expected.norm()


def test_a_whole_chain_of_a_learned_variance_is_that_of_its_own_equations(tmp_path: Path) -> None:
    """Ten steps of the cosine schedule as Nichol and Dhariwal 2021 state them, from the same noise."""
    theirs = awake(OpenAIUNet(out=6)).eval()
    run = imported(
        theirs.state_dict(), tmp_path, "image_size=8", "diffusion_steps=10", "rescale_timesteps=true"
    )
    bar = [math.cos((i / 10 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(11)]
    betas = [min(1 - after / before, 0.999) for before, after in itertools.pairwise(bar)]
    alphas = np.cumprod(1 - np.array(betas))
    x = start = torch.randn(2, 3, 8, 8)

    def noise(t: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(t))

    with torch.no_grad():
        for t in reversed(range(10)):
            eps, v = theirs(x, torch.full((2,), t * 100.0)).chunk(2, dim=1)
            before = alphas[t - 1] if t else 1.0
            x_0 = ((x - (1 - alphas[t]) ** 0.5 * eps) / alphas[t] ** 0.5).clamp(-1, 1)
            least = [betas[i] * (1 - (alphas[i - 1] if i else 1)) / (1 - alphas[i]) for i in range(10)]
            least[0] = least[1]
            fraction = (v + 1) / 2
            log_variance = fraction * math.log(betas[t]) + (1 - fraction) * math.log(least[t])
            of_x_0 = betas[t] * before**0.5 / (1 - alphas[t])
            of_x_t = (1 - before) * (1 - betas[t]) ** 0.5 / (1 - alphas[t])
            x = of_x_0 * x_0 + of_x_t * x + (t > 0) * (log_variance / 2).exp() * noise(t, x)
        module = run.module
        ours = module.sampler(module.denoiser(), module.schedule, start, noise=noise)
    assert (ours.abs() < 0.99).float().mean() > 0.1
    torch.testing.assert_close(ours, x, rtol=0, atol=2e-5)


def test_an_imported_run_is_exported_to_diffusers(tmp_path: Path) -> None:
    theirs = awake(OpenAIUNet(each=16, updown=True))
    run = imported(
        theirs.state_dict(), tmp_path, "image_size=8", "num_head_channels=16", "diffusion_steps=1000"
    )
    out = export_run(tmp_path / "run", tmp_path / "out")
    network = UNet2DModel.from_pretrained(out / "unet")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
    with torch.no_grad():
        torch.testing.assert_close(network(x, t).sample, theirs(x, t), rtol=1e-5, atol=1e-5)
    assert run.config["schedule"]["num_timesteps"] == 1000


@pytest.fixture(scope="module")
def improved_state() -> dict[str, Tensor]:
    return awake(OpenAIUNet(out=6)).state_dict()


def test_the_command_shows_what_was_told_and_what_was_assumed(
    improved_state: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a directory, its newest averaged weights with the raw ones of the same step."""
    for step in (5, 10):
        torch.save({}, tmp_path / f"opt{step:06}.pt")
        torch.save(
            {name: weight * step for name, weight in improved_state.items()}, tmp_path / f"model{step:06}.pt"
        )
        torch.save(improved_state, tmp_path / f"ema_0.9999_{step:06}.pt")
    assert (
        run_command(monkeypatch, "import", tmp_path, tmp_path / "a/run", "image_size=8", "dropout=0.3") == 0
    )
    line, place = capsys.readouterr().out.splitlines()
    assert line.startswith(
        f"{tmp_path}/ema_0.9999_000010.pt: kind=improved_diffusion image_size=8 num_heads=4"
    )
    assert "dropout=0.3" in line
    assert "noise_schedule=cosine rescale_timesteps=true" in line
    assert line.endswith(" parameters, learned sigma, averaged and raw)")
    assert place == str(tmp_path / "a/run")
    state = torch.load(tmp_path / "a/run/checkpoints/last.ckpt", weights_only=True)
    weight = improved_state["out.2.weight"]
    assert torch.equal(state["state_dict"]["network.conv_out.weight"], 10 * weight)
    assert torch.equal(state["ema"]["parameters"]["conv_out.weight"], weight)


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


NAN = {"out.2.bias": torch.full((6,), math.nan)}
QKV = "middle_block.1.qkv.weight"
WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], Any], list[str], str]] = {
    "a layout that is not known": (lambda s: {"a.weight": torch.ones(2)}, [], "is of no kind that is known"),
    "no tensors": (lambda s: {"epoch": 7}, [], "holds no weights of a network"),
    "missing weights": (lambda s: without(s, QKV), [], f"{QKV} is missing"),
    "additional weights": (lambda s: {**s, "more": torch.ones(2)}, [], "it has no more"),
    "weights of other shapes": (lambda s: {**s, QKV: torch.ones(3, 2, 1)}, [], "instead of [192, 64]"),
    "numbers that are not finite": (lambda s: {**s, **NAN}, [], "not finite"),
    "weights of another codebase": (lambda s: s, ["kind=dit"], "as dit: x_embedder.proj.weight is missing"),
    "attention to a text": (
        lambda s: {**s, "input_blocks.1.1.transformer_blocks.0.norm1.weight": torch.ones(2)},
        [],
        "attends to a text",
    ),
    "a network that enlarges": (
        lambda s: {**s, "input_blocks.0.0.weight": torch.ones(32, 6, 3, 3)},
        [],
        "one that enlarges images",
    ),
    "a first convolution of other width": (
        lambda s: {**s, "input_blocks.0.0.weight": torch.ones(16, 3, 3, 3)},
        [],
        "first convolution has 16 features where its time embedding begins with 32",
    ),
    "widths that no groups divide": (
        lambda s: {**s, "input_blocks.3.0.out_layers.3.weight": torch.ones(48, 48, 3, 3)},
        [],
        "norm_groups=32 does not divide the 48 features",
    ),
    "a kind that does not exist": (lambda s: s, ["kind=guided_difusion"], "did you mean guided_diffusion?"),
    "a setting that does not exist": (lambda s: s, ["nose_schedule=linear"], "did you mean noise_schedule?"),
    "a setting of another kind": (
        lambda s: s,
        ["beta_T=0.3"],
        "beta_T: is no setting of kind=improved_diffusion",
    ),
    "a value that is none": (lambda s: s, ["noise_schedule=sine"], "is none of linear, cosine"),
    "a number that is none": (
        lambda s: s,
        ["diffusion_steps=many"],
        "diffusion_steps=many: must be a whole number",
    ),
    "a schedule that is none": (
        lambda s: s,
        ["diffusion_steps=10", "noise_schedule=linear"],
        "the last beta would be 2",
    ),
    "no steps": (lambda s: s, ["diffusion_steps=0"], "diffusion_steps=0: must be above 0"),
    "a word that says nothing": (lambda s: s, ["cosine"], "cosine: must be NAME=VALUE"),
    "heads that do not divide": (lambda s: s, ["num_heads=5"], "heads=5 does not divide the 64 features"),
    "images that cannot be halved": (lambda s: s, ["image_size=7"], "images of 7 pixels"),
    "lucidrains": (
        lambda s: {
            "model": {"model.init_conv.weight": torch.ones(2), "model.time_mlp.1.weight": torch.ones(2)}
        },
        [],
        "is of denoising_diffusion_pytorch: its U-Net attends linearly",
    ),
    "EDM": (
        lambda s: {"ema": {"model.map_layer0.weight": torch.ones(2)}},
        [],
        "is of edm: its U-Nets (DDPM++",
    ),
    "a run of one's own": (
        lambda s: {"state_dict": {"network.conv_in.weight": torch.ones(2)}, "config": {}},
        [],
        "is of no kind that is known",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_imported_is_refused_and_leaves_nothing(
    case: str,
    improved_state: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, words, says = WRONG[case]
    torch.save(make(dict(improved_state)), tmp_path / "theirs.pt")
    assert run_command(monkeypatch, "import", tmp_path / "theirs.pt", tmp_path / "made/run", *words) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert not said.out
    assert not (tmp_path / "made").exists()


def test_a_file_that_holds_code_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(
        {"ema": {}, "args": Path("a")}, tmp_path / "theirs.pt"
    )  # as DiT's training keeps its arguments
    with pytest.raises(ValueError, match=r"theirs\.pt: cannot be read without running.*if you trust it"):
        import_model(tmp_path / "theirs.pt", tmp_path / "run")
    (tmp_path / "edm.pkl").write_bytes(pickle.dumps({"ema": 1}))
    with pytest.raises(ValueError, match=r"edm\.pkl: cannot be read"):
        import_model(tmp_path / "edm.pkl", tmp_path / "run")
    np.savez_compressed(tmp_path / "large.npz", x=np.zeros(8_000_000, np.float32))
    with pytest.raises(ValueError, match="unpacks to much more"):
        import_model(tmp_path / "large.npz", tmp_path / "run")
    with pytest.raises(ValueError, match=r"nowhere\.pt: cannot be read \(No such file"):
        import_model(tmp_path / "nowhere.pt", tmp_path / "run")
    with pytest.raises(ValueError, match=r"name one file of weights; there is large\.npz, theirs\.pt"):
        import_model(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_damaged_tensorflow_checkpoints_are_refused(tmp_path: Path) -> None:
    """Named by what their files' names begin with."""
    values = {"model/conv_in/W": np.ones((3, 3, 3, 4), np.float32)}
    index, data = tensorflow_checkpoint(values)
    file = tmp_path / "a.index"
    for damaged in (b"", index[:-1], index[:60] + index[-48:], bytes(len(index) - 48) + index[-48:]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.index: "):
            import_model(tmp_path / "a", tmp_path / "run")
    file.write_bytes(index)
    with pytest.raises(ValueError, match=r"a\.data-00000-of-00001: cannot be read"):
        import_model(tmp_path / "a", tmp_path / "run")
    (tmp_path / "a.data-00000-of-00001").write_bytes(data[:-1])
    with pytest.raises(ValueError, match="is truncated, model/conv_in/W lies beyond its end"):
        import_model(tmp_path / "a", tmp_path / "run")


def test_variables_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A small file could ask for any memory."""
    index, data = tensorflow_checkpoint({name: np.ones(4, np.float32) for name in ("model/a", "model/b")})
    (tmp_path / "a.index").write_bytes(index.replace(b"\x20\x10", b"\x20\x00"))  # where the second begins
    (tmp_path / "a.data-00000-of-00001").write_bytes(data[:16])
    with pytest.raises(ValueError, match=r"a\.index: model/b lies where other variables do"):
        import_model(tmp_path / "a", tmp_path / "run")


def test_a_disk_without_room_is_told_before_anything_is_written(
    improved_state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that fills meanwhile leaves nothing; weights in half precision and safetensors are taken."""
    save_file(
        {name: weight.half() for name, weight in improved_state.items()}, tmp_path / "theirs.safetensors"
    )
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
        with pytest.raises(ValueError, match=r"run: needs 0\.0 GB, and its disk has 0\.0 GB free"):
            import_model(tmp_path / "theirs.safetensors", tmp_path / "a/run")
    with monkeypatch.context() as patch:
        full = OSError(28, "No space left on device")
        patch.setattr("ddpm.training.checkpoints.write", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(ValueError, match=r"run: cannot be written \(No space left on device"):
            import_model(tmp_path / "theirs.safetensors", tmp_path / "a/run")
    assert not (tmp_path / "a").exists()
    import_model(tmp_path / "theirs.safetensors", tmp_path / "a/run", ["image_size=8"])
    weight = load(tmp_path / "a/run", "cpu").module.network.conv_out.weight
    assert weight.dtype == torch.float32
    with pytest.raises(ValueError, match="exists already"):
        import_model(tmp_path / "theirs.safetensors", tmp_path / "a/run", ["image_size=8"])


@pytest.mark.e2e
@pytest.mark.slow
def test_an_imported_run_samples_is_measured_and_trains_on(
    improved_state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(improved_state, "theirs.pt")
    import_model("theirs.pt", "run", ["image_size=8", "diffusion_steps=20"])
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    np.savez("images.npz", images=images)
    data = ["data=arrays", "data.path=images.npz"]
    quick = ["trainer=cpu", "trainer.max_steps=2", "logger=none", "data.batch_size=4", "hydra.run.dir=more"]
    few = ["callbacks=none"]
    assert run_here(monkeypatch, "sample", "ckpt=run", "n=2", "out=drawn") == 0
    assert Path("drawn/grid.png").exists()
    measured = ["ckpt=run", *data, "metrics=[nll]", "metrics.nll.n=4", "hydra.run.dir=measured"]
    assert run_here(monkeypatch, "evaluate", *measured) == 0
    words = ["--config-dir", "run", "--config-name", "config", "init=run", *data, *quick, *few]
    assert run_here(monkeypatch, "train", *words) == 0
    assert "timestep_scale: 50" in Path("more/config.yaml").read_text()
    assert len(Path("more/metrics.csv").read_text().splitlines()) > 1
