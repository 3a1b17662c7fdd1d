"""The settings that every source of images has in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm.data.holdout import check_fraction
from ddpm.data.pixels.shaping import CROPS, RESIZES, Shaping, check_channels, parse_range, parse_size
from ddpm.data.skipped import check_on_error


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """How images are read and shaped, and which parts of a source are used: the keys of `conf/reading.yaml`.

    Args:
        image_size: pixels, or [height, width]; None leaves images as large as they are, which then all have
            one size.
        channels: 1 is grey, 3 is colour, another number is that of images which have as many; None is 1 if
            every image is grey, 3 if one is in colour, else as many as there are.
        resize: the filter: lanczos, bicubic, box or nearest.
        crop: center keeps the largest centred part of the wanted aspect; random shows another part of it each
            time; none keeps the whole image and changes its aspect.
        value_range: the numbers that are black and white, where neither file nor number type says so.
        split: the part to train on, by name; parts joined by + are taken together, `all` is all of them; None
            is train.
        validation_split: the part to validate on; `none` holds out some of those to train on instead; of
            several with | between, the first that is there; None is validation, else test, else `none`.
        on_error: what to do about something that is no image: `skip` names it in a warning and lists it in
            `skipped`, `fail` refuses it.
        cache_dir: where prepared images are kept; None is $DDPM_CACHE or ~/.cache/ddpm.
        cache_limit: GB (10^9 bytes) that everything in it may take; None is no limit.

    Raises:
        ValueError: for settings that cannot be.
    """

    image_size: int | Sequence[int] | None = None
    channels: int | None = None
    resize: str = "lanczos"
    crop: str = "center"
    value_range: Sequence[float] | None = None
    split: str | None = None
    validation_split: str | None = None
    on_error: str = "skip"
    cache_dir: str | Path | None = None
    cache_limit: float | None = 100.0

    def __post_init__(self) -> None:
        for key, allowed in (("resize", RESIZES), ("crop", CROPS)):
            if getattr(self, key) not in allowed:
                raise ValueError(f"data.{key}={getattr(self, key)} must be one of {', '.join(allowed)}")
        check_channels(self.channels)
        check_on_error(self.on_error)
        if self.cache_limit is not None and not self.cache_limit >= 0:
            raise ValueError(f"data.cache_limit={self.cache_limit} must be a number of GB, or null")
        if self.crop == "random" and self.image_size is None:
            raise ValueError("data.crop=random needs data.image_size, the size of the part that is shown")
        _ = self.shaping

    @property
    def shaping(self) -> Shaping:
        """What is asked of every image."""
        size = None if self.image_size is None else parse_size(self.image_size)
        return Shaping(size, self.channels, self.resize, self.crop, parse_range(self.value_range))


@dataclass(frozen=True, kw_only=True)
class ImageSettings(ReadingSettings):
    """The same for a source whose images are all prepared before training: the keys of `conf/preparing.yaml`.

    Args:
        validation_fraction: the share of the images to train on that is held out where no part is, in [0, 1).
        The others: see `ReadingSettings`.

    Raises:
        ValueError: for settings that cannot be.
    """

    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.validation_fraction)
