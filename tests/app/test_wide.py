"""Punctuation of an input method for Chinese is named with the command that was meant; text is left alone."""

# ruff: noqa: RUF001

from pathlib import Path

import pytest
from conftest import run_command

from ddpm.app import arguments, wide
from ddpm.errors import UsageError

MEANT = {
    "trainer.devices＝4": ("＝", "trainer.devices=4"),
    "trainer。devices=4": ("。", "trainer.devices=4"),
    "trainer.devices=４": ("４", "trainer.devices=4"),
    "labels=【0，1】": ("【", "'labels=[0,1]'"),
    "labels=[0、1]": ("、", "'labels=[0,1]'"),
    "labels＝【猫，狗】": ("＝", "'labels=[猫,狗]'"),
    "tags=【猫（大）、狗】": ("【", "'tags=[猫（大）,狗]'"),
    "schedule=linear，cosine": ("，", "schedule=linear,cosine"),
    "schedule=“linear”": ("“", "'schedule=\"linear\"'"),
    "schedule=‘linear’": ("‘", "'schedule='\"'\"'linear'\"'\"''"),
    "schedule=＇linear＇": ("＇", "'schedule='\"'\"'linear'\"'\"''"),
    "schedule=＂linear＂": ("＂", "'schedule=\"linear\"'"),
    "callbacks.x={a：1}": ("：", "'callbacks.x={a:1}'"),
    "sweep=choice（1,2）": ("（", "'sweep=choice(1,2)'"),
    "optimizer.lr=１ｅ－４": ("１", "optimizer.lr=1e-4"),
    "seed=1\u3000model=tiny": ("U+3000", "seed=1 model=tiny"),
    "data.path=“/a b”": ("“", "'data.path=\"/a b\"'"),
    "data.path＝/图片（1）": ("＝", "'data.path=/图片（1）'"),
    "－m": ("－", "-m"),
    "—m": ("—", "-m"),
    "——help": ("—", "--help"),
}

TEXT = (
    "data.path=/图片（1）/“好”", "data.path=/a（1）", "out=“x”", "hydra.run.dir=/run：1",
    "labels=[狗（大）,猫]", "labels=[dog（big）]", "tags=[第一次，大]", "tags=[a（b）]", "labels=【猫】",
    "logger.wandb.name=smoke（1）", "logger.wandb.notes=“quoted”", "data.label_column=类别：一",
    "experiment=我的，实验", "schedule=linear", "schedule.path=betas（1）.txt", "extractor.file=a（1）.pt",
    "data.cache_dir=/tmp（1）", "data.condition.columns=[age（y）]", "data.labels=.\\labels（1）.csv",
)  # fmt: skip


@pytest.mark.parametrize("typed", MEANT)
def test_what_an_input_method_has_typed_is_named_with_the_command_that_was_meant(typed: str):
    letter, meant = MEANT[typed]
    with pytest.raises(UsageError) as told:
        arguments.read([typed])
    assert str(told.value).startswith(f"{typed}: {letter}")
    assert str(told.value).endswith(f", type {meant}")


def test_text_passes_as_it_is():
    for typed in TEXT:
        wide.check(typed)
    read = arguments.read(["data=folder", "data.path=/图片（1）/“好”", "tags=[第一次，大]"])
    assert read.value("data.path") == "/图片（1）/“好”"
    assert read.value("tags") == ["第一次，大"]


def test_flags_of_commands_are_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.ckpt").touch()
    for words in (("ema", "x.ckpt", "sigma_rel＝0.1"), ("import", "x.ckpt", "out", "kind＝dit")):
        assert run_command(monkeypatch, *words) == 2
        key, _, value = words[-1].partition("＝")
        assert f"is no =, type {key}={value}" in capsys.readouterr().err
