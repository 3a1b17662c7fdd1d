"""Samples and measurements are gone on with by the command that asked for them, and by no other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_here
from PIL import Image

from ddpm.app import sample
from ddpm.app.request import NAME, Request, asked_in
from ddpm.errors import UsageError
from ddpm.runtime.pieces import Pieces
from ddpm.sampling import image_files
from ddpm.sampling.drawing import Drawing

CONFIG: dict[str, Any] = {
    "ckpt": "logs/train/x",
    "n": 4,
    "sampler": {"num_steps": 5},
    "trainer": {"devices": 1, "precision": "auto"},
    "strategy": {},
    "batch_size": None,
}
CONTENTS = {"ckpt": "abc"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 5}, ["n is 5 here and 4 there"]),
        ({"sampler": {}}, ["sampler.num_steps is None here and 5 there"]),
        ({"trainer": {"precision": "32-true"}}, ["trainer.precision is '32-true' here and 'auto' there"]),
        ({"trainer": {"devices": 4, "precision": "auto"}, "strategy": {"_target_": "x"}}, []),
        ({"batch_size": 16, "ckpt": "elsewhere/x"}, []),
        ({"labels": None}, ["it is one of another program, or of another version"]),
    ],
)  # fmt: skip
def test_what_makes_another_request(change: dict[str, Any], said: list[str], tmp_path: Path):
    Request(CONFIG, CONTENTS).write(tmp_path)
    asked = asked_in(tmp_path)
    assert asked is not None
    assert asked.differences({**CONFIG, **change}) == said
    assert asked.differences(CONFIG, {"ckpt": "other"}) == ["the content of ckpt is another"]
    assert asked.differences(CONFIG, CONTENTS) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layout": 2, "config": {}, "contents": {}}', "\0"])
def test_a_request_that_cannot_be_read_is_refused(text: str, tmp_path: Path):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UsageError, match=NAME):
        asked_in(tmp_path)


@pytest.fixture
def ask(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, np.ndarray | None]]:
    """Runs sample.py into a directory; the exit code and the images."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, out: str = "out") -> tuple[int, np.ndarray | None]:
        cpu = ("trainer.accelerator=cpu", "sampler=ddim", "sampler.num_steps=3", "batch_size=2")
        code = run_here(monkeypatch, "sample", f"ckpt={conditional_run}", f"out={out}", *cpu, *words)
        file = tmp_path / out / "samples.npz"
        return code, np.load(file)["arr_0"] if file.is_file() else None

    return run


class Stopped(Exception):  # noqa: N818
    """Stands for whatever ends a process."""


def test_the_same_command_draws_only_what_is_missing(
    ask: Callable[..., tuple[int, np.ndarray | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    _, undisturbed = ask("n=7", out="undisturbed")
    drawn: list[range] = []
    draw = Drawing.__call__

    def stops(self: Drawing, indices: range, **settings: Any) -> Any:
        if len(drawn) == 2:
            raise Stopped
        drawn.append(indices)
        return draw(self, indices, **settings)

    monkeypatch.setattr(Drawing, "__call__", stops)
    assert ask("n=7") == (1, None)
    assert Pieces(tmp_path / "out" / "pieces" / "images", 7).missing(2) == [range(4, 6), range(6, 7)]
    drawn[:] = [range(0)]
    code, images = ask("n=7")
    assert code == 1
    assert images is None
    assert drawn[1:] == [range(4, 6)]
    drawn.clear()
    code, images = ask("n=7")
    assert code == 0
    assert drawn == [range(6, 7)]
    assert undisturbed is not None
    assert images is not None
    assert (tmp_path / "out/samples.npz").read_bytes() == (tmp_path / "undisturbed/samples.npz").read_bytes()
    assert (tmp_path / "out/grid.png").read_bytes() == (tmp_path / "undisturbed/grid.png").read_bytes()
    capsys.readouterr()
    assert ask("n=7")[0] == 0
    assert "holds these 7 images already" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "grid.png", "request.json", "sample.log", "samples.npz",
    ]  # fmt: skip


def test_image_files_are_there_when_all_of_them_are(
    ask: Callable[..., tuple[int, np.ndarray | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """A start that is stopped while it writes them draws nothing again."""
    words = ("n=5", "labels=[3,1]", "format=both")
    encode, written = image_files.png, []

    def stops(image: np.ndarray) -> bytes:
        if len(written) == 3:
            raise Stopped
        written.append(image)
        return encode(image)

    with monkeypatch.context() as patch:
        patch.setattr(image_files, "png", stops)
        assert ask(*words) == (1, None)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "grid.png", "pieces", "request.json", "sample.log",
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Drawing, "__call__", lambda *_, **settings: pytest.fail("drawn again"))
        _, images = ask(*words)
    assert images is not None
    assert not (out / "pieces").exists()
    files = sorted((out / "images").iterdir())
    assert [file.name for file in files] == [
        "000000_3.png", "000001_1.png", "000002_3.png", "000003_1.png", "000004_3.png",
    ]  # fmt: skip
    assert all(
        np.array_equal(np.asarray(Image.open(file)), image[..., 0])
        for file, image in zip(files, images, strict=True)
    )
    capsys.readouterr()
    assert ask(*words)[0] == 0
    assert "holds these 5 images already" in capsys.readouterr().out
    files[2].unlink()
    assert ask(*words)[0] == 2
    assert "1 of 5 images are not there any more, such as 000002_3.png" in capsys.readouterr().err


def test_another_request_is_refused_and_loses_nothing(
    ask: Callable[..., tuple[int, np.ndarray | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    ask("n=2")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for words, said in (("n=3", "n is 3 here and 2 there"), ("seed=1 n=2", "seed is 1 here and 0 there")):
        capsys.readouterr()
        assert ask(*words.split())[0] == 2
        assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("name", "is_folder", "said"),
    [
        ("pieces/images", True, "holds pieces of another run already"),
        ("pieces", False, "pieces is no folder"),
        ("images", True, "holds images of another run already"),
        ("request.json", True, "request.json is a folder"),
        ("grid.png", True, "grid.png is a folder"),
        ("samples.npz", True, "samples.npz is a folder"),
    ],
)
def test_what_is_in_the_way_is_told_before_anything_is_drawn(
    name: str,
    is_folder: bool,
    said: str,
    ask: Callable[..., tuple[int, np.ndarray | None]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    path = tmp_path / "out" / name
    if is_folder:
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.touch()
    assert ask("n=2")[0] == 2
    assert said in capsys.readouterr().err
    assert [found.relative_to(tmp_path / "out") for found in (tmp_path / "out").rglob("*")][-1] == Path(name)
    assert not (tmp_path / "out" / "sample.log").exists()


@pytest.mark.slow
def test_one_job_of_a_cluster_asks_for_several_things(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Each in a directory of its own, that the same command finds again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NAME", "batch")
    copied = tmp_path / "another"
    shutil.copytree(conditional_run, copied)
    words = ("trainer.accelerator=cpu", "sampler=ddim", "sampler.num_steps=2", "n=2")
    for own in (f"ckpt={conditional_run} seed=0", f"ckpt={conditional_run} seed=1", f"ckpt={copied} seed=0"):
        assert run_here(monkeypatch, "sample", *own.split(), *words) == 0
    names = sorted(path.name for path in (tmp_path / "logs" / "sample").iterdir())
    assert names == ["slurm_4711", "slurm_4711-2", "slurm_4711-3"]
    capsys.readouterr()
    assert run_here(monkeypatch, "sample", f"ckpt={conditional_run}", "seed=1", *words) == 0
    assert "slurm_4711-2: holds these 2 images already" in capsys.readouterr().out


def test_another_checkpoint_is_another_request(
    ask: Callable[..., tuple[int, np.ndarray | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ask("n=2")
    monkeypatch.setattr(sample, "fingerprint", lambda path: "trained on")
    assert ask("n=2")[0] == 2


def test_measurements_go_on_likewise(
    conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = (
        f"ckpt={conditional_run}", "metrics.nll.n=6", "metrics.nll.num_steps=3", "batch_size=2",
        "trainer.accelerator=cpu",
    )  # fmt: skip
    keep, kept = Pieces.keep, []

    def stops(self: Pieces, indices: range, arrays: Any) -> None:
        if len(kept) == 2:
            raise Stopped
        kept.append(indices)
        keep(self, indices, arrays)

    assert run_here(monkeypatch, "evaluate", *words, f"hydra.run.dir={tmp_path / 'undisturbed'}") == 0
    monkeypatch.setattr(Pieces, "keep", stops)
    here = f"hydra.run.dir={tmp_path / 'out'}"
    assert run_here(monkeypatch, "evaluate", *words, here) == 1
    kept.clear()
    assert run_here(monkeypatch, "evaluate", *words, here) == 0
    assert kept == [range(4, 6)]
    found, expected = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("out", "undisturbed")
    )
    assert found["nll"] == expected["nll"]
    assert run_here(monkeypatch, "evaluate", *words, here) == 0
    assert "holds these measurements already" in capsys.readouterr().out
