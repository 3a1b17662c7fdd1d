"""Pictures, still and moving, in whatever logger shows them."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyExperiment
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ddpm.training.loggers.failures import forgiven


@rank_zero_only
def log_picture(logger: Logger, key: str, picture: np.ndarray, step: int, caption: str | None = None) -> bool:
    """Show a picture in a logger, byte for byte, if it shows pictures.

    A callback of your own draws by it as ours do:

        for logger in trainer.loggers:
            log_picture(logger, "mine/picture", picture, step=trainer.global_step)

    Args:
        logger: of any kind: W&B and others that have `log_image(key, images, step)`, TensorBoard and others
            whose `experiment` has `add_image`, MLflow and Comet, whose `experiment` has `log_image`.
        key: under which it is shown, such as "samples/grid".
        picture: uint8 [H, W, 3].
        step: completed optimizer steps.
        caption: below the picture, where the logger has a place for it.

    Returns:
        Whether the logger shows it, which is False also where it fails: that is told, and training goes on;
        None on other ranks than 0, where nothing is done.

    Raises:
        ValueError: where the picture is of another type or shape.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"{key}: a picture is uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    with forgiven(logger, "log_picture"):
        return _shown(logger, key, picture, step, caption)
    return False


def _shown(logger: Logger, key: str, picture: np.ndarray, step: int, caption: str | None) -> bool:
    if log_image := getattr(logger, "log_image", None):
        captions = {"caption": [caption]} if caption is not None and _takes(log_image, "caption") else {}
        log_image(key, [picture], step=step, **captions)
        return True
    experiment: Any = getattr(logger, "experiment", None)
    if isinstance(experiment, DummyExperiment):  # which takes any call, and does nothing
        return False
    if add_image := getattr(experiment, "add_image", None):
        add_image(key, picture, step, dataformats="HWC")
        return True
    if log_image := getattr(experiment, "log_image", None):
        if _takes(log_image, "run_id"):  # MLflow
            log_image(logger.version, picture, key=key.replace("/", "."), step=step)
        else:  # Comet
            log_image(picture, name=key, step=step)
        return True
    return False


@rank_zero_only
def log_animation(logger: Logger, key: str, gif: Path, step: int, caption: str | None = None) -> bool:
    """Show an animation in a logger, if it shows any.

    Args:
        logger: of any kind: W&B and others that have `log_video(key, videos, step)`, TensorBoard, which shows
            a GIF as a picture that moves, MLflow, which keeps it as an artifact, and Comet.
        key: under which it is shown, such as "samples/denoising_film".
        gif: its file.
        step: completed optimizer steps.
        caption: below it, where the logger has a place for it.

    Returns:
        As `log_picture`.
    """
    with forgiven(logger, "log_animation"):
        return _moving(logger, key, gif, step, caption)
    return False


def _moving(logger: Logger, key: str, gif: Path, step: int, caption: str | None) -> bool:
    if log_video := getattr(logger, "log_video", None):
        captions = {"caption": [caption]} if caption is not None and _takes(log_video, "caption") else {}
        log_video(key, [str(gif)], step=step, **captions)
        return True
    experiment: Any = getattr(logger, "experiment", None)
    if isinstance(experiment, DummyExperiment):
        return False
    if get_writer := getattr(experiment, "_get_file_writer", None):
        # its add_video would encode anew, and needs another package for it
        from torch.utils.tensorboard.summary import Summary

        with Image.open(gif) as opened:
            width, height = opened.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif.read_bytes())
        get_writer().add_summary(Summary(value=[Summary.Value(tag=key, image=image)]), step)
        return True
    if log_artifact := getattr(experiment, "log_artifact", None):  # MLflow
        log_artifact(logger.version, str(gif), key.rpartition("/")[0])
        return True
    if log_image := getattr(experiment, "log_image", None):  # Comet
        log_image(str(gif), name=key, step=step)
        return True
    return False


def _takes(function: Any, name: str) -> bool:
    """Whether a function can be given an argument of this name."""
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.name == name or parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
