"""What a callback shows of a run: a file in the run's directory, and a picture in every logger."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lightning.pytorch import Trainer

from ddpm.runtime import writing
from ddpm.sampling.figures import png
from ddpm.sampling.figures.files import gif, raster
from ddpm.sampling.figures.film import Film
from ddpm.training.loggers import log_animation, log_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

FOLDER = "figures"
"""In the run's directory."""

WIDTH = 7.0
"""Inches of a figure, in which its letters have their size."""

DPI = 110.0
"""Pixels an inch."""


@contextmanager
def spared(what: str) -> Iterator[None]:
    """Go on behind the context where drawing a picture fails inside: training is not ended by it.

    Nothing in it may wait for other ranks.

    Args:
        what: is drawn, as loggers call it.
    """
    try:
        yield
    except Exception as error:
        said = (str(error).strip() or "nothing more is said").splitlines()[0]
        log.warning("%s: is not drawn (%s: %s); training goes on", what, type(error).__name__, said)


def show(
    trainer: Trainer,
    key: str,
    picture: np.ndarray,
    file: Path | str,
    caption: str,
    *,
    logged: np.ndarray | None = None,
) -> None:
    """Write a picture, and show it in every logger that shows pictures. The leader alone calls it.

    Args:
        trainer: of the run.
        key: in loggers, such as "data/images".
        picture: uint8 [H, W, 3].
        file: within the run's directory.
        caption: where a logger has a place for it.
        logged: what loggers show in its place, which is smaller; None for the same.
    """
    writing.write(Path(trainer.default_root_dir) / file, png(picture))
    for logger in trainer.loggers:
        log_picture(
            logger, key, picture if logged is None else logged, step=trainer.global_step, caption=caption
        )


def show_figure(trainer: Trainer, key: str, figure: "Figure", caption: str) -> None:
    """The same of a figure, in `figures/`; its file is called as the last part of the key."""
    name = f"{key.rpartition('/')[2]}.png"
    show(trainer, key, raster(figure, DPI), Path(FOLDER, name), caption)


def show_film(trainer: Trainer, key: str, film: Film, caption: str) -> None:
    """The same of a film, as a GIF."""
    path = Path(trainer.default_root_dir) / FOLDER / f"{key.rpartition('/')[2]}.gif"
    writing.write(path, gif(film))
    if path.is_file():  # loggers take it from there
        for logger in trainer.loggers:
            log_animation(logger, key, path, step=trainer.global_step, caption=caption)
