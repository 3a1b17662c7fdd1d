"""Another image of each image, that a network sees beside x_t: of a folder, half a picture, or an array."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ddpm.data.pixels.shaping import MOST_CHANNELS, SIDES, Shaping, parse_range


@dataclass(frozen=True)
class Paired:
    """Pairs of images: what is learned, and what it is conditioned on. See docs/data.md, "Pairs and numbers".

    One of `path`, `side` and `key` says where the images of the other kind are.

    Args:
        path: a folder, zip or tar file, or its URL, for data=folder and data=archive: an image there belongs
            to the one of the same relative path, or else of the same name.
        side: `left` or `right`, for the same two: each picture holds both images side by side, and this is
            the half that conditions; the other is learned.
        key: of an array, for data=arrays and data=npz: it holds an image for each of the others.
        channels: 1 is grey, 3 is colour, another number is that of images that have as many; None is as they
            are, see `ddpm.data.settings.ReadingSettings`.
        value_range: the numbers that are black and white in them; None is `data.value_range`.

    Raises:
        ValueError: for settings that cannot be.
    """

    path: str | Path | None = None
    side: str | None = None
    key: str | None = None
    channels: int | None = None
    value_range: Sequence[float] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("path", "side", "key") if getattr(self, name) is not None]
        if len(given) != 1:
            which = f"{' and '.join(given)} are given" if given else "none of them is given"
            raise ValueError(
                "data.condition: pairs need one of data.condition.path=FOLDER (images of the other kind), "
                "data.condition.side=left or right (both halves in one picture) and data.condition.key=ARRAY "
                f"(of data=arrays); {which}"
            )
        if self.side is not None and self.side not in SIDES:
            raise ValueError(
                f"data.condition.side={self.side} must be left or right, the half that conditions"
            )
        if self.channels is not None and (
            type(self.channels) is not int or not 1 <= self.channels <= MOST_CHANNELS
        ):
            raise ValueError(
                f"data.condition.channels={self.channels} must be 1 (grey), 3 (colour), another number up to "
                f"{MOST_CHANNELS}, or null (as they are)"
            )

        try:
            parse_range(self.value_range)
        except ValueError as error:
            raise ValueError(str(error).replace("data.", "data.condition.", 1)) from error

    def shaping(self, like: Shaping) -> Shaping:
        """What is asked of these images, where others are shaped so."""
        value_range = parse_range(self.value_range) or like.value_range
        return replace(like, channels=self.channels, side=self.side, value_range=value_range)

    @property
    def typed(self) -> str:
        """The key that says where the images are, for messages."""
        name = "path" if self.path is not None else "side" if self.side is not None else "key"
        return f"data.condition.{name}={getattr(self, name)}"
