"""Every quicker way gives what the plain one gives, and is taken where it is the quicker one."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.networks import kernels
from ddpm.networks.blocks import Upsample
from ddpm.runtime.device import has_bfloat16


def awake(layer: nn.Module) -> nn.Module:
    """The layer with every weight drawn anew."""
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = 0.15 * torch.randn(parameter.shape, generator=generator)
    return layer


def queries(tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, tokens, 8, generator=generator, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("tokens", [1, 6, 64])
def test_plain_products_are_the_fused_kernel(tokens: int):
    q, k, v = queries(tokens)
    ours, fused = kernels.attention(q, k, v), F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, fused)
    to = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), to), torch.autograd.grad(fused, (q, k, v), to), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_rows_too_long_to_be_held_as_a_matrix_are_left_to_the_fused_kernel(monkeypatch: pytest.MonkeyPatch):
    used = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: used.append(q.shape[2]))
    monkeypatch.setattr(kernels, "MATMUL_TOKENS", 8)
    for tokens in (8, 9):
        kernels.attention(*queries(tokens))
    assert used == [9]


def test_plain_products_in_bfloat16_are_right_to_its_rounding():
    """Logits of a spread of 5 are rounded to 8 bits before they are exponentiated."""
    q, k, v = (x.detach() for x in queries(64))
    exact = F.scaled_dot_product_attention(*(x.double() for x in (5 * q, k, v)))
    ours = kernels.attention(*(x.bfloat16() for x in (5 * q, k, v))).double()
    assert (ours - exact).norm() < 0.02 * exact.norm()


@pytest.mark.e2e
def test_importing_within_inference_mode_does_no_harm():
    """What is computed at import takes part in training."""
    code = (
        "import torch\n"
        "with torch.inference_mode(), torch.device('meta'):\n"
        "    from ddpm.networks.blocks import Upsample\n"
        "Upsample(8)(torch.randn(64, 8, 4, 4)).sum().backward()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("batch", "height", "width"), [(16, 4, 4), (20, 3, 5), (128, 1, 2), (2, 4, 4)])
def test_upsampling_is_repetition_and_a_convolution(
    memory_format: torch.memory_format, batch: int, height: int, width: int
) -> None:
    """Also for images smaller than the kernel, for few of them, and going back."""
    layer = awake(Upsample(8)).to(memory_format=memory_format)
    x = torch.randn(batch, 8, height, width).to(memory_format=memory_format).requires_grad_()
    to = torch.randn(batch, 8, 2 * height, 2 * width)
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    given = (x, layer.conv.weight, layer.conv.bias)
    expected = F.conv2d(repeated, layer.conv.weight, layer.conv.bias, padding=1)
    output = layer(x)
    torch.testing.assert_close(output, expected)
    for ours, theirs in zip(
        torch.autograd.grad(output, given, to), torch.autograd.grad(expected, given, to), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "transposed"), [(15, False), (16, True)])
def test_upsampling_goes_the_short_way_where_that_pays(
    batch: int, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = []
    plain = F.conv_transpose2d
    monkeypatch.setattr(
        F, "conv_transpose2d", lambda *args, **kwargs: ways.append(1) or plain(*args, **kwargs)
    )
    monkeypatch.setattr("ddpm.networks.kernels.HAS_ONEDNN", True)
    Upsample(8)(torch.randn(batch, 8, 4, 4))
    assert bool(ways) == transposed
    monkeypatch.setattr("ddpm.networks.kernels.HAS_ONEDNN", False)
    ways.clear()
    Upsample(8)(torch.randn(batch, 8, 4, 4))
    assert not ways


def test_a_replaced_convolution_is_called_as_it_is() -> None:
    """As adapters replace layers, on every device alike."""
    layer, calls = awake(Upsample(8)), []
    layer.conv = nn.Sequential(layer.conv, nn.Tanh())
    layer.conv.register_forward_hook(lambda *args: calls.append(args[2]))
    x = torch.randn(16, 8, 4, 4)
    output = layer(x)
    assert len(calls) == 1
    assert output.abs().max() < 1


def test_upsampling_in_bfloat16_is_as_exact_as_a_convolution() -> None:
    """Its kernel is a sum of rounded weights, and rounded again. A CPU without bfloat16 units, where nothing
    chooses it by itself, sums the plain one up otherwise: 1.56 was seen there.
    """
    most = 1.2 if has_bfloat16(torch.device("cpu")) else 2
    layer, x = awake(Upsample(64)), torch.randn(4, 64, 8, 8)
    with torch.inference_mode():
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            ours = layer(x).float()
            plain = layer.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")).float()
    assert (ours - exact).std() < most * (plain - exact).std()


def test_dropout_keeps_its_share_at_every_place_and_the_mean() -> None:
    dropout = kernels.Dropout(0.1)
    x = torch.ones(4, 8, 64, 62).to(memory_format=torch.channels_last).requires_grad_()
    y = dropout(x)
    assert y.stride() == x.stride()
    torch.testing.assert_close(y.unique(), torch.tensor([0.0, 1 / 0.9]), rtol=1e-4, atol=0)
    drawn_together = y.detach().permute(0, 2, 3, 1).reshape(-1, 4)  # four values share one drawn number
    torch.testing.assert_close(
        (drawn_together == 0).float().mean(0), torch.full((4,), 0.1), rtol=0, atol=0.01
    )
    y.sum().backward()
    assert torch.equal(x.grad, y)
    assert not torch.equal(y, dropout(x))
    assert dropout.eval()(x) is x


@pytest.mark.parametrize("most", [0, 10**6])
def test_layers_applied_together_give_what_each_gives(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ONE_PRODUCT", most)
    layers = [nn.Linear(5, width) for width in (3, 1, 7)]
    x = torch.randn(4, 5, requires_grad=True)
    outputs = kernels.apply_each(layers, x)
    for output, layer in zip(outputs, layers, strict=True):
        torch.testing.assert_close(output, layer(x))
    weights = [layer.weight for layer in layers]
    gradients = torch.autograd.grad(sum(output.square().sum() for output in outputs), weights)
    for gradient, output in zip(gradients, outputs, strict=True):
        torch.testing.assert_close(gradient, 2 * output.T @ x)
