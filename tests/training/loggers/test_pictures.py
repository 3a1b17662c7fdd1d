"""A picture goes to whatever logger shows pictures, by what it can do."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from PIL import Image

from ddpm.training.loggers import MetricsCSV, log_animation, log_picture

PICTURE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


class OfAStranger(Logger):
    """A logger whose `log_image` knows no captions."""

    name = version = "theirs"

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Any] = []

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        self.shown.append((key, images[0], step))


def test_log_image():
    logger = OfAStranger()
    assert log_picture(logger, "samples/grid", PICTURE, 7, caption="ten digits")
    ((key, picture, step),) = logger.shown
    assert (key, step) == ("samples/grid", 7)
    assert picture is PICTURE


def test_tensorboards_experiment():
    experiment = SimpleNamespace(add_image=Mock())
    assert log_picture(SimpleNamespace(experiment=experiment), "samples/grid", PICTURE, 7)
    experiment.add_image.assert_called_once_with("samples/grid", PICTURE, 7, dataformats="HWC")


def test_mlflows_and_comets_experiments():
    shown: list[Any] = []

    def mlflows(
        run_id: str, image: Any, artifact_file: Any = None, key: str = "", step: int | None = None
    ) -> None:
        shown.append((run_id, image is PICTURE, key, step))

    def comets(image_data: Any, name: str | None = None, step: int | None = None) -> None:
        shown.append((image_data is PICTURE, name, step))

    for log_image in (mlflows, comets):
        logger = SimpleNamespace(version="id", experiment=SimpleNamespace(log_image=log_image))
        assert log_picture(logger, "samples/grid", PICTURE, 7)
    assert shown == [("id", True, "samples.grid", 7), (True, "samples/grid", 7)]


def test_loggers_that_show_none_are_left_alone(tmp_path):
    assert not log_picture(MetricsCSV(tmp_path / "metrics.csv"), "samples/grid", PICTURE, 7)
    assert not log_picture(CSVLogger(tmp_path), "samples/grid", PICTURE, 7)
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("wrong", [PICTURE / 255, PICTURE[..., :1], PICTURE[..., 0]])
def test_what_is_no_picture_is_refused(wrong: np.ndarray):
    with pytest.raises(ValueError, match=r"samples/grid: a picture is uint8 \[H, W, 3\], not"):
        log_picture(OfAStranger(), "samples/grid", wrong, 7)


@pytest.fixture
def gif(tmp_path: Path) -> Path:
    first, *rest = (Image.new("L", (6, 4), grey) for grey in (0, 100, 200))
    first.save(tmp_path / "film.gif", save_all=True, append_images=rest)
    return tmp_path / "film.gif"


def test_tensorboard_shows_an_animation_byte_for_byte(gif: Path, tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="")
    assert log_picture(logger, "samples/grid", PICTURE, 7)
    assert log_animation(logger, "samples/film", gif, 7)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["images"] == ["samples/grid", "samples/film"]
    (shown,) = events.Images("samples/film")
    assert (shown.step, shown.width, shown.height) == (7, 6, 4)
    assert shown.encoded_image_string == gif.read_bytes()


def test_animations_go_to_what_shows_or_keeps_them(gif: Path, tmp_path: Path):
    shown: list[Any] = []

    def log_video(key: str, videos: list[str], step: int, **named: Any) -> None:
        shown.append((key, videos, step, named))

    def mlflows(run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        shown.append((run_id, local_path, artifact_path))

    def comets(image_data: Any, name: str | None = None, step: int | None = None) -> None:
        shown.append((image_data, name, step))

    assert log_animation(SimpleNamespace(log_video=log_video), "samples/film", gif, 7, caption="six digits")
    experiment = SimpleNamespace(log_artifact=mlflows, log_image=comets)
    assert log_animation(SimpleNamespace(version="id", experiment=experiment), "samples/film", gif, 7)
    experiment = SimpleNamespace(log_image=comets)
    assert log_animation(SimpleNamespace(experiment=experiment), "samples/film", gif, 7)
    assert shown == [
        ("samples/film", [str(gif)], 7, {"caption": ["six digits"]}),
        ("id", str(gif), "samples"),
        (str(gif), "samples/film", 7),
    ]
    assert not log_animation(MetricsCSV(tmp_path / "metrics.csv"), "samples/film", gif, 7)
    assert not log_animation(CSVLogger(tmp_path), "samples/film", gif, 7)


def test_an_animation_that_is_not_there_ends_nothing(tmp_path: Path):
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path, name="", version="")
    assert not log_animation(logger, "samples/film", tmp_path / "none.gif", 7)
