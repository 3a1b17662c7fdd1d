"""Both ways of attending give the same, and each is taken where it is the quicker one."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.networks import attention
from ddpm.networks.attention import attend


def queries(tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, tokens, 8, generator=generator, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("tokens", [1, 6, 64])
def test_plain_products_are_the_fused_kernel(tokens: int):
    q, k, v = queries(tokens)
    ours, fused = attend(q, k, v), F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, fused)
    to = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), to), torch.autograd.grad(fused, (q, k, v), to), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_rows_too_long_to_be_held_as_a_matrix_are_left_to_the_fused_kernel(monkeypatch: pytest.MonkeyPatch):
    used = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: used.append(q.shape[2]))
    monkeypatch.setattr(attention, "MATMUL_TOKENS", 8)
    for tokens in (8, 9):
        attend(*queries(tokens))
    assert used == [9]


def test_plain_products_in_bfloat16_are_right_to_its_rounding():
    """Logits of a spread of 5 are rounded to 8 bits before they are exponentiated."""
    q, k, v = (x.detach() for x in queries(64))
    exact = F.scaled_dot_product_attention(*(x.double() for x in (5 * q, k, v)))
    ours = attend(*(x.bfloat16() for x in (5 * q, k, v))).double()
    assert (ours - exact).norm() < 0.02 * exact.norm()


def test_importing_within_inference_mode_does_no_harm():
    """What is computed at import takes part in training."""
    code = (
        "import torch\n"
        "with torch.inference_mode(), torch.device('meta'):\n"
        "    from ddpm.networks.blocks import Upsample\n"
        "Upsample(8)(torch.randn(64, 8, 4, 4)).sum().backward()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
