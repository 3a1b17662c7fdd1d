"""What a page about a run, or two of them, lets a person choose."""

from collections.abc import Sequence
from dataclasses import dataclass

from ddpm.diffusion.guidance import ClassifierFree, NoGuidance
from ddpm.diffusion.samplers import Sampler
from ddpm.errors import UsageError
from ddpm.options import option, options
from ddpm.run import Run
from ddpm.sampling.classes import BY_NAME, number_of
from ddpm.targets import build

FAST = "ddim"
"""The sampler that a page begins with: few steps, and no noise on its way."""

MOST_IMAGES = 64
"""That are drawn at a time."""


@dataclass(frozen=True)
class Choices:
    """What there is to choose.

    Attributes:
        samplers: options of `conf/sampler` that every run can use, with the steps that each begins with.
        num_timesteps: the shortest T of the runs.
        classes: the names of the classes that every run with classes knows; none where there are none.
        scale: of the guidance that a page begins with; None where no run can be guided.
        image_shape: (channels, height, width) of what they draw.
    """

    samplers: dict[str, int]
    num_timesteps: int
    classes: tuple[str, ...]
    scale: float | None
    image_shape: tuple[int, int, int]

    @property
    def sampler(self) -> str:
        """That a page begins with."""
        return FAST if FAST in self.samplers else next(iter(self.samplers))

    @property
    def num_images(self) -> int:
        """That a page begins with: of few classes one each."""
        return len(self.classes) if 1 < len(self.classes) <= 10 else 8


def choices(runs: Sequence[Run]) -> Choices:
    """What runs can be asked for side by side.

    Raises:
        UsageError: where they draw images of different shapes, or no sampler suits them all.
    """
    shapes = [run.module.image_shape for run in runs]
    if len(set(shapes)) > 1:
        what = " and ".join(str(list(shape)) for shape in shapes)
        raise UsageError(
            f"the runs draw images of {what} (channels, height, width), which share no noise; open each alone"
        )
    T = min(run.module.schedule.num_timesteps for run in runs)  # noqa: N806 - the paper's name
    samplers = {}
    for name in options("sampler"):
        steps = min(_steps_of(name) or T, T)
        if all(_can_use(run, name, steps) for run in runs):
            samplers[name] = steps
    if not samplers:
        raise UsageError("no sampler of conf/sampler suits what is to be drawn here")
    known = [run.module.classes for run in runs if run.module.num_classes is not None]
    first, *others = [names or [] for names in known] or [[]]
    names = tuple(name for name in first if all(name in other for other in others))
    guided = [run for run in runs if can_be_guided(run)]
    return Choices(samplers, T, names, scale_of(guided[0]) if guided else None, shapes[0])


def sampler_of(name: str, num_steps: int) -> Sampler:
    """An option of `conf/sampler` in so many steps.

    Raises:
        ValueError: where there is none of this name, or the steps make no sense.
    """
    made: Sampler = build("sampler", {**option("sampler", name), "num_steps": num_steps})
    return made


def can_be_guided(run: Run) -> bool:
    """Whether a run knows classes, and what it draws without one."""
    return run.module.num_classes is not None and run.label_drop > 0


def scale_of(run: Run) -> float:
    """Of a run's own guidance; 1 is none."""
    own = run.module.guidance
    return float(own.scale) if isinstance(own, ClassifierFree) else 1.0


def label_of(run: Run, name: str) -> int:
    """The number that a class has in a run."""
    return number_of(BY_NAME + name, run.module.classes)


def _steps_of(name: str) -> int | None:
    """That an option says; None for every one."""
    said = option("sampler", name).get("num_steps")
    return said if isinstance(said, int) else None


def _can_use(run: Run, name: str, num_steps: int) -> bool:
    try:
        run.check(sampler_of(name, num_steps), NoGuidance())
    except ValueError:
        return False
    return True
