"""The U-Net: sizes, options, labels, memory format."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.networks.blocks import Downsample, ResidualBlock, SelfAttention, Stage
from ddpm.networks.inputs import sinusoids
from ddpm.networks.unet import UNet

pytestmark = pytest.mark.usefixtures("seeded")

SMALL = {"channels": 16, "multipliers": (1, 2), "blocks": 1, "norm_groups": 4, "dropout": 0.0}
IMPROVED = {
    "scale_shift": True,
    "residual_resampling": True,
    "channels_per_head": 8,
    "attention_levels": (0, 1),
    "freq_shift": 0,
    "num_classes": 5,
}
VARIANTS = [pytest.param({}, id="paper"), pytest.param(IMPROVED, id="improved")]


def awake(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every weight drawn anew, so that no branch is hidden behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = 0.15 * torch.randn(parameter.shape, generator=generator)
    return network


def unet(**options: object) -> UNet:
    return awake(UNet(3, 3, **{**SMALL, **options})).eval()


def inputs(height: int = 8, width: int = 8, channels: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(4, channels, height, width), torch.tensor([0, 3, 500, 999])


@pytest.mark.parametrize("options", VARIANTS)
def test_starts_as_zero(options: dict) -> None:
    x, t = inputs()
    assert UNet(3, 3, **{**SMALL, **options})(x, t).abs().max() == 0


@pytest.mark.parametrize("options", VARIANTS)
def test_every_branch_starts_as_zero(options: dict) -> None:
    for layer in UNet(3, 3, **{**SMALL, **options}).modules():
        if isinstance(layer, ResidualBlock):
            assert layer.conv_out.weight.abs().max() == 0
        if isinstance(layer, SelfAttention):
            x = torch.randn(2, layer.to_out.in_features, 2, 2)
            assert torch.equal(layer(x), x)


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_reach_every_parameter(options: dict) -> None:
    network = unet(**options)
    labels = torch.arange(4) if "num_classes" in options else None
    network(*inputs(), labels).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


@pytest.mark.parametrize("options", VARIANTS)
def test_a_fresh_network_is_wholly_trained_after_three_steps(options: dict) -> None:
    """What starts at zero holds back the gradient of what lies behind it, but not for long."""
    network = UNet(3, 3, **{**SMALL, **options})
    start = copy.deepcopy(network.state_dict())
    x, t = inputs()
    labels = torch.arange(4) if "num_classes" in options else None
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(network(x, t, labels), torch.randn_like(x)).backward()
        optimizer.step()
    still = [name for name, p in network.named_parameters() if torch.equal(p, start[name])]
    assert still == []


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(options: dict, channels: int) -> None:
    network = UNet(channels, 2 * channels, **{**SMALL, **options})
    x, t = inputs(channels=channels)
    assert network(x, t).shape == (4, 2 * channels, 8, 8)


@pytest.mark.parametrize("options", VARIANTS)
def test_images_need_not_be_square(options: dict) -> None:
    """The network on an image on its side, with its kernels on their side, gives its output on its side."""
    network = unet(**options)
    x, t = inputs(8, 12)
    turned = copy.deepcopy(network)
    for layer in turned.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.transpose(2, 3).contiguous()
    torch.testing.assert_close(turned(x.transpose(2, 3), t).transpose(2, 3), network(x, t))


@pytest.mark.parametrize(
    ("height", "width", "says"),
    [
        (30, 32, "height 30 must be a multiple of 4, use 28 or 32"),
        (32, 33, "width 33 must be a multiple of 4, use 32 or 36"),
        (2, 8, "height 2 must be a multiple of 4, use 4"),
    ],
)
def test_a_size_that_does_not_divide_is_refused(height: int, width: int, says: str) -> None:
    network = UNet(3, 3, **{**SMALL, "multipliers": (1, 1, 1)})
    assert network.size_multiple == 4
    with pytest.raises(ValueError, match=says):
        network(*inputs(height, width))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"norm_groups": 5}, "norm_groups=5 does not divide the 16 features"),
        ({"heads": 3}, "heads=3 does not divide the 32 features"),
        ({"heads": 3, "attention_levels": ()}, "heads=3 does not divide the 32 features"),
        ({"channels_per_head": 12}, "channels_per_head=12 does not divide the 32 features"),
        ({"heads": 2, "channels_per_head": 8}, "give one of them"),
        ({"decoder_heads": 2, "channels_per_head": 8}, "give one"),
        ({"decoder_heads": 5}, "decoder_heads=5 does not divide"),
        ({"attention_levels": (2,)}, "no level 2, levels are 0 to 1; \\[\\] is none"),
        ({"decoder_attention_levels": (-1,)}, "decoder_attention_levels: there is no level -1"),
        (
            {"heads": 3, "attention_levels": (), "middle_attention": False, "decoder_attention_levels": (0,)},
            "heads=3 does not divide the 16 features",
        ),
        ({"multipliers": (1, 1.3)}, "multipliers: 1.3 times channels=16 is 20.8 features"),
        ({"multipliers": (1, 0)}, "at least 1"),
        ({"channels": 15, "norm_groups": 5}, "channels=15 must be even"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        UNet(3, 3, **{**SMALL, **options})


def test_heads_and_channels_per_head_agree() -> None:
    """Two heads of 16 features, said in two ways; and another number of heads is another function."""
    one, two, per_head = unet(), unet(heads=2), unet(channels_per_head=16)
    x, t = inputs()
    torch.testing.assert_close(two(x, t), per_head(x, t), rtol=0, atol=0)
    assert not torch.allclose(one(x, t), two(x, t), rtol=0, atol=1e-5)


def test_attention_is_the_softmax_of_products() -> None:
    attention = awake(SelfAttention(12, heads=3, norm_groups=4, norm_eps=1e-6))
    x = torch.randn(2, 12, 4, 2)
    tokens = attention.norm(x).flatten(2).transpose(1, 2)
    q, k, v = (part.unflatten(2, (3, 4)) for part in attention.to_qkv(tokens).chunk(3, dim=2))
    weights = (torch.einsum("bnhd,bmhd->bhnm", q, k) / 4**0.5).softmax(dim=3)
    attended = torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2)
    expected = x + attention.to_out(attended).transpose(1, 2).unflatten(2, (4, 2))
    torch.testing.assert_close(attention(x), expected)


def test_attention_follows_the_levels_in_encoder_and_decoder() -> None:
    network = UNet(3, 3, **{**SMALL, "multipliers": (1, 1, 1), "attention_levels": (1,), "blocks": 2})
    for part, blocks in ((network.encoder, 2), (network.decoder, 3)):
        attends = [isinstance(s.attention, SelfAttention) for s in part if isinstance(s, Stage)]
        assert attends == [False] * blocks + [True] * blocks + [False] * blocks
    assert isinstance(network.middle[0].attention, SelfAttention)
    network = UNet(
        3, 3, **SMALL, attention_levels=(0,), decoder_attention_levels=(1,), middle_attention=False
    )
    for part, attending in ((network.encoder, 16), (network.decoder, 32)):
        found = {
            s.attention.to_out.in_features
            for s in part
            if isinstance(getattr(s, "attention", None), SelfAttention)
        }
        assert found == {attending}
    assert not isinstance(network.middle[0].attention, SelfAttention)


def test_multipliers_need_not_be_whole() -> None:
    """30 / 22 of 22 are 30 only to rounding, which is below."""
    network = unet(channels=22, multipliers=(1, 1.5, 30 / 22), norm_groups=1)
    assert network.widths == [22, 33, 30]
    assert network(*inputs(8, 8)).shape == (4, 3, 8, 8)


def test_scale_shift_of_zero_is_the_additive_block_without_time() -> None:
    shape = {"dropout": 0.0, "norm_groups": 4, "norm_eps": 1e-6}
    film = awake(ResidualBlock(8, 16, 10, scale_shift=True, **shape))
    plain = awake(ResidualBlock(8, 16, 10, **shape))
    shared = {key: value for key, value in film.state_dict().items() if not key.startswith("time.")}
    plain.load_state_dict(shared, strict=False)
    nn.init.zeros_(plain.time.weight)
    nn.init.zeros_(plain.time.bias)
    nn.init.zeros_(film.time.weight)
    nn.init.zeros_(film.time.bias)
    x, time = torch.randn(2, 8, 4, 4), torch.randn(2, 10)
    torch.testing.assert_close(film(x, film.time(time)), plain(x, plain.time(time)))
    # scale 2 and shift 3 of a normalisation are another weight and bias of it
    film.time.bias.data = torch.tensor([2.0, 3.0]).repeat_interleave(16)
    plain.norm_out.weight.data *= 3
    plain.norm_out.bias.data = 3 * plain.norm_out.bias.data + 3
    torch.testing.assert_close(film(x, film.time(time)), plain(x, plain.time(time)))


def test_residual_resampling_halves_and_doubles_both_paths() -> None:
    shape = {"dropout": 0.0, "norm_groups": 4, "norm_eps": 1e-6}
    x, time = torch.randn(2, 8, 4, 6), torch.randn(2, 10)
    for resample, by_hand in (
        (nn.AvgPool2d(2), lambda x: x.unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean(dim=(3, 5))),
        (nn.Upsample(scale_factor=2), lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    ):
        block = awake(ResidualBlock(8, 8, 10, resample=resample, **shape))
        h = block.conv_in(by_hand(F.silu(block.norm_in(x)))) + block.time(time)[:, :, None, None]
        h = block.conv_out(F.silu(block.norm_out(h)))
        torch.testing.assert_close(block(x, block.time(time)), by_hand(x) + h)


def test_downsampling_pads_as_tensorflow_or_on_all_sides() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., 0, 0] = 1  # the top left pixel is seen by the kernel's first entry, or by its middle
    for symmetric, seen in ((False, 0), (True, 1)):
        layer = Downsample(1, symmetric_padding=symmetric)
        layer.conv.weight.data = torch.arange(9.0).view(1, 1, 3, 3)
        layer.conv.bias.data.zero_()
        out = layer(x)
        assert out.shape == (1, 1, 2, 2)
        assert out[0, 0, 0, 0] == layer.conv.weight[0, 0, seen, seen]


@pytest.mark.parametrize("freq_shift", [0, 1])
def test_sinusoids(freq_shift: int) -> None:
    t = torch.tensor([0, 1, 10, 999])
    features = sinusoids(t, 8, freq_shift=freq_shift)
    for (row, time), i in itertools.product(enumerate(t.tolist()), range(4)):
        angle = torch.tensor(time * 10_000 ** (-i / (4 - freq_shift)), dtype=torch.float64)
        assert features[row, i] == pytest.approx(angle.sin().item(), abs=2e-4)
        assert features[row, 4 + i] == pytest.approx(angle.cos().item(), abs=2e-4)


@pytest.mark.parametrize("freq_shift", [0, 1])
def test_the_network_sees_the_sinusoids_of_t(freq_shift: int) -> None:
    network, embedded = unet(freq_shift=freq_shift), []
    network.time.register_forward_pre_hook(lambda _, args: embedded.append(args[0]))
    x, t = inputs()
    network(x, t)
    assert torch.equal(embedded[0], sinusoids(t, 16, freq_shift=freq_shift))


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("how", ["in one product", "each its own", "layers replaced"])
def test_each_block_is_conditioned_by_its_own_layer(
    options: dict, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the network was copied and its weights changed, or its layers, as adapters do."""
    network = awake(copy.deepcopy(unet(**options)), seed=1)
    activated: list[Tensor] = []
    network.time.register_forward_hook(lambda *args: activated.append(F.silu(args[2])))
    residual = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    if how == "each its own":
        monkeypatch.setattr("ddpm.networks.kernels.ONE_PRODUCT", 0)
    if how == "layers replaced":
        for block in residual:
            block.time = nn.Sequential(block.time, nn.Tanh())
    given: dict[ResidualBlock, Tensor] = {}
    for block in residual:
        block.register_forward_hook(lambda block, args, _: given.update({block: args[1]}))
    products = []
    monkeypatch.setattr(
        torch, "cat", lambda parts, dim=0, cat=torch.cat: products.append(dim) or cat(parts, dim)
    )
    network(*inputs())
    assert (products.count(0) == 2) == (how == "in one product")  # of weights and of biases
    assert len(given) == len(residual)
    for block in residual:
        torch.testing.assert_close(given[block], block.time(activated[0]))


def test_no_label_is_an_unconditional_network() -> None:
    conditional, x_t = unet(num_classes=5), inputs()
    plain = unet()
    plain.load_state_dict(conditional.state_dict(), strict=False)
    expected = plain(*x_t)
    torch.testing.assert_close(conditional(*x_t), expected, rtol=0, atol=0)
    torch.testing.assert_close(conditional(*x_t, torch.full((4,), -1)), expected, rtol=0, atol=0)
    mixed = conditional(*x_t, torch.tensor([-1, 0, -1, 4]))
    changed = (mixed - expected).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert changed.tolist() == [False, True, False, True]


@pytest.mark.parametrize("label", [0, 3])
def test_a_label_is_added_to_the_time(label: int) -> None:
    network = unet(num_classes=5)
    x, t = inputs()
    labelled = network(x, t, torch.full((4,), label))
    network.time[2].bias.data += network.classes.weight[label].data
    torch.testing.assert_close(labelled, network(x, t))


def test_unconditional_networks_take_no_labels() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        unet()(*inputs(), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("options", VARIANTS)
def test_checkpointing_gives_the_same_gradients(options: dict) -> None:
    x, t = inputs()
    gradients, recomputed = [], []
    for gradient_checkpointing in (False, True):
        network = unet(**options, gradient_checkpointing=gradient_checkpointing, dropout=0.2).train()
        runs = 0

        def count(*_: object) -> None:
            nonlocal runs
            runs += 1

        network.middle[0].register_forward_pre_hook(count)
        torch.manual_seed(1)  # dropout
        network(x, t).square().mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
        recomputed.append(runs == 2)
    assert recomputed == [False, True]
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("options", VARIANTS)
def test_channels_last_gives_the_same_and_keeps_the_format(options: dict) -> None:
    network = unet(**options)
    x, t = inputs(16, 8)
    expected = network(x, t)
    network = network.to(memory_format=torch.channels_last)
    lost = []

    def look(module: nn.Module, _: object, output: Tensor) -> None:
        # a map of 1 x 1 pixels has both formats
        if output.ndim == 4 and not output.is_contiguous(memory_format=torch.channels_last):
            lost.append(module)

    for module in network.modules():
        module.register_forward_hook(look)
    output = network(x.to(memory_format=torch.channels_last), t)
    assert lost == []
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_state_dict_of_the_paper_network() -> None:
    """Checkpoints hold these names: they stay."""
    with torch.device("meta"):
        names = set(UNet(3, 3).state_dict())
    block = {f"{layer}.{kind}" for layer in ("norm_in", "conv_in", "time", "norm_out", "conv_out")
             for kind in ("weight", "bias")}  # fmt: skip
    assert {name.removeprefix("encoder.0.block.") for name in names if name.startswith("encoder.0.")} == block
    assert {"time.0.weight", "time.2.bias", "conv_in.weight", "norm_out.bias", "conv_out.weight"} <= names
    assert {"encoder.2.conv.weight", "encoder.3.block.shortcut.weight"} <= names
    assert {"encoder.3.attention.to_qkv.weight", "middle.0.attention.to_out.bias"} <= names
    assert {"decoder.3.conv.weight", "decoder.14.block.shortcut.bias"} <= names
    assert len(names) == 304
