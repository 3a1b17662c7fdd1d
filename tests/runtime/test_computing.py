"""Precision, memory layout and compilation are chosen as measured, and change no result beyond rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from lightning.pytorch import Callback, LightningModule, Trainer
from models import make_module, make_trainer
from torch import nn

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.errors import UsageError
from ddpm.runtime import computing
from ddpm.runtime.computing import AS_IT_IS, DTYPES, Computing, choose
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.compilation import Compilation
from ddpm.training.checkpoints import find
from ddpm.training.ema import EMA
from ddpm.training.module import DDPM

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LARGE, SMALL, TINY = 35_000_000, 700_000, 170_000


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What the hardware is said to have."""
    has = {"bfloat16": True, "triton": True}
    monkeypatch.setattr(computing, "has_bfloat16", lambda device: has["bfloat16"])
    monkeypatch.setattr(computing, "has_triton", lambda: has["triton"])
    return has


@pytest.mark.parametrize(
    ("device", "parameters", "steps", "chosen"),
    [
        (CPU, TINY, 4500, Computing("32-true", False, False)),
        (CPU, SMALL, 4500, Computing("bf16-mixed", False, False)),
        (CPU, LARGE, 800_000, Computing("bf16-mixed", False, False)),
        (GPU, SMALL, 800_000, Computing("32-true", False, False)),
        (GPU, LARGE, 800_000, Computing("bf16-mixed", True, True)),
        (GPU, LARGE, -1, Computing("bf16-mixed", True, True)),
        (GPU, LARGE, 500, Computing("bf16-mixed", True, False)),
    ],
)
def test_what_is_chosen(
    device: torch.device, parameters: int, steps: int, chosen: Computing, units: dict[str, bool]
):
    assert choose(device, parameters, steps) == chosen


def test_older_hardware_computes_in_float32(units: dict[str, bool]):
    units.update(bfloat16=False, triton=False)
    assert choose(GPU, LARGE, 800_000) == Computing("32-true", False, False)
    assert choose(CPU, LARGE, 800_000) == Computing("32-true", False, False)


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("parameters", [SMALL, LARGE])
@pytest.mark.parametrize("is_on", [False, True])
def test_what_a_person_says_stands(
    device: torch.device, parameters: int, is_on: bool, units: dict[str, bool]
):
    said = Computing("bf16-mixed" if is_on else "32-true", is_on, is_on)
    assert choose(
        device, parameters, 800_000, precision=said.precision, channels_last=is_on, compile=is_on
    ) == said  # fmt: skip


@pytest.mark.parametrize("steps", [10, 800_000])
def test_cuda_graphs_are_for_whom_asks_for_them(steps: int, units: dict[str, bool]):
    """They compile, be the run ever so short."""
    chosen = choose(GPU, LARGE, steps, cuda_graphs=True)
    assert chosen == Computing("bf16-mixed", True, True, cuda_graphs=True)
    assert str(chosen) == "bf16-mixed, channels last, compiled, CUDA graphs"
    assert not choose(GPU, LARGE, 800_000).cuda_graphs
    assert not choose(GPU, LARGE, 800_000, compile=False, cuda_graphs=True).compile


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_a_training_is_compiled_with_the_cuda_graphs_that_were_asked_for(
    cuda_graphs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Which find no gradients of the step before where they write."""
    asked, left = [], []

    class Looking(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.network.register_forward_pre_hook(
                lambda network, inputs: left.append(any(p.grad is not None for p in network.parameters()))
            )

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    monkeypatch.setattr(nn.Module, "compile", lambda self, options: asked.append(options))
    fit(tmp_path, make_module(), 3, Compilation(tmp_path, cuda_graphs=cuda_graphs), Looking())
    assert asked == [{"triton.cudagraphs": True} if cuda_graphs else None]
    assert left[:3] == [False] * 3
    assert "triton.cudagraphs" in torch._inductor.config.get_config_copy()


def test_float16_is_for_whom_asks_for_it(units: dict[str, bool]):
    """On a GPU without bfloat16: its products are quick, so channels last pays as well."""
    units.update(bfloat16=False)
    assert choose(GPU, LARGE, 500, precision="16-mixed") == Computing("16-mixed", True, False)
    assert choose(GPU, TINY, 500, precision="16-mixed") == Computing("16-mixed", False, False)
    with pytest.raises(UsageError, match="on a CPU use bf16-mixed or 32-true"):
        choose(CPU, LARGE, 500, precision="16-mixed")


def test_a_precision_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="precision=fp16: must be one of auto, 32-true,"):
        choose(CPU, LARGE, 500, precision="fp16")


def test_a_mac_computes_in_float32_unless_it_is_said(units: dict[str, bool]):
    mac = torch.device("mps")
    assert choose(mac, LARGE, 800_000) == Computing("32-true", False, False)
    assert choose(mac, LARGE, 500, precision="16-mixed").precision == "16-mixed"


@pytest.mark.parametrize(("precision", "dtype"), DTYPES.items())
def test_products_are_computed_in_the_precision(precision: str, dtype: torch.dtype):
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    with Computing(precision, channels_last=False, compile=False).autocast(CPU):
        assert layer(x).dtype == dtype


def lay(module: DDPM) -> DDPM:
    """Channels last, as the program does it."""
    module.compute_as(Computing("32-true", channels_last=True, compile=False))
    return module


def fit(directory: Path, module: DDPM, steps: int, *callbacks: Any, ckpt: Path | None = None) -> DDPM:
    trainer = make_trainer(directory, steps, Checkpoints(every_n_steps=5), *callbacks)
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0), ckpt_path=ckpt)
    return module


@pytest.mark.e2e
def test_a_run_goes_on_in_another_memory_layout(tmp_path: Path):
    whole = fit(tmp_path / "whole", make_module(), 8)
    for first, second in ((lay, lambda module: module), (lambda module: module, lay)):
        directory = tmp_path / second.__name__
        fit(directory / "first", first(make_module()), 5)
        ckpt = directory / "first/checkpoints/last.ckpt"
        rest = fit(directory / "second", second(make_module()), 8, ckpt=ckpt)
        kernel = next(p for p in rest.network.parameters() if p.dim() == 4 and p.shape[1] > 1)
        assert kernel.is_contiguous() != (second is lay)
        for name, weights in whole.state_dict().items():
            torch.testing.assert_close(rest.state_dict()[name], weights, atol=1e-4, rtol=1e-3)
        for a, b in zip(rest.ema._average, whole.ema._average, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_the_average_follows_another_memory_layout():
    module = make_module()
    for average in module.ema._average:
        average.normal_()
    before = [average.clone() for average in module.ema._average]
    lay(module)
    for parameter, average, value in zip(
        module.network.parameters(), module.ema._average, before, strict=True
    ):
        assert average.stride() == parameter.stride()
        assert torch.equal(average, value)
    module.compute_as(AS_IT_IS)
    for parameter, average in zip(module.network.parameters(), module.ema._average, strict=True):
        assert parameter.is_contiguous()
        assert average.is_contiguous()


def test_samples_are_drawn_in_the_precision_that_was_chosen():
    """With weights that are awake, since a fresh network answers zero in every precision."""
    module = make_module()
    for parameter in module.network.parameters():
        parameter.data.normal_(std=0.1)
    module.ema = EMA(module.network, 0.9)
    exact = module.sample(range(2))
    asked: list[torch.dtype] = []
    module.network.conv_in.register_forward_hook(lambda *args: asked.append(args[2].dtype))
    module.compute_as(Computing("bf16-mixed", channels_last=False, compile=False))
    halves = module.sample(range(2))
    assert set(asked) == {torch.bfloat16}
    assert halves.dtype == torch.float32
    assert 0 < (halves - exact).abs().max() < 0.2


def test_autocast_never_mixes_up_the_average_and_the_network():
    """Within an outer autocast, as in validation, each answers as it does alone."""
    module = make_module()
    for parameter, average in zip(module.network.parameters(), module.ema._average, strict=True):
        parameter.data.normal_(std=0.1)
        average.normal_(std=0.1)
    module.compute_as(Computing("bf16-mixed", channels_last=False, compile=False))
    x, t = torch.randn(2, *module.image_shape), torch.tensor([3, 700])

    def answer(weights: str) -> torch.Tensor:
        with module.evaluating(weights):
            return module.network(x, t)

    alone = [answer(weights) for weights in ("raw", "ema")]
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            assert torch.equal(answer("raw"), alone[0])
            assert torch.equal(answer("ema"), alone[1])


def compiled(directory: Path) -> DDPM:
    return fit(directory, make_module(), 3, Compilation(directory / "cache"))


def assert_as_it_is(directory: Path, module: DDPM) -> None:
    """Same weights, same names in the checkpoint, same samples as without compilation."""
    plain = fit(directory / "plain", make_module(), 3)
    for name, weights in plain.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], weights, atol=1e-4, rtol=1e-3)
    assert find(directory)[1]["state_dict"].keys() == find(directory / "plain")[1]["state_dict"].keys()
    torch.testing.assert_close(module.sample(range(2)), plain.sample(range(2)), atol=1e-3, rtol=0)


@pytest.mark.e2e
def test_the_training_step_alone_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Up to the code generator, which takes a minute."""
    ran, plain_compile = [], nn.Module.compile

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        return lambda *arguments: (ran.append(torch.is_grad_enabled()), graph(*arguments))[1]

    monkeypatch.setattr(nn.Module, "compile", lambda self, options: plain_compile(self, backend=backend))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with caplog.at_level("INFO"):
        module = compiled(tmp_path)
    assert "compiling the network" in caplog.text
    assert f"finds most of it in {tmp_path / 'cache'}" in caplog.text
    assert ran == [True] * 3
    assert_as_it_is(tmp_path, module)
    assert len(ran) == 3


@pytest.mark.slow
def test_generated_code_trains_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    assert_as_it_is(tmp_path, compiled(tmp_path))
