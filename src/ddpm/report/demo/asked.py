"""What a person asks of a page, checked, and made into drawings that sample.py would make too."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.data.augmentation import normalize
from ddpm.data.pixels.decoding import decode_or_reason
from ddpm.data.pixels.like_training import shaped, shaping_of
from ddpm.data.pixels.shaping import Shaping
from ddpm.diffusion import Known
from ddpm.diffusion.guidance import ClassifierFree, Guidance
from ddpm.diffusion.start import Between, FromImage, Start
from ddpm.options import option
from ddpm.report.demo.choices import MOST_IMAGES, can_be_guided, label_of, sampler_of, scale_of
from ddpm.report.demo.language import RefusalError
from ddpm.run import Run
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import to_uint8
from ddpm.targets import build

MOST_SEED = 2**53 - 1
"""Beyond it a browser's numbers are no longer whole."""


@dataclass(frozen=True)
class Settings:
    """How something is drawn.

    Attributes:
        sampler: an option of `conf/sampler`.
        num_steps: that it visits.
        seed: of the noise; image i depends on (seed, i).
        n: images.
        classes: names that the images take in turn; none for every class, or, of a picture that says what to
            draw, for no class.
        scale: of the guidance; None for that of the run.
    """

    sampler: str
    num_steps: int
    seed: int = 0
    n: int = 8
    classes: tuple[str, ...] = ()
    scale: float | None = None


def settings(
    sampler: Any, num_steps: Any, seed: Any, n: Any, classes: Any = (), scale: Any = None, *, most: int
) -> Settings:
    """What was typed and chosen, as `Settings`.

    Args:
        sampler, num_steps, seed, n, classes, scale: as a browser sends them.
        most: steps that there are.

    Raises:
        RefusalError: for the first that makes no sense.
    """
    steps = whole(num_steps, 1, most, "bad_steps")
    if scale is not None and not (isinstance(scale, int | float) and 0 <= scale < math.inf):
        raise RefusalError("bad_scale")
    return Settings(
        str(sampler),
        steps,
        whole(seed, 0, MOST_SEED, "bad_seed"),
        whole(n, 1, MOST_IMAGES, "bad_n"),
        tuple(map(str, classes or ())),
        scale,
    )


def whole(value: Any, least: int, most: int, key: str) -> int:
    """A whole number from a field of the page.

    Raises:
        RefusalError: `key`, where it is none or lies outside.
    """
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    if not is_whole or not least <= value <= most:
        given = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        raise RefusalError(key, value=given, least=least, most=most)
    return int(value)


def prepared(run: Run, contents: bytes | None) -> np.ndarray:
    """A picture as the images of a run are, by the way of `sample.py start=PICTURE`: uint8 [C, H, W].

    Args:
        run: that is to draw.
        contents: of its file; None where there is none.

    Raises:
        RefusalError: where it cannot be read as a picture.
    """
    if contents is None:
        raise RefusalError("no_picture")
    read = partial(_decoded, contents)
    return shaped(read, shaping_of(run.module.image_shape, run.config.get("data")))


def _decoded(contents: bytes, shaping: Shaping) -> np.ndarray:
    decoded = decode_or_reason(contents, shaping)
    if isinstance(decoded, str):
        raise RefusalError("bad_picture", reason=decoded.rstrip("."))
    return decoded.pixels.copy()


def from_noise(run: Run, asked: Settings) -> Drawing:
    """Images from noise, as `sample.py` draws them.

    Raises:
        ValueError: where the settings do not fit the run, as with those below.
    """
    return _drawing(run, asked)


def from_picture(run: Run, asked: Settings, picture: np.ndarray, t: int) -> Drawing:
    """Variations of a picture, uint8 [C, H, W], noised to t: `start=PICTURE start_t=T`."""
    _check_steps(asked, t)
    return _drawing(run, asked, start=FromImage(_source(picture), t))


def inpainted(run: Run, asked: Settings, picture: np.ndarray, mask: np.ndarray) -> Drawing:
    """A picture, uint8 [C, H, W], drawn anew where the mask, bool [H, W], is true: `start=PICTURE
    mask=MASK`.
    """
    if not mask.any():
        raise RefusalError("no_mask")
    source, last = _source(picture), run.module.schedule.num_timesteps - 1
    known = Known(source, torch.from_numpy(mask)[None])
    return _drawing(run, asked, start=FromImage(source, last), known=known)


def between(
    run: Run, asked: Settings, first: np.ndarray, last: np.ndarray, t: int, *, same_noise: bool = False
) -> Drawing:
    """From one picture to another, each uint8 [C, H, W]: `start=PICTURE end=PICTURE start_t=T`."""
    _check_steps(asked, t)
    if asked.n < 2:
        raise RefusalError("too_few")
    start = Between(_source(first), _source(last), t, asked.n)
    return _drawing(run, asked, start=start, same_noise=same_noise)


def alone(asked: Settings, seed: int, name: str | None) -> Settings:
    """How one image of a seed and a class is drawn, which others then lead to."""
    return replace(asked, seed=seed, n=1, classes=() if name is None else (name,))


def drawn_alone(images: Tensor) -> np.ndarray:
    """The first of images in [-1, 1] as a file of it would be: uint8 [C, H, W]."""
    return to_uint8(images[0]).cpu().numpy()


def words(run: Run, asked: Settings, extra: Mapping[str, Any] | None = None) -> str:
    """What is typed after `sample.py ckpt=RUN_DIR` for the same images.

    Args:
        run: that draws.
        asked: how.
        extra: further keys, of where it starts from.
    """
    typed = [f"n={asked.n}", f"seed={asked.seed}", f"sampler={asked.sampler}"]
    typed.append(f"sampler.num_steps={asked.num_steps}")
    if asked.classes and run.module.num_classes is not None:
        numbers = ",".join(f"number:{label_of(run, name)}" for name in asked.classes)
        typed.append(f"labels=[{numbers}]")
    if _is_guided_otherwise(run, asked):
        if not isinstance(run.module.guidance, ClassifierFree):
            typed.append("guidance=classifier_free")
        typed.append(f"guidance.scale={asked.scale:g}")
    typed += [f"{key}={value}" for key, value in (extra or {}).items()]
    return shlex.join(typed)


def labels(run: Run, classes: Sequence[str], *, from_picture: bool) -> list[int] | None:
    """The classes that images take in turn, as numbers; None for every class, or where a run has none.

    Args:
        run: that draws.
        classes: names that were chosen.
        from_picture: whether there is a picture, which says what to draw where no class is chosen.
    """
    if run.module.num_classes is None:
        return None
    if classes:
        return [label_of(run, name) for name in classes]
    return [-1] if from_picture and run.label_drop else None


def _drawing(run: Run, asked: Settings, *, start: Start | None = None, **places: Any) -> Drawing:
    sampler, guidance = sampler_of(asked.sampler, asked.num_steps), _guidance(run, asked)
    run.check(sampler, guidance)
    return Drawing(
        run.module,
        seed=asked.seed,
        sampler=sampler,
        labels=labels(run, asked.classes, from_picture=start is not None),
        guidance=guidance,
        start=start,
        **places,
    )


def _is_guided_otherwise(run: Run, asked: Settings) -> bool:
    return asked.scale is not None and can_be_guided(run) and asked.scale != scale_of(run)


def _guidance(run: Run, asked: Settings) -> Guidance:
    """The run's own, or with another scale."""
    if not _is_guided_otherwise(run, asked):
        return run.module.guidance
    is_own = isinstance(run.module.guidance, ClassifierFree)
    settings = run.config["guidance"] if is_own else option("guidance", "classifier_free")
    made: Guidance = build("guidance", {**settings, "scale": asked.scale})
    return made


def _check_steps(asked: Settings, t: int) -> None:
    """There are t + 1 steps from t down to 0."""
    if asked.num_steps > t + 1:
        raise RefusalError("steps_from_t", value=asked.num_steps, t=t, most=t + 1)


def _source(picture: np.ndarray) -> Tensor:
    return normalize(torch.from_numpy(picture))
