"""Each logger is given what its constructor asks for, and not more."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.loggers import WandbLogger as LightningsWandbLogger

from ddpm.training.loggers import WandbLogger, provided

RUN: dict[str, Any] = {"directory": Path("logs/run"), "run_name": "cosine"}
WHOLE: dict[str, Any] = {**RUN, "group": "sweep", "id": "abc", "config": {"seed": 0}, "tags": ["a", "b"]}
VARIABLES = ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_RUN_ID", "WANDB_DIR", "WANDB_TAGS")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "constructor", [WandbLogger, LightningsWandbLogger, partial(WandbLogger, mode="offline")]
)
def test_wandb(constructor: Any):
    given = {
        "save_dir": "logs/run", "name": "cosine", "group": "sweep", "id": "abc", "config": {"seed": 0},
        "tags": ["a", "b"],
    }  # fmt: skip
    assert provided(constructor, **WHOLE) == given
    constructor(**given)


def test_wandb_where_variables_say_it_and_tags_come_from_a_key(monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "x")
    assert provided(WandbLogger, **WHOLE) == {"config": {"seed": 0}, "tags": ["a", "b"]}
    assert provided(WandbLogger, **RUN) == {}


@pytest.mark.parametrize("constructor", [TensorBoardLogger, CSVLogger])
def test_loggers_of_files(constructor: Any):
    assert provided(constructor, **WHOLE) == {"save_dir": "logs/run"}


def test_mlflow():
    assert provided(MLFlowLogger, **WHOLE) == {
        "save_dir": "logs/run",
        "run_name": "cosine",
        "tags": {"a": "true", "b": "true"},
    }


def test_a_strangers():
    class Theirs:
        def __init__(self, log_dir: str, tags: list[str] | None = None, config: str = "theirs"): ...

    assert provided(Theirs, **WHOLE) == {"log_dir": "logs/run", "tags": ["a", "b"]}
    assert provided(lambda: None, **WHOLE) == {}
