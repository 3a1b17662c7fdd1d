"""Drawing while somebody watches: what there is to see on the way, as it comes about.

A drawing goes on in a thread of its own, since torch's modes belong to a thread; whoever watches takes what
it shows from a generator, and closing that ends the drawing at its next step. Drawings take turns: the
averaged weights of a network are swapped in while it draws.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ddpm.diffusion.samplers import Trajectory, evenly_spread
from ddpm.runtime.sharing import size_of_a_piece
from ddpm.sampling.batches import images_at_once
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import to_uint8

EVERY = 0.25
"""Seconds between what is shown of a drawing."""

BEAT = 1.0
"""Seconds after which a watcher hears that a drawing goes on, though there is nothing new."""

MOST_POINTS = 40
"""Of the way that are kept."""

MOST_BYTES = 48 * 2**20
"""That the way of a drawing may take."""

WAITING = 128
"""Grey of an image whose turn has not come."""


@dataclass(frozen=True)
class View:
    """n images at a time of their way: uint8 [n, H, W, C].

    Attributes:
        t: the timestep.
        x_t: what the sampler is at.
        x_0: what is predicted there.
    """

    t: int
    x_t: np.ndarray
    x_0: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """Images, uint8 [n, H, W, C], and the points of their way, the noisiest first."""

    images: np.ndarray
    way: tuple[View, ...]


@dataclass(frozen=True)
class Progress:
    """How far a drawing is.

    Attributes:
        done: steps, of all batches of all runs.
        total: of them.
        seconds_left: None where nothing is known yet.
        is_waiting: whether another drawing has its turn.
        run: of which there is a view, by its place.
        view: the newest; None where there is none.
        finished: what earlier runs have drawn.
    """

    done: int
    total: int
    seconds_left: float | None = None
    is_waiting: bool = False
    run: int = 0
    view: View | None = None
    finished: tuple[Drawn, ...] = ()


Item = Progress | list[Drawn] | BaseException
"""What the thread of a drawing hands out."""

Task = Callable[[Callable[[Drawing], Tensor]], Drawing]
"""Prepares the drawing of a run, given what draws the first image of a drawing that it needs before."""


class Turns:
    """One drawing at a time on a device, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._next = 0
        self._waiting: list[int] = []

    def take(self, is_over: Callable[[], bool]) -> bool:
        """Wait for one's turn; False where it is over before."""
        with self._condition:
            mine, self._next = self._next, self._next + 1
            self._waiting.append(mine)
            while self._waiting[0] != mine:
                if is_over():
                    self._waiting.remove(mine)
                    return False
                self._condition.wait(0.2)
            return True

    def give(self) -> None:
        """Let the next one begin."""
        with self._condition:
            self._waiting.pop(0)
            self._condition.notify_all()


def watched(
    tasks: Sequence[Task], n: int, turns: Turns, *, every: float = EVERY
) -> Iterator[Progress | list[Drawn]]:
    """Draw n images with each run in turn, and show how it goes on; what was drawn comes last.

    Args:
        tasks: of the runs.
        n: images.
        turns: shared by all drawings of these runs.
        every: seconds between two views.

    Raises:
        ValueError: where a task cannot be done.
        RuntimeError: where the device has not enough memory.
    """
    work = _Work(tasks, n, turns, every)
    thread = threading.Thread(target=work.do, name="drawing", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = work.shown.get(timeout=BEAT)
            except queue.Empty:
                item = work.progress  # whoever hands this on to a watcher then misses one who has left
            if isinstance(item, BaseException):
                raise item
            yield item
            if isinstance(item, list):
                return
    finally:
        work.is_over.set()


class _Stopped(Exception):  # noqa: N818 - it is no error
    """Leaves a sampler in the middle."""


@dataclass
class _Work:
    """What the thread does."""

    tasks: Sequence[Task]
    n: int
    turns: Turns
    every: float
    shown: "queue.SimpleQueue[Item]" = field(default_factory=queue.SimpleQueue)
    is_over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.progress = Progress(0, 0, is_waiting=True)

    def do(self) -> None:
        """Wait for the turn, draw, and show what comes about; also an error, which the watcher raises."""
        if not self.turns.take(self.is_over.is_set):
            return
        try:
            self.shown.put(self._draw())
        except _Stopped:
            pass
        except BaseException as error:
            self.shown.put(error)
        finally:
            self.turns.give()

    def _draw(self) -> list[Drawn]:
        self.progress = Progress(0, 0)
        drawings = [task(self._alone) for task in self.tasks]
        sizes = [size_of_a_piece(self.n, images_at_once(drawing.model), 1) for drawing in drawings]
        total = sum(
            drawing.steps * math.ceil(self.n / size) for drawing, size in zip(drawings, sizes, strict=True)
        )
        self.progress = Progress(0, total)
        self._began, self._last = time.monotonic(), -math.inf
        drawn: list[Drawn] = []
        for run, (drawing, size) in enumerate(zip(drawings, sizes, strict=True)):
            drawn.append(self._one(run, drawing, size, tuple(drawn)))
        return drawn

    def _alone(self, drawing: Drawing) -> Tensor:
        return drawing([0], on_step=lambda *_: self._go_on())

    def _go_on(self) -> None:
        if self.is_over.is_set():
            raise _Stopped

    def _one(self, run: int, drawing: Drawing, size: int, finished: tuple[Drawn, ...]) -> Drawn:
        channels, height, width = drawing.model.image_shape
        shape = (self.n, height, width, channels)
        points = max(2, min(MOST_POINTS, MOST_BYTES // (2 * math.prod(shape) * len(self.tasks))))
        kept = evenly_spread(drawing.timesteps, points)
        images = np.full(shape, WAITING, np.uint8)
        x_t, x_0 = (np.full((len(kept), *shape), WAITING, np.uint8) for _ in range(2))
        now = images.copy(), images.copy()
        for first in range(0, self.n, size):
            batch = slice(first, min(first + size, self.n))
            trajectory = Trajectory(kept)

            def each_step(
                t: int,
                noisy: Tensor,
                clean: Tensor,
                batch: slice = batch,
                trajectory: Trajectory = trajectory,
            ) -> None:
                self._go_on()
                trajectory(t, noisy, clean)
                done = self.progress.done + 1
                time_now = time.monotonic()
                left = (time_now - self._began) / done * (self.progress.total - done)
                view = self.progress.view if self.progress.run == run else None
                due = time_now - self._last >= self.every
                if due:
                    self._last = time_now
                    now[0][batch], now[1][batch] = _bytes(noisy), _bytes(clean)
                    view = View(t, now[0].copy(), now[1].copy())
                self.progress = Progress(done, self.progress.total, left, False, run, view, finished)
                if due:
                    self.shown.put(self.progress)

            images[batch] = _bytes(drawing(range(batch.start, batch.stop), on_step=each_step))
            now[0][batch] = now[1][batch] = images[batch]
            for i, t in enumerate(kept):
                x_t[i, batch], x_0[i, batch] = _bytes(trajectory.x_t[t]), _bytes(trajectory.x_0[t])
        return Drawn(images, tuple(View(t, x_t[i], x_0[i]) for i, t in enumerate(kept)))


def _bytes(images: Tensor) -> np.ndarray:
    """uint8 [N, H, W, C] of float [N, C, H, W]."""
    return to_uint8(images).movedim(1, -1).cpu().numpy()
