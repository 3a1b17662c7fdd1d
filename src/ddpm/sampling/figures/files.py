"""Figures and films as pixels and files, which are whole or not there."""

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ddpm.errors import UsageError
from ddpm.runtime.writing import whole, write_whole
from ddpm.sampling.figures.film import Film

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STILL = (".png", ".svg", ".pdf")
MOVING = (".gif", ".mp4")

MILLISECONDS = 60
"""That a frame is shown."""

FIRST, LAST = 600, 2000
"""That the first and the last are shown."""

LEVELS = 64
"""Greys of a GIF: more cannot be seen in noise, and cost half as much again."""

OnFrame = Callable[[int], None]
"""Called with how many frames are done."""


def write_figure(figure: "Figure", path: Path, dpi: float) -> None:
    """Write a figure in the format that its name says.

    Raises:
        WriteError: where it cannot be written.
    """
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata=undated.get(path.suffix.lower()))


def write_film(film: Film, path: Path, on_frame: OnFrame = lambda _: None) -> None:
    """Write a film as GIF, which repeats, or as MP4. Both stay on the last frame for a while.

    Raises:
        UsageError: for an MP4 where nothing encodes it.
        WriteError: where it cannot be written.
    """
    if path.suffix.lower() == ".gif":
        write_whole(path, gif(film, on_frame))
        return
    encode = encoder()
    with whole(path) as temporary:
        encode(_lasting(film, on_frame), temporary, round(1000 / MILLISECONDS))


def raster(figure: "Figure", dpi: float) -> np.ndarray:
    """A figure as pixels, uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def gif(film: Film, on_frame: OnFrame = lambda _: None) -> bytes:
    """The file of a film, which repeats and stays on its last frame for a while."""
    frames = []
    for done, frame in enumerate(film.frames(), start=1):
        frames.append(_reduced(frame))
        on_frame(done)
    if any(frame.mode == "RGB" for frame in frames):  # one palette for all, or colours would flicker
        some = frames[:: max(1, len(frames) // 8)] + frames[-1:]
        together = Image.fromarray(np.concatenate([np.asarray(frame.convert("RGB")) for frame in some]))
        palette = together.quantize(256, Image.Quantize.MEDIANCUT)
        frames = [
            frame.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
        ]
    shown = [FIRST, *[MILLISECONDS] * (len(frames) - 2), LAST][-len(frames) :]
    file = io.BytesIO()
    # of one frame Pillow takes no list
    duration = shown if len(shown) > 1 else shown[0]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return file.getvalue()


def _reduced(frame: np.ndarray) -> Image.Image:
    """A frame uint8 [H, W, 3], of few greys where it has no colours."""
    if (frame == frame[..., :1]).all():
        step = 255 / (LEVELS - 1)
        return Image.fromarray((np.round(frame[..., 0] / step) * step).round().astype(np.uint8))
    return Image.fromarray(frame)


def _lasting(film: Film, on_frame: OnFrame) -> Iterator[np.ndarray]:
    """Frames, the first and the last as often as they are to be seen."""
    for done, frame in enumerate(film.frames(), start=1):
        shown = FIRST if done == 1 else LAST if done == len(film) else MILLISECONDS
        for _ in range(round(shown / MILLISECONDS)):
            yield frame
        on_frame(done)


Encode = Callable[[Iterator[np.ndarray], Path, int], None]


def encoder() -> Encode:
    """What writes MP4 here: the program ffmpeg, or the package av.

    Raises:
        UsageError: where there is neither.
    """
    if shutil.which("ffmpeg"):
        return _by_ffmpeg
    if find_spec("av"):
        return _by_av
    raise UsageError(
        "--out: an .mp4 needs ffmpeg or the package av, and neither is here; pip install av, or write a .gif"
    )


def _by_ffmpeg(frames: Iterator[np.ndarray], path: Path, per_second: int) -> None:
    first = next(frames)
    height, width = first.shape[:2]
    command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", str(per_second), "-i", "-"]
    command += ["-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            process.stdin.write(first.tobytes())
            for frame in frames:
                process.stdin.write(frame.tobytes())
            process.stdin.close()
        except BrokenPipeError:  # it says below why it ended
            pass
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise UsageError(f"{path}: ffmpeg has failed: {said.splitlines()[-1] if said else 'it says nothing'}")


def _by_av(frames: Iterator[np.ndarray], path: Path, per_second: int) -> None:
    av: Any = import_module("av")
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = None
        for frame in frames:
            if stream is None:
                codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
                stream = container.add_stream(codec, rate=per_second)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        if stream is not None:
            container.mux(stream.encode())
