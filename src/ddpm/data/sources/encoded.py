"""What folders and archives of encoded images share: their settings."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from ddpm.data.decoding import check_channels, parse_size
from ddpm.data.holdout import check_fraction
from ddpm.data.images import DataSet
from ddpm.data.skipped import check_on_error


@dataclass(frozen=True)
class EncodedImages(ABC):
    """Images as people keep them, decoded and resized once, and kept in the cache until a file, or a setting
    that they depend on, changes.

    Args:
        path: where they are; `~` is the home directory.
        image_size: pixels, or [height, width]; the shorter side is resized to fit, and the middle is kept.
        channels: 1 or 3; None is 1 if every image is grey, else 3.
        validation_fraction: share of the images that is held out, in [0, 1).
        on_error: what to do about a file that is no image: `skip` names it in a warning and lists it in
            `skipped`, `fail` refuses it.
        cache_dir: where prepared images are kept; None is $DDPM_CACHE or ~/.cache/ddpm.

    Raises:
        ValueError: for settings that cannot be.
    """

    path: str | Path
    image_size: int | Sequence[int]
    _: KW_ONLY
    channels: int | None = None
    validation_fraction: float = 0.1
    on_error: str = "skip"
    cache_dir: str | Path | None = None

    def __post_init__(self) -> None:
        parse_size(self.image_size)
        check_channels(self.channels)
        check_fraction(self.validation_fraction)
        check_on_error(self.on_error)

    @abstractmethod
    def read(self) -> DataSet:
        """See `ddpm.data.sources.Source`."""
