"""preflight=true says what a run would take, and leaves nothing behind."""

import re
import sys
from pathlib import Path

import pytest
import torch

from ddpm.app import command_line, preflight
from ddpm.networks import UNet
from ddpm.runtime.progress import duration
from ddpm.sampling.drawing import Drawing
from ddpm.training import module as training_module

pytestmark = pytest.mark.e2e


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str]:
    """Exit code and words of a preflight, in this process."""
    given = ("experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=1", "preflight=true")
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *given])
    with pytest.raises(SystemExit) as exit_:
        command_line.run("train")
    captured = capsys.readouterr()
    return exit_.value.code, captured.out + captured.err


def test_it_says_what_a_run_would_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    code, words = said(monkeypatch, capsys, "trainer.accumulate_grad_batches=4")
    assert code == 0
    lines = dict(re.findall(r"^(.{15})(.*)$", words, re.MULTILINE))
    lines = {title.strip(): text for title, text in lines.items()}
    assert lines["parameters"] == "176,849"
    assert lines["images"].startswith("1,437 to train on, 360 held out")
    forward, step = re.findall(r"[\d.]+", lines["FLOPs an image"])
    assert float(step) == pytest.approx(3 * float(forward), rel=1e-3)
    assert lines["batch"].startswith("64 images a step, 16 at once")
    assert "32-true, on 1 x CPU" in lines["computed in"]
    assert lines["memory"].endswith("GiB of the process, at its peak")
    assert re.match(r"[\d.]+ ms, [\d,]+ images/s", lines["a step"])
    assert lines["a sample grid"].startswith("16 images every 10 steps: ")
    assert lines["the run"].startswith("20 steps: ")
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_laid_out_as_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """And samples are drawn in the precision of the run."""
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[torch.dtype, bool]] = []

    def look(self: UNet, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if x.device.type != "meta" and not torch.is_grad_enabled():  # grids are timed
            seen.append((self.conv_in(x).dtype, self.conv_out.weight.is_contiguous()))
        return forward(self, x, t)

    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", look)
    code, words = said(monkeypatch, capsys, "model.channels_last=true")
    assert "computed in    32-true, channels last, on 1 x CPU" in words
    assert code == 0
    assert set(seen) == {(torch.float32, False)}


def test_a_batch_that_does_not_fit_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def full(*arguments: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight, "_seconds_a_step", full)
    code, words = said(monkeypatch, capsys)
    assert code == 1
    assert "64 images at once do not fit; use data.micro_batch=auto" in words
    code, words = said(monkeypatch, capsys, "data.micro_batch=auto")
    assert code == 1
    assert "64 images at once do not fit; use data.micro_batch=32" in words


@pytest.mark.parametrize(
    "message",
    [
        "MPS backend out of memory (MPS allocated: 8 GB)",
        "DefaultCPUAllocator: can't allocate memory: you tried",
    ],
)
def test_a_mac_and_a_cpu_tell_it_in_words_only(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def fails(*arguments: object) -> float:
        raise RuntimeError(message)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight, "_seconds_a_step", fails)
    code, words = said(monkeypatch, capsys)
    assert code == 1
    assert "use data.micro_batch=auto" in words
    message = "something else"
    with pytest.raises(RuntimeError, match=message):
        said(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("final", "timesteps", "expected", "last"),
    [  # 20 steps of 64 images are worth 3,840 forward passes, and 16 pictures in 60 steps take a quarter
        ("true", 61, "by the run's own sampler: 11 d", 1e6),
        ("auto", 61, "by that of the other grids: 0.5 s; the run's own sampler would take 11 d", 0.5),
        ("auto", 60, "by the run's own sampler: 11 d", 1e6),
        ("false", 60, None, 0.5),
    ],
)
def test_the_sampler_of_the_last_grid_is_the_one_that_a_run_takes(
    final: str,
    timesteps: int,
    expected: str | None,
    last: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    def seconds(drawing: Drawing, indices: range) -> float:
        return 1e6 if drawing.sampler is drawing.model.sampler else 0.5

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight, "seconds_to_draw", seconds)
    monkeypatch.setattr(preflight, "_seconds_a_step", lambda *arguments: 1.0)
    _, words = said(
        monkeypatch, capsys, f"callbacks.samples.final={final}", f"schedule.num_timesteps={timesteps}"
    )
    lines = {line[:15].strip(): line[15:] for line in words.splitlines()}
    if expected is None:
        assert "the last grid" not in lines
    else:
        assert lines["the last grid"].startswith(expected)
    # 20 steps of a second, a grid at 10, and the last one in place of that at 20
    assert f"20 s, and {duration(0.5 + last)} for grids" in lines["the run"]


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_its_steps_clip_as_those_of_training(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    seen: list[tuple[float, str]] = []

    def clip(
        gradients: list[torch.Tensor], norm: torch.Tensor, limit: float, by: str, *others: object
    ) -> None:
        assert len(gradients) > 10
        seen.append((limit, by))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_module, "clip", clip)
    words = f"trainer.gradient_clip_algorithm={algorithm}"
    assert said(monkeypatch, capsys, words, "trainer.gradient_clip_val=0.3")[0] == 0
    assert set(seen) == {(0.3, algorithm)}


def test_steps_that_are_not_finite_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    rate = ("optimizer.lr=1e12", "trainer.gradient_clip_val=null")
    code, words = said(monkeypatch, capsys, *rate)
    assert code == 1
    assert "a step         is not finite on random images: step 2: " in words
    assert not list(tmp_path.rglob("nonfinite"))


def test_a_sweep_has_no_preflight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    code, words = said(monkeypatch, capsys, "-m", "seed=0,1")
    assert code == 2
    assert "preflight=true: looks at one run; leave -m out" in words


def test_a_mistake_is_told_as_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    code, words = said(monkeypatch, capsys, "data.batch_size=0")
    assert code == 2
    assert "data.batch_size=0 must be at least 1" in words
    assert list(tmp_path.iterdir()) == []
