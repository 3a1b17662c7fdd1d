"""What the page does when a button is pressed, apart from gradio: runs and what was typed in, HTML out."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from ddpm.report.demo import asked, brush, shown
from ddpm.report.demo.asked import Settings
from ddpm.report.demo.choices import Choices, choices
from ddpm.report.demo.language import RefusalError, say, sentence
from ddpm.report.demo.live import Drawn, Task, Turns, watched
from ddpm.run import Run
from ddpm.runtime.computing import choose
from ddpm.runtime.progress import duration
from ddpm.sampling.drawing import Drawing, labels_of

log = logging.getLogger(__name__)

NOTHING = "\xa0"
"""A caption that takes its line."""

Image = np.ndarray
Alone = Callable[[Drawing], Tensor]


@dataclass(frozen=True)
class Opened:
    """A run on the page.

    Attributes:
        name: that it goes by there.
        run: that draws.
        command: what draws from it on the command line, up to further keys.
    """

    name: str
    run: Run
    command: str


@dataclass(frozen=True)
class Outcome:
    """What was drawn, for whoever looks along its way.

    Attributes:
        drawn: of each run.
        captions: what stands below the images of each.
        sources: pictures that each started from, under the keys of their names.
    """

    drawn: tuple[Drawn, ...]
    captions: tuple[tuple[str, ...], ...]
    sources: tuple[tuple[tuple[str, Image], ...], ...]

    @property
    def points(self) -> int:
        """Of the way; the images themselves come after them."""
        return max(len(one.way) for one in self.drawn)


@dataclass(frozen=True)
class Shown:
    """What changes on the page; None leaves a part as it is.

    Attributes:
        status: how it is going, HTML.
        results: images, HTML.
        outcome: what was drawn, at the end.
        command: that draws the same, HTML, at the end.
        is_over: whether something else can be asked for.
    """

    status: str
    results: str | None = None
    outcome: Outcome | None = None
    command: str | None = None
    is_over: bool = False


@dataclass
class Asked:
    """What a button asks for.

    Attributes:
        settings: how it is drawn.
        task: makes the drawing of a run, given what draws a single image before.
        extra: keys of the command line, of where it starts from.
        sources: by the place of a run, the pictures that it starts from; filled by the task.
    """

    settings: Settings
    task: Callable[["Asked", int, Run, Alone], Drawing]
    extra: dict[str, Any] = field(default_factory=dict)
    sources: dict[int, list[tuple[str, Image]]] = field(default_factory=dict)


class Page:
    """Runs, side by side where there are two, and everything that can be done with them.

    Args:
        opened: one run or two; they then compute as `sample.py` does.

    Raises:
        UsageError: where they cannot be shown side by side.
    """

    def __init__(self, opened: Sequence[Opened]):
        self.opened = tuple(opened)
        self.choices: Choices = choices([one.run for one in opened])
        self.turns = Turns()
        for one in opened:
            module = one.run.module
            module.compute_as(choose(module.device, module.num_parameters, 1, compile=False))

    def settings(self, *typed: Any) -> Settings:
        """What was typed: sampler, steps, seed, images, classes, guidance.

        Raises:
            RefusalError: for what makes no sense.
        """
        if typed[0] not in self.choices.samplers:
            raise RefusalError("bad_sampler", names=", ".join(self.choices.samplers))
        return asked.settings(*typed, most=self.choices.num_timesteps)

    def draw(self, language: str, *typed: Any) -> Iterator[Shown]:
        """Images from noise."""

        def task(_: Asked, __: int, run: Run, ___: Alone) -> Drawing:
            return asked.from_noise(run, settings)

        try:
            settings = self.settings(*typed)
        except ValueError as error:
            yield _told(error, language)
            return
        yield from self._watched(Asked(settings, task), language)

    def vary(self, language: str, contents: bytes | None, t: Any, *typed: Any) -> Iterator[Shown]:
        """Variations of a picture, noised to t."""

        def task(what: Asked, place: int, run: Run, _: Alone) -> Drawing:
            picture = asked.prepared(run, contents)
            what.sources[place] = [("as_prepared", picture)]
            return asked.from_picture(run, settings, picture, step)

        try:
            settings = self.settings(*typed)
            step = self._t(t)
            if contents is None:
                raise RefusalError("no_picture")
        except ValueError as error:
            yield _told(error, language)
            return
        yield from self._watched(Asked(settings, task, {"start": "PICTURE", "start_t": step}), language)

    def inpaint(
        self, language: str, contents: bytes | None, edited: Any, region: str, *typed: Any
    ) -> Iterator[Shown]:
        """A picture, drawn anew where it is painted over, or in a region."""

        def task(what: Asked, place: int, run: Run, _: Alone) -> Drawing:
            picture = asked.prepared(run, contents)
            what.sources[place] = [("region", brush.marked(picture, mask))]
            return asked.inpainted(run, settings, picture, mask)

        try:
            settings = self.settings(*typed)
            if contents is None:
                raise RefusalError("no_picture")
            mask = brush.mask(region, edited, self.choices.image_shape[1:])
            if not mask.any():
                raise RefusalError("no_mask")
        except ValueError as error:
            yield _told(error, language)
            return
        yield from self._watched(Asked(settings, task, {"start": "PICTURE", "mask": "MASK"}), language)

    def between(
        self,
        language: str,
        pictures: Sequence[bytes | None],
        seeds: Sequence[Any],
        classes: Sequence[str | None],
        t: Any,
        same_noise: bool,
        *typed: Any,
    ) -> Iterator[Shown]:
        """From one image to another, each a picture or, without one, the image of a seed and a class."""

        def end(run: Run, i: int, draw_alone: Alone) -> Image:
            if pictures[i] is not None:
                return asked.prepared(run, pictures[i])
            drawing = asked.from_noise(run, asked.alone(settings, numbers[i], classes[i]))
            return asked.drawn_alone(draw_alone(drawing))

        def task(what: Asked, place: int, run: Run, draw_alone: Alone) -> Drawing:
            first, last = (end(run, i, draw_alone) for i in range(2))
            what.sources[place] = [("from_this", first), ("to_this", last)]
            return asked.between(run, settings, first, last, step, same_noise=bool(same_noise))

        try:
            settings = self.settings(*typed)
            step = self._t(t)
            numbers = [asked.whole(seed, 0, asked.MOST_SEED, "bad_seed") for seed in seeds]
            if self.choices.classes and self.choices.scale is None and not settings.classes:
                # a run that was never trained without a class cannot leave it to the pictures
                settings = replace(settings, classes=(str(classes[0]),))
        except ValueError as error:
            yield _told(error, language)
            return
        extra = {"start": "PICTURE", "end": "PICTURE", "start_t": step}
        if same_noise:
            extra["same_noise"] = "true"
        yield from self._watched(Asked(settings, task, extra), language)

    def point(self, outcome: Outcome | None, point: int, language: str) -> str:
        """A point of the way of what was drawn; beyond the last the images."""
        if outcome is None:
            return nothing_yet(language)
        return self._results(
            [
                shown.outcome(drawn, point, captions, language)
                for drawn, captions in zip(outcome.drawn, outcome.captions, strict=True)
            ],
            outcome.sources,
            language,
        )

    def prepared(self, contents: bytes | None, language: str) -> tuple[str, Image | None]:
        """A picture as the first run sees it, as HTML and uint8 [C, H, W]; or why it cannot be read."""
        if contents is None:
            return "", None
        try:
            picture = asked.prepared(self.opened[0].run, contents)
        except ValueError as error:
            return shown.alert(sentence(error, language)), None
        return str(shown.sources([(say("as_prepared", language), picture)], language)), picture

    def steps_of(self, sampler: str) -> int:
        """With which a sampler begins."""
        return self.choices.samplers[sampler]

    def _t(self, t: Any) -> int:
        return asked.whole(t, 0, self.choices.num_timesteps - 1, "bad_t")

    def _watched(self, what: Asked, language: str) -> Iterator[Shown]:
        """Draw it with each run, and show how it goes on."""
        tasks: list[Task] = [
            partial(what.task, what, place, one.run) for place, one in enumerate(self.opened)
        ]
        began, view = time.monotonic(), None
        try:
            captions = [self._captions(one.run, what) for one in self.opened]
            if any(map(any, captions)):  # images of another run stay beside theirs
                captions = [tuple(caption or NOTHING for caption in one) for one in captions]
            for item in watched(tasks, what.settings.n, self.turns):
                if isinstance(item, list):
                    sources = tuple(tuple(what.sources.get(i, ())) for i in range(len(self.opened)))
                    outcome = Outcome(tuple(item), tuple(captions), sources)
                    values = {
                        "n": what.settings.n * len(item),
                        "seconds": duration(max(1, time.monotonic() - began)),
                    }
                    yield Shown(
                        shown.status(say("done", language, values)),
                        self.point(outcome, outcome.points, language),
                        outcome,
                        shown.command(self._command(what), language),
                        is_over=True,
                    )
                    return
                results = None
                if item.view is not None and item.view is not view:
                    view = item.view
                    sections = [
                        shown.images(drawn.images, captions[i], language, passing=True)
                        for i, drawn in enumerate(item.finished)
                    ]
                    sections.append(shown.way(view, captions[item.run], language, passing=True))
                    results = self._results(sections, (), language)
                yield Shown(shown.progress(item, language), results)
        except Exception as error:  # the page stays usable, whatever it was
            yield _told(error, language)

    def _captions(self, run: Run, what: Asked) -> tuple[str, ...]:
        n, classes = what.settings.n, run.module.classes
        labels = asked.labels(run, what.settings.classes, from_picture=bool(what.extra))
        numbers = labels_of(run.module, range(n), labels)
        if numbers is None or classes is None:
            return ("",) * n
        return tuple("" if number < 0 else classes[number] for number in numbers)

    def _command(self, what: Asked) -> str:
        lines = [f"{one.command} {asked.words(one.run, what.settings, what.extra)}" for one in self.opened]
        return "\n".join(lines)

    def _results(
        self, sections: Sequence[Markup], sources: Sequence[Sequence[tuple[str, Image]]], language: str
    ) -> str:
        """Runs beside each other; of those whose turn has not come nothing."""
        is_alone = len(self.opened) == 1
        made = []
        for i, section in enumerate(sections):
            given = [(say(key, language), picture) for key, picture in (sources[i] if sources else ())]
            before = shown.sources(given, language)
            made.append(shown.run(self.opened[i].name, before + section, is_alone=is_alone))
        return shown.together(made)


def nothing_yet(language: str) -> str:
    """What stands where nothing was drawn."""
    return str(Markup('<p class="empty">{}</p>').format(say("nothing_yet", language)))


def _told(error: Exception, language: str) -> Shown:
    """What went wrong, in a sentence."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error):
        error = RefusalError("no_memory")
    elif not isinstance(error, ValueError):
        log.error("a drawing has failed", exc_info=error)
        error = RefusalError("failed")
    return Shown(shown.alert(sentence(error, language)), is_over=True)
