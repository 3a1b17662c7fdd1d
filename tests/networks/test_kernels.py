"""Every quicker way gives what the plain one gives, and is taken where it is the quicker one."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
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


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("groups", "mean"), [(1, 0.0), (3, 5.0), (12, -300.0)])
def test_groups_are_normalised_as_by_torch(
    memory_format: torch.memory_format, dtype: torch.dtype, groups: int, mean: float
) -> None:
    """Also groups of one channel, far from 0, and going back."""
    generator = torch.Generator().manual_seed(0)
    x = mean + torch.randn(4, 12, 5, 3, dtype=dtype, generator=generator)
    x = x.to(memory_format=memory_format).requires_grad_()
    weight, bias = (torch.randn(12, dtype=dtype, generator=generator, requires_grad=True) for _ in range(2))
    ours = kernels.normalize_groups(x, groups, weight, bias, 1e-6)
    expected = F.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-6)
    near = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-3}
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(ours.double(), expected, **near)
    to = torch.randn(ours.shape, dtype=dtype, generator=generator)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight, bias), to),
        torch.autograd.grad(expected, (x, weight, bias), to.double()),
        strict=True,
    ):
        torch.testing.assert_close(a, b.to(dtype), **near)


@pytest.mark.parametrize(
    ("of", "weights"), [("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float32", "float32")]
)
def test_normalised_groups_are_of_the_type_of_the_weights(of: str, weights: str) -> None:
    x, norm = torch.randn(2, 4, 3, 3).to(getattr(torch, of)), nn.GroupNorm(2, 4).to(getattr(torch, weights))
    ours = kernels.normalize_groups(x, 2, norm.weight, norm.bias, 1e-6)
    assert ours.dtype == getattr(torch, weights)
    torch.testing.assert_close(ours.float(), F.group_norm(x.float(), 2), rtol=1e-2, atol=1e-2)


class OnAGPU(Tensor):
    """A tensor that says so."""

    device = torch.device("cuda")


@pytest.mark.parametrize(
    ("kind", "shape", "compiling", "by_us"),
    [
        (OnAGPU, (4, 8, 6, 6), True, True),
        (OnAGPU, (4, 8, 6, 6), False, False),
        (OnAGPU, (4, 8, 6), True, False),
        (Tensor, (4, 8, 6, 6), True, False),
    ],
)
def test_only_compiled_code_on_a_gpu_normalises_its_own_way(
    kind: type[Tensor],
    shape: tuple[int, ...],
    compiling: bool,
    by_us: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways, ours = [], kernels.normalize_groups
    monkeypatch.setattr(kernels, "normalize_groups", lambda *args: ways.append(1) or ours(*args))
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: compiling)
    norm, x = awake(kernels.GroupNorm(2, 8)), torch.randn(shape)
    output = norm(x.as_subclass(kind))
    assert bool(ways) == by_us
    torch.testing.assert_close(output.as_subclass(Tensor), F.group_norm(x, 2, norm.weight, norm.bias))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_compiled_code_repeats_pixels_without_a_scatter(memory_format: torch.memory_format) -> None:
    """The same values and gradients, in the layout that came, none of them by additions that race."""
    x = torch.randn(2, 6, 3, 5).to(memory_format=memory_format).requires_grad_()
    to = torch.randn(2, 6, 6, 10)
    graphs = []

    def noting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    compiled = torch.compile(
        kernels.repeat_pixels, fullgraph=True, backend=aot_autograd(fw_compiler=noting, bw_compiler=noting)
    )
    output = compiled(x)
    assert output.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(output, kernels.repeat_pixels(x), rtol=0, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(output, x, to)[0], torch.autograd.grad(kernels.repeat_pixels(x), x, to)[0]
    )
    assert len(graphs) == 2
    assert not [node for graph in graphs for node in graph.graph.nodes if "index" in str(node.target)]


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
