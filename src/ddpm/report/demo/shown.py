"""Images and messages as the page shows them: HTML with the pictures inside, every text escaped."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from ddpm.report.demo.language import say
from ddpm.report.demo.live import Drawn, Progress, View
from ddpm.runtime.progress import duration

CSS = Path(__file__).with_name("page.css")

SMALL = 96
"""Pixels a side to which smaller images are enlarged."""

LARGE = 256
"""Pixels a side that an image takes on the page at most."""

EXACT = 64
"""Pixels a side up to which what passes by is sent as it is; larger ones as JPEG."""


def images(pictures: np.ndarray, captions: Sequence[str], language: str, *, passing: bool = False) -> Markup:
    """Images beside each other.

    Args:
        pictures: uint8 [n, H, W, C].
        captions: n, what stands below each; "" for nothing.
        language: of the descriptions.
        passing: whether they are replaced at once, and need not be exact.
    """
    height, width = pictures.shape[1:3]
    factor = max(1, SMALL // max(height, width))
    shown = min(LARGE, factor * max(height, width)) / max(height, width)
    figures = []
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        key = "image_alt" if caption.strip() else "image_alt_alone"
        alt = say(key, language, {"i": i + 1, "n": len(pictures), "caption": caption})
        below = Markup("<figcaption>{}</figcaption>").format(caption) if caption else ""
        figures.append(
            Markup('<figure><img src="{}" alt="{}" width="{}" height="{}">{}</figure>').format(
                _source(picture, passing=passing), alt, round(width * shown), round(height * shown), below
            )
        )
    return Markup('<div class="images">{}</div>').format(Markup().join(figures))


def way(view: View, captions: Sequence[str], language: str, *, passing: bool = False) -> Markup:
    """A point of the way: what the sampler is at, and the x_0 that is predicted there."""
    noisy, clean = (images(of, captions, language, passing=passing) for of in (view.x_t, view.x_0))
    return Markup("<h4>{}</h4>{}<h4>{}</h4>{}").format(
        say("noisy", language, {"t": view.t}), noisy, say("predicted", language), clean
    )


def outcome(drawn: Drawn, point: int, captions: Sequence[str], language: str) -> Markup:
    """A point of what was drawn; beyond the last of its way the images themselves."""
    if point >= len(drawn.way):
        return images(drawn.images, captions, language)
    return way(drawn.way[point], captions, language)


def sources(given: Sequence[tuple[str, np.ndarray]], language: str) -> Markup:
    """Pictures that something started from, each uint8 [C, H, W], under their names."""
    if not given:
        return Markup()
    pictures = np.stack([picture.transpose(1, 2, 0) for _, picture in given])
    return images(pictures, [name for name, _ in given], language)


def heading(title: str, lines: Sequence[str]) -> Markup:
    """What the page is about, and a line for each run."""
    facts = Markup("<br>").join(lines)
    return Markup("<h1>{}</h1><p>{}</p>").format(title, facts)


def run(name: str, contents: Markup, *, is_alone: bool) -> Markup:
    """What a run shows, under its name where there are two."""
    heading = Markup() if is_alone else Markup("<h3>{}</h3>").format(name)
    return Markup('<section class="run" aria-label="{}">{}{}</section>').format(name, heading, contents)


def together(sections: Sequence[Markup]) -> str:
    """Runs beside each other."""
    return str(Markup('<div class="runs">{}</div>').format(Markup().join(sections)))


def status(text: str) -> str:
    """What goes on, which screen readers say when they have time."""
    return str(Markup('<p class="status" role="status">{}</p>').format(text))


def alert(text: str) -> str:
    """What went wrong, which screen readers say at once."""
    return str(Markup('<p class="alert" role="alert">{}</p>').format(text))


def progress(now: Progress, language: str) -> str:
    """How far a drawing is."""
    if now.is_waiting:
        return status(say("waiting", language))
    if now.seconds_left is None:
        return status(say("beginning", language))
    left = duration(now.seconds_left)
    text = say("step_of", language, {"done": now.done, "total": now.total, "left": left})
    bar = Markup('<progress value="{}" max="{}" aria-label="{}"></progress>').format(
        now.done, now.total, say("progress", language)
    )
    return str(Markup('{}<p class="status" role="status">{}</p>').format(bar, text))


def command(text: str, language: str) -> str:
    """The command that draws the same."""
    if not text:
        return ""
    return str(
        Markup('<p class="command">{}<br><code>{}</code></p>').format(say("same_by", language), escape(text))
    )


def _source(picture: np.ndarray, *, passing: bool) -> str:
    """A picture, uint8 [H, W, C], as an address that holds it."""
    image = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
    kind, file = "PNG", io.BytesIO()
    if passing and max(image.size) > EXACT:
        kind = "JPEG"
        image.thumbnail((LARGE, LARGE))
    image.save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
