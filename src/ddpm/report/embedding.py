"""Pictures as they stand in a page: decoded with care, encoded anew, and small enough together.

A picture may be a stranger's: its size is known before it is decoded, and nothing but its pixels reaches the
page.
"""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from PIL import Image

from ddpm import bounded
from ddpm.errors import UsageError

MOST_BYTES = 1 << 27
"""Of a file."""

MOST_PIXELS = 1 << 27
"""Of a picture: a grid of 64 images of 1,024 by 1,024 has half as many."""

LONGEST = 1 << 16
"""Pixels of its sides: a file of a few bytes may have lines without end, each of which takes memory."""

LARGE = 1 << 24
"""Pixels of a picture, from which on one at a time is decoded: it takes 50 MB and more. A frame of an
animation, of which several copies are held, may have as many at most.
"""

ALONE = Lock()

MB = 1_000_000
WIDEST, HIGHEST = 1600, 4096
"""Pixels; larger pictures are reduced to these."""

LOSSY = ((90, 1.0), (75, 1.0), (60, 0.75), (50, 0.5), (40, 0.33), (30, 0.2))
"""Quality of WebP, and scale, from the best to the smallest, where a picture has no room as it is."""

WIDEST_FRAME, HIGHEST_FRAME = 640, 1280
"""Pixels, of an animation."""

MOST_FRAMES = 100
"""Of an animation; of more, some from all over it."""

MOST_DECODED = 1 << 28
"""Pixels of all frames that are looked at; the rest of an animation is cut off."""

SMALLEST_FRAME = 1 << 14
"""Pixels that a frame counts at least: decoding it takes time, whatever its size."""

LONGEST_SHOWN = 60_000
"""Milliseconds, of a frame."""

MOVING = ((70, 1.0), (50, 0.7), (30, 0.4))
"""As `LOSSY`, of an animation."""


@dataclass(frozen=True)
class Embedded:
    """A picture in a page.

    Attributes:
        width, height: in pixels, of what is embedded.
        webp: base64 of the file.
        is_exact: whether every pixel is as it was.
    """

    width: int
    height: int
    webp: str
    is_exact: bool

    @property
    def uri(self) -> str:
        return f"data:image/webp;base64,{self.webp}"


def budget(runs: int) -> int:
    """Bytes that all pictures of a page may take, as text: less than 10 MB for 8 runs, 33 MB at most."""
    return int(min(6 + 0.45 * runs, 33) * MB)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The picture in a PNG file, within the block; large ones one after the other.

    Raises:
        UsageError: where it cannot be read, or is larger than a page shows.
    """
    contents = bounded.contents(path, MOST_BYTES)
    file = _opened(path, contents, "PNG")
    is_large = file.width * file.height > LARGE
    with ALONE if is_large else nullcontext():
        try:
            picture = file.convert("RGBA" if file.has_transparency_data else "RGB")
        except Exception as error:  # whatever Pillow makes of a damaged file
            raise _unreadable(path, "PNG", error) from error
        yield picture


def frames(path: Path) -> tuple[list[Image.Image], list[int]]:
    """The frames of a GIF file, no larger than a page shows them, and the milliseconds that each is shown.

    Raises:
        UsageError: as `opened`.
    """
    contents = bounded.contents(path, MOST_BYTES)
    kept: list[tuple[Image.Image, int]] = []
    every, left, number = 1, MOST_DECODED, 0
    try:
        with _opened(path, contents, "GIF", LARGE) as file:
            while left > 0:
                try:
                    file.seek(number)
                except EOFError:
                    break
                milliseconds = int(file.info.get("duration", 100))
                if number % every == 0:
                    frame = file.convert("RGB")
                    scale = min(1.0, WIDEST_FRAME / frame.width, HIGHEST_FRAME / frame.height)
                    kept.append((_resized(frame, scale, Image.Resampling.BOX), milliseconds))
                else:  # what is left out is shown as the one before
                    kept[-1] = (kept[-1][0], kept[-1][1] + milliseconds)
                if len(kept) > MOST_FRAMES:
                    every *= 2
                    pairs = zip(kept[::2], [*kept[1::2], (None, 0)], strict=False)
                    kept = [(one, own + other) for (one, own), (_, other) in pairs]
                left -= max(file.width * file.height, SMALLEST_FRAME)
                number += 1
    except UsageError:
        raise
    except Exception as error:  # as above
        raise _unreadable(path, "GIF", error) from error
    return [frame for frame, _ in kept], [min(milliseconds, LONGEST_SHOWN) for _, milliseconds in kept]


def still(
    picture: Image.Image, most_bytes: int, resampling: Image.Resampling = Image.Resampling.BOX
) -> Embedded:
    """A picture of at most so many bytes of text, exact where that has room for it."""
    whole = _shown_scale(picture)
    scale, is_exact = whole, whole == 1.0
    webp = _encoded(picture, scale, None if is_exact else LOSSY[0][0], resampling)
    for quality, smaller in LOSSY:
        if len(webp) * 4 / 3 <= most_bytes:
            break
        is_exact, scale = False, whole * smaller
        webp = _encoded(picture, scale, quality, resampling)
    return Embedded(*_size(picture, scale), base64.b64encode(webp).decode(), is_exact)


def moving(shown: Sequence[Image.Image], milliseconds: Sequence[int], most_bytes: int) -> Embedded | None:
    """An animation, which repeats, of at most so many bytes of text; None where there is no room for it."""
    for quality, scale in MOVING:
        first, *others = [_resized(frame, scale, Image.Resampling.BOX) for frame in shown]
        file = io.BytesIO()
        first.save(
            file, "WEBP", save_all=True, append_images=others, duration=list(milliseconds), loop=0,
            quality=quality, method=1,
        )  # fmt: skip
        webp = file.getvalue()
        if len(webp) * 4 / 3 <= most_bytes:
            return Embedded(first.width, first.height, base64.b64encode(webp).decode(), is_exact=False)
    return None


def _opened(path: Path, contents: bytes, kind: str, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """A file whose pixels are not decoded yet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(io.BytesIO(contents), formats=[kind])
    except Image.DecompressionBombError:
        raise UsageError(f"{path.name}: has more pixels than a page shows") from None
    except Exception as error:  # as above
        raise _unreadable(path, kind, error) from error
    if file.width * file.height > most_pixels or max(file.size) > LONGEST:
        raise UsageError(f"{path.name}: has {file.width} x {file.height} pixels, more than a page shows")
    return file


def _unreadable(path: Path, kind: str, error: Exception) -> UsageError:
    return UsageError(f"{path.name}: cannot be read, it is no {kind} ({type(error).__name__})")


def _shown_scale(picture: Image.Image) -> float:
    return min(1.0, WIDEST / picture.width, HIGHEST / picture.height)


def _encoded(picture: Image.Image, scale: float, quality: int | None, resampling: Image.Resampling) -> bytes:
    """A file of WebP; exact where no quality is given."""
    file = io.BytesIO()
    picture = _resized(picture, scale, resampling)
    if quality is None:
        picture.save(file, "WEBP", lossless=True, quality=20, method=2)
    else:
        picture.save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()


def _resized(picture: Image.Image, scale: float, resampling: Image.Resampling) -> Image.Image:
    size = _size(picture, scale)
    return picture if size == picture.size else picture.resize(size, resampling)


def _size(picture: Image.Image, scale: float) -> tuple[int, int]:
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
