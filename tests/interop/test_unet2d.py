"""Our U-Net and diffusers' UNet2DModel, both ways."""

import inspect
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from published import PUBLISHED, awake, narrow
from torch import Tensor

from ddpm.interop.unet2d import DEFAULTS, unet_from_diffusers, unet_to_diffusers
from ddpm.networks import UNet
from ddpm.networks.inputs import NO_LABEL

pytestmark = pytest.mark.usefixtures("seeded")

OURS = {
    "paper": {},
    "improved": {
        "heads": 2,
        "attention_levels": (1, 2),
        "scale_shift": True,
        "symmetric_padding": True,
        "norm_eps": 1e-5,
        "freq_shift": 0,
    },
    "adm": {
        "channels_per_head": 8,
        "attention_levels": (0, 2),
        "scale_shift": True,
        "residual_resampling": True,
        "num_classes": 5,
        "blocks": 1,
    },
    "levels of their own": {
        "multipliers": (1, 1.5, 2.25),
        "attention_levels": (1, 2),
        "decoder_attention_levels": (0,),
        "middle_attention": False,
    },
    "one level": {"multipliers": (1,), "attention_levels": ()},
}

TRAINING_SCRIPT = {  # as diffusers' own example of unconditional training builds its network, but smaller
    "sample_size": 16,
    "block_out_channels": [32, 32, 64],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}


def inputs(height: int, width: int, classes: int | None = None) -> tuple[Tensor, ...]:
    x, t = torch.randn(2, 3, height, width), torch.tensor([3, 999])
    return (x, t) if classes is None else (x, t, torch.tensor([0, classes - 1]))


def embeddings(width: int, *rows: float) -> Tensor:
    return torch.tensor(rows)[:, None].expand(-1, width).clone()


@pytest.fixture(params=OURS)
def ours(request: pytest.FixtureRequest) -> UNet:
    options = {"channels": 16, "multipliers": (1, 2, 2), "norm_groups": 4, **OURS[request.param]}
    return awake(UNet(3, 6, **options)).eval()


def theirs(config: dict[str, Any]) -> UNet2DModel:
    return awake(UNet2DModel.from_config(config)).eval()


def agree(network: UNet, model: UNet2DModel, *given: Tensor) -> None:
    with torch.inference_mode():
        expected, output = model(*given).sample, network(*given)
    assert expected.std() > 0.01
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)


def test_defaults_are_those_of_diffusers() -> None:
    parameters = inspect.signature(UNet2DModel).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == DEFAULTS


def test_ours_goes_there_and_computes_the_same(ours: UNet) -> None:
    network = ours
    config, weights = unet_to_diffusers(network, (8, 12))
    model = UNet2DModel.from_config(config).eval()
    assert {key: model.config[key] for key in DEFAULTS} == {key: config[key] for key in DEFAULTS}
    model.load_state_dict(weights)
    agree(network, model, *inputs(8, 12, network.num_classes))


def test_there_and_back_is_bit_equal(ours: UNet) -> None:
    network = ours
    config, weights = unet_to_diffusers(network)
    model = UNet2DModel.from_config(config)
    model.load_state_dict(weights)
    back = unet_from_diffusers(model.config, model.state_dict()).eval()
    assert list(back.state_dict()) == list(network.state_dict())
    for key, weight in network.state_dict().items():
        assert torch.equal(back.state_dict()[key], weight), key
    given = inputs(8, 12, network.num_classes)
    assert torch.equal(back(*given), network(*given))
    assert unet_to_diffusers(back)[0] == config
    assert all(parameter.requires_grad for parameter in back.parameters())


def test_every_class_and_none_are_the_same_there() -> None:
    network = awake(
        UNet(3, 3, channels=16, multipliers=(1, 2), norm_groups=4, blocks=1, num_classes=3)
    ).eval()
    config, weights = unet_to_diffusers(network)
    model = UNet2DModel.from_config(config).eval()
    model.load_state_dict(weights)
    x, t = torch.randn(1, 3, 8, 8).expand(4, -1, -1, -1), torch.full((4,), 500)
    with torch.inference_mode():
        expected = network(x, t, torch.tensor([0, 1, 2, NO_LABEL]))
        output = model(x, t, class_labels=torch.tensor([0, 1, 2, 3])).sample
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    differences = (expected[:, None] - expected).abs().amax((2, 3, 4))
    assert (differences + torch.eye(4)).min() > 1e-3  # each is told apart


@pytest.mark.parametrize(
    ("rows", "num_classes"), [((1.0, 2.0, 3.0), 3), ((1.0, 0.0, 3.0), 3), ((1.0, 2.0, 0.0), 2), ((0.0,), 1)]
)
def test_a_last_class_that_adds_nothing_is_no_class(rows: tuple[float, ...], num_classes: int) -> None:
    model = theirs({**TRAINING_SCRIPT, "num_class_embeds": len(rows)})
    weights = {**model.state_dict(), "class_embedding.weight": embeddings(128, *rows)}
    network = unet_from_diffusers(model.config, weights)
    assert network.num_classes == num_classes
    assert network.classes.weight[:, 0].tolist() == list(rows[:num_classes])


@pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED)
def test_published_configurations_narrowed(published: dict[str, Any]) -> None:
    model = theirs(narrow(published))
    network = unet_from_diffusers(model.config, model.state_dict()).eval()
    agree(network, model, *inputs(network.size_multiple, 2 * network.size_multiple))


@pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED)
@pytest.mark.slow
def test_published_configurations(published: dict[str, Any]) -> None:
    model = theirs(published)
    network = unet_from_diffusers(model.config, model.state_dict()).eval()
    agree(network, model, *inputs(published["sample_size"], published["sample_size"]))


@pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED)
def test_published_configurations_are_the_papers_networks(published: dict[str, Any]) -> None:
    """Without a weight: our cifar10 and lsun, to the last parameter's name and shape."""
    size = published["sample_size"]
    multipliers, level = {32: ((1, 2, 2, 2), 1), 256: ((1, 1, 2, 2, 4, 4), 4)}[size]
    with torch.device("meta"):
        model = UNet2DModel.from_config(published)
        network = UNet(3, 3, multipliers=multipliers, attention_levels=(level,), dropout=0.0)
    config, weights = unet_to_diffusers(network, (size, size))
    assert {key: weight.shape for key, weight in weights.items()} == {
        key: weight.shape for key, weight in model.state_dict().items()
    }
    assert {key: model.config[key] for key in DEFAULTS} == {key: config[key] for key in DEFAULTS}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip_sin_to_cos": False},
        {"freq_shift": 1},
        {"downsample_padding": 0},
        {"norm_eps": 0.1},
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32},
        {"num_class_embeds": 5},
        {"block_out_channels": [32, 48, 80], "norm_num_groups": 16},
        {"up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]},
        {"add_attention": False, "attn_norm_num_groups": 8},
        {
            "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"],
            "downsample_type": "resnet",
            "upsample_type": "resnet",
        },
    ],
    ids=lambda options: next(iter(options), "defaults"),
)
def test_options_that_both_have(options: dict[str, Any]) -> None:
    model = theirs({**TRAINING_SCRIPT, **options})
    network = unet_from_diffusers(model.config, model.state_dict()).eval()
    agree(network, model, *inputs(16, 8, options.get("num_class_embeds")))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"act_fn": "gelu"}, "act_fn=gelu"),
        ({"center_input_sample": True}, "center_input_sample=True"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type=fourier"),
        ({"time_embedding_dim": 64}, "time_embedding_dim=64: must be 128"),
        ({"mid_block_type": None}, "mid_block_type=None"),
        ({"norm_num_groups": None}, "norm_num_groups=None"),
        ({"dropout": None}, "dropout=None"),
        ({"mid_block_scale_factor": 2}, "mid_block_scale_factor=2"),
        ({"downsample_padding": 2}, "downsample_padding=2"),
        ({"class_embed_type": "timestep"}, "class_embed_type=timestep"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift=spatial"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups=None: must be 32"),
        ({"attn_norm_num_groups": 8}, "attn_norm_num_groups=8: must be 32"),
        ({"block_out_channels": [32, 48, 64]}, "norm_groups=32 does not divide the 48"),
        ({"attention_head_dim": 24}, "channels_per_head=24"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D", "DownBlock2D"]}, "no SkipDownBlock2D"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D", "SkipUpBlock2D"]}, "no SkipUpBlock2D"),
        ({"downsample_type": "resnet"}, "downsample_type=resnet, upsample_type=conv"),
        ({"a_new_feature": 3}, "a_new_feature=3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_ours_does_not_have_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        unet_from_diffusers({**TRAINING_SCRIPT, **options}, {})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"multipliers": (2, 2)}, "model.multipliers"),
        ({"heads": 2, "attention_levels": (0, 1)}, "model.heads=2"),
    ],
)
def test_what_theirs_does_not_have_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        unet_to_diffusers(UNet(3, 3, **{"channels": 32, "multipliers": (1, 2), **options}))


def test_weights_of_another_configuration_are_refused() -> None:
    weights = theirs(TRAINING_SCRIPT).state_dict()
    with pytest.raises(ValueError, match="missing"):
        unet_from_diffusers({**TRAINING_SCRIPT, "layers_per_block": 3}, weights)
    with pytest.raises(ValueError, match="it has no"):
        unet_from_diffusers({**TRAINING_SCRIPT, "layers_per_block": 1}, weights)
    with pytest.raises(ValueError, match="instead of"):
        unet_from_diffusers({**TRAINING_SCRIPT, "in_channels": 4}, weights)


def test_names_from_before_the_first_release_are_read() -> None:
    """As diffusers' script that renamed the published repositories knows them."""
    model = theirs(TRAINING_SCRIPT)
    config = {
        "image_size": 16,
        "block_channels": [32, 32, 64],
        "down_blocks": ["UNetResDownBlock2D", "UNetResAttnDownBlock2D", "UNetResDownBlock2D"],
        "up_blocks": ["UNetResUpBlock2D", "UNetResAttnUpBlock2D", "UNetResUpBlock2D"],
        "num_res_blocks": 2,
        "resnet_eps": 1e-5,
        "resnet_num_groups": 32,
        "resnet_act_fn": "silu",
        "downscale_freq_shift": 0,
        "num_head_channels": 8,
    }
    parts = {"mid_block": "mid", "down_blocks": "downsample_blocks", "up_blocks": "upsample_blocks"}
    weights = {}
    for name, weight in model.state_dict().items():
        first, _, rest = name.partition(".")
        weights[f"{parts.get(first, first)}.{rest}"] = weight
        if ".downsamplers.0.conv." in name:
            weights[f"downsample_blocks.{rest.replace('.conv.', '.op.')}"] = weight
    assert unet_to_diffusers(unet_from_diffusers(config, weights))[0] == {
        **unet_to_diffusers(unet_from_diffusers(model.config, model.state_dict()))[0]
    }
    agree(unet_from_diffusers(config, weights).eval(), model, *inputs(16, 8))


def test_half_precision_weights_become_float32() -> None:
    model = theirs(TRAINING_SCRIPT)
    network = unet_from_diffusers(model.config, model.half().state_dict())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
