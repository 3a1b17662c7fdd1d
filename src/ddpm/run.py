"""A trained run as an object: what sample.py, evaluate.py and notebooks work with."""

import base64
import difflib
import html
import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ddpm import targets
from ddpm.diffusion.condition import condition_in_words
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.samplers import Sampler, Trajectory, evenly_spread
from ddpm.diffusion.validity import check_combination
from ddpm.errors import UsageError
from ddpm.migration import migrated
from ddpm.options import option
from ddpm.runtime.device import default_device
from ddpm.sampling.batches import announced_sampling
from ddpm.sampling.classes import number_of
from ddpm.sampling.conditions import in_turn
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import grid, sheet
from ddpm.sampling.seen import seen
from ddpm.training import checkpoints
from ddpm.training.building import rebuild
from ddpm.training.guides import with_guide
from ddpm.training.module import DDPM
from ddpm.training.posthoc import with_average

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Run:
    """A trained model with what is known about it.

    Attributes:
        module: the LightningModule, in evaluation mode on its device.
        config: its configuration, plain containers.
        step: completed optimizer steps.
        checkpoint: the file.
    """

    module: DDPM
    config: dict[str, Any]
    step: int
    checkpoint: Path

    def sample(
        self,
        n: int = 16,
        *,
        labels: Sequence[int | str] | int | str | None = None,
        batch_size: int | None = None,
        sampler: Sampler | str | None = None,
        guidance: Guidance | str | None = None,
        **settings: Any,
    ) -> Tensor:
        """Draw images: float32 [n, C, H, W] in [-1, 1], on the CPU. Image i depends on (seed, i) alone.

        `run.sample(16, sampler="ddim", num_steps=50, seed=1)`.

        Args:
            n: images, at least 1.
            labels: a class by name or number, or several, which the images take in turn; by default every
                class. Where classes are called by numbers, "name:2" and "number:2" say which is meant.
            batch_size: images drawn at once; by default as many as fit into memory, up to 256.
            sampler: another than the run's own, as an object or by the name of its option in `conf/sampler`.
            guidance: likewise, of `conf/guidance`.
            settings: `seed`, `weights`, `condition`, `start`, `known` and `on_step`, as `DDPM.sample` takes
                them, the condition being that of each image, in turn; and settings of the sampler
                (`num_steps`, `eta` ...) and the guidance (`scale` ...), of the run's own or of the one that
                is named.

        Raises:
            ValueError: where a number is out of range, or a class, a start or a setting is none of this
                model's.
        """
        _check_count("n", n)
        if batch_size is not None:
            _check_count("batch_size", batch_size)
        parts = {"sampler": sampler, "guidance": guidance}
        chosen = {group: self._part(group, part, settings) for group, part in parts.items()}
        unknown = settings.keys() - {"seed", "weights", "condition", "start", "known", "on_step"}
        if unknown:
            known = [name for group in parts for name in self._settings_of(group, parts[group])]
            near = difflib.get_close_matches(min(unknown), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"{min(unknown)}: is no setting of this sampler or guidance; {hint}")
        on_step = settings.pop("on_step", None)
        drawing = Drawing(self.module, labels=self.numbered(labels), **chosen, **settings)
        drawn = announced_sampling(drawing, range(n), batch_size=batch_size, on_step=on_step)
        assert drawn is not None  # nobody asked it to stop
        return drawn

    def grid(self, n: int = 16, **settings: Any) -> Image.Image:
        """Draw images and lay them out, with the names of their classes. Arguments as of `sample`."""
        labels = self.numbered(settings.get("labels"))
        images = seen(self.module, self.sample(n, **settings))
        return Image.fromarray(sheet(self.module, images, labels, in_turn(settings.get("condition"))))

    def path(self, n: int = 4, *, columns: int = 8, **settings: Any) -> Image.Image:
        """How images come about: a row an image, x_t from noise on the left to the image on the right, and
        below it the x_0 that was predicted there.

        Args:
            n: images.
            columns: points of the way that are shown, the image among them; at least 2.
            settings: as of `sample`; the images are drawn at once.
        """
        _check_count("columns", columns, 2)
        settings.pop("batch_size", None)
        trajectory, images = self.trajectory(n, points=columns - 1, **settings)
        shown = list(trajectory.x_t)
        cells, captions = [], []
        for i in range(n):
            cells += [trajectory.x_t[t][i].cpu() for t in shown] + [images[i]]
            captions += [f"t = {t}" for t in shown] + ["x_0"]
            cells += [trajectory.x_0[t][i].cpu() for t in shown] + [images[i]]
            captions += ["predicted"] * len(shown) + [""]
        picture = grid(seen(self.module, torch.stack(cells)), captions=captions, columns=len(shown) + 1)
        return Image.fromarray(picture)

    def trajectory(self, n: int = 4, *, points: int = 7, **settings: Any) -> tuple[Trajectory, Tensor]:
        """Draw images at once and keep points of their way, the first step and the last among them.

        Args:
            n: images.
            points: steps that are kept, at least 1; fewer where the sampler visits fewer.
            settings: as of `sample`, but for `batch_size`.

        Returns:
            x_t and the x_0 that was predicted there, and the images, float32 [n, C, H, W] in [-1, 1].
        """
        _check_count("points", points)
        sampler = self._part("sampler", settings.pop("sampler", None), settings) or self.module.sampler
        start = settings.get("start")
        chain = sampler.chain(self.module.schedule, None if start is None else start.t)
        trajectory = Trajectory(evenly_spread(chain.timesteps.tolist()[::-1], points))
        seen = settings.pop("on_step", None)

        def on_step(t: int, x_t: Tensor, x_0: Tensor) -> None:
            trajectory(t, x_t, x_0)
            if seen is not None:
                seen(t, x_t, x_0)

        return trajectory, self.sample(n, batch_size=n, sampler=sampler, on_step=on_step, **settings)

    def numbered(self, labels: Sequence[int | str] | int | str | None) -> list[int] | None:
        """Classes by name or number as numbers: see `ddpm.sampling.classes`.

        Raises:
            ValueError: for a name that no class has, and a number that could mean two.
        """
        if labels is None:
            return None
        several = [labels] if isinstance(labels, int | str) else labels
        return [number_of(label, self.module.classes) for label in several]

    def check(self, sampler: Sampler, guidance: Guidance) -> None:
        """Refuse, with ValueError, a sampler or guidance that does not fit this run or the other of them."""
        module = self.module
        check_combination(
            schedule=module.schedule,
            objective=module.objective,
            variance=module.variance,
            weighting=module.weighting,
            timesteps=module.timesteps,
            sampler=sampler,
            guidance=guidance,
            num_classes=module.num_classes,
            label_drop=self.label_drop,
            condition_drop=module.condition_drop,
        )

    @property
    def label_drop(self) -> float:
        """How often training withheld the class, 0 to 1."""
        return float((self.config.get("data") or {}).get("label_drop", 0.0))

    def _node(self, group: str, part: Any) -> dict[str, Any]:
        """What the configuration says of the sampler or guidance that is named, or of the run's own."""
        return option(group, part) if isinstance(part, str) else dict(self.config.get(group) or {})

    def _settings_of(self, group: str, part: Any) -> tuple[str, ...]:
        if part is not None and not isinstance(part, str):
            return ()
        node = self._node(group, part)
        return targets.parameters(group, node["_target_"]).names if "_target_" in node else ()

    def _part(self, group: str, part: Any, settings: dict[str, Any]) -> Any:
        """A sampler or guidance with those of `settings` that are its own, which are taken out; None for the
        run's own as it is.
        """
        taken = [name for name in self._settings_of(group, part) if name in settings]
        if part is not None and not isinstance(part, str):
            return part
        if part is None and not taken:
            return None
        node = {**self._node(group, part), **{name: settings.pop(name) for name in taken}}
        made = targets.build(group, node)
        return with_guide(made, self.module) if group == "guidance" else made

    @property
    def directory(self) -> Path:
        """The run directory, or the folder of the checkpoint file."""
        return directory_of(self.checkpoint)

    def _facts(self) -> dict[str, str]:
        data = self.module.data or {}
        channels, height, width = self.module.image_shape
        classes = self.module.classes
        images = f", {data['num_train']:,} images" if "num_train" in data else ""
        kind = str(self.config.get("data", {}).get("source", self.config.get("data", {})).get("_target_", ""))
        return {
            "run": str(self.directory),
            "step": f"{self.step:,}",
            "data": f"{kind.rpartition('.')[2] or 'images'} of {height}x{width}x{channels}{images}",
            "classes": "none" if classes is None else f"{len(classes)}: {_some(classes)}",
            **({} if not self.module.is_conditioned else {"given": self._condition()}),
            "network": f"{type(self.module.network).__name__}, {self.module.num_parameters:,} parameters",
            "process": f"T = {self.module.schedule.num_timesteps}, {type(self.module.objective).__name__}, "
            f"{type(self.module.sampler).__name__}",
            "device": str(self.module.device),
        }

    def _condition(self) -> str:
        """What the network is conditioned on beside the class."""
        kind = ((self.module.data or {}).get("condition") or {}).get("kind", "a condition")
        return f"{kind}: {condition_in_words(*self.module.condition_sizes)}"

    def __repr__(self) -> str:
        return "\n".join(f"{name:<9}{text}" for name, text in self._facts().items())

    def _repr_html_(self) -> str:
        """A card for notebooks: what is known, and the last grid that training left."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self._facts().items()
        )
        grids = sorted((self.directory / "samples").glob("step_*.png"))
        picture = ""
        with suppress(IndexError, OSError), Image.open(grids[-1]) as image:  # none, or half written
            image.thumbnail((320, 320))
            shown = io.BytesIO()
            image.save(shown, "PNG")
            encoded = base64.b64encode(shown.getvalue()).decode()
            picture = f"<img alt='{grids[-1].name}' src='data:image/png;base64,{encoded}'>"
        return (
            f"<div style='display:flex;gap:1em;align-items:flex-start'><table>{rows}</table>{picture}</div>"
        )


def _some(classes: Sequence[str]) -> str:
    return ", ".join([*classes[:12], "..."] if len(classes) > 12 else classes)


def _check_count(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise UsageError(f"{name}={value}: must be a whole number of at least {least}")


def load(
    path: str | Path,
    device: str | torch.device | None = None,
    allow_targets: Sequence[str] = (),
    *,
    sigma_rel: float | None = None,
) -> Run:
    """Load a run from its directory or from a checkpoint file: `ddpm.load(RUN_DIR).sample(16, seed=0)`.

    The checkpoint's configuration may build objects of this project and its libraries only, and none of its
    own code runs.

    Args:
        path: run directory or checkpoint file.
        device: where the network goes; by default the first GPU, or the CPU.
        allow_targets: packages of your own that the run was built from.
        sigma_rel: length of the average of its weights, made of the snapshots of a training with `ema=power`,
            see `ddpm.training.posthoc`; None for the one that training used.

    Raises:
        UsageError: where there is no checkpoint that can be read, or no such average.
    """
    file, checkpoint = found(path)
    if sigma_rel is not None:
        checkpoint = with_average(checkpoint, directory_of(file), sigma_rel)
    try:
        module = rebuild(checkpoint, allow_targets)
    except (UsageError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"ckpt={file}: cannot be rebuilt: {error}") from error
    try:
        module.guidance = with_guide(module.guidance, module, allow_targets)
    except UsageError as error:  # of another guidance nothing is lost
        log.warning("the guide of this run cannot be used: %s", error)
    device = device or default_device()
    try:
        module.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device={device}: {str(error).splitlines()[0]}") from error
    return Run(module, checkpoint["config"], checkpoint["global_step"], file)


def directory_of(file: Path) -> Path:
    """The run directory that a checkpoint lies in, or its folder."""
    return file.parents[1] if file.parent.name == "checkpoints" else file.parent


def found(path: str | Path, key: str = "ckpt", *, whole: bool = True) -> tuple[Path, dict[str, Any]]:
    """A checkpoint file and what is in it, its configuration in today's names.

    Args:
        path: run directory or checkpoint file.
        key: where the user named it, for messages.
        whole: also of one in parts, whose tensors are left out otherwise.

    Raises:
        UsageError: where there is no checkpoint that can be read.
    """
    try:
        file, checkpoint = checkpoints.find(Path(path), key, whole=whole)
    except checkpoints.CheckpointError as error:
        raise UsageError(str(error)) from error
    if not isinstance(checkpoint["config"], Mapping):
        raise UsageError(
            f"{key}={file}: holds no configuration, as of a DDPM made by hand; DDPM.load_from_checkpoint "
            "takes its parts as arguments"
        )
    try:
        return file, {**checkpoint, "config": migrated(checkpoint["config"])}
    except UsageError as error:
        raise UsageError(f"{key}={file}: {error}") from error
