"""A picture goes to whatever logger shows pictures, by what it can do."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, Logger

from ddpm.training.loggers import MetricsCSV, log_picture

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
