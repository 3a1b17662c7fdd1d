"""Going on from a checkpoint: the same run (`ckpt=`), or a new one from its weights (`init=`)."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ddpm.app import check
from ddpm.app.build import describe
from ddpm.app.groups import PROVIDED
from ddpm.data.module import ImageDataModule
from ddpm.diffusion.validity import check_weights
from ddpm.errors import UsageError
from ddpm.run import found
from ddpm.targets import build, resolve
from ddpm.training.checkpoints import averaged_weights, numbered
from ddpm.training.loggers import MetricsCSV
from ddpm.training.module import DDPM

NAMED = 12
"""Classes that a message names."""

CONTINUED = (
    "seed", "data", "schedule", "objective", "variance", "weighting", "timesteps", "model", "conditional",
    "optimizer", "ema", "trainer.accumulate_grad_batches", "trainer.limit_train_batches",
    "trainer.overfit_batches",
)  # fmt: skip
"""What must be as in the checkpoint for a run to continue; where it differs it would be another run."""

UNCOMPARED = ("_partial_", "_recursive_", "_convert_")
"""Keys of a node that say how it is built, not what."""

FREE = (
    "data.path", "data.cache_dir", "data.cache_limit", "data.split", "data.validation_split",
    "data.device_share", "data.num_workers", "data.source.path",
    "model.compile", "model.channels_last", "optimizer.fused", "optimizer.foreach",
)  # fmt: skip
"""Keys of them that may differ all the same: the images are compared by their contents."""


class OtherOrderError(UsageError):
    """The classes are those of the checkpoint, in another order.

    Attributes:
        classes: of the checkpoint.
    """

    def __init__(self, message: str, classes: Sequence[str]):
        super().__init__(message)
        self.classes = classes


@dataclass(frozen=True)
class Resume:
    """The checkpoint that a run goes on from.

    Attributes:
        path: of the file.
        step: completed optimizer steps.
        wandb_id: of the W&B run that goes on, or None.
        lr_schedule: configuration of the learning-rate schedule from here on. One that is new begins at its
            step 0 here: where it is to last as long as the run, only the steps that are left are its.
    """

    path: Path
    step: int
    wandb_id: str | None
    lr_schedule: Mapping[str, Any]

    @property
    def run(self) -> Path | None:
        """The run directory that the file lies in, if it lies in one."""
        return self.path.parents[1] if self.path.parent.name == "checkpoints" else None

    def take_over_history(self, csv: MetricsCSV) -> None:
        """Begin metrics.csv with the rows up to this step; in the same directory drop what came later."""
        if self.run is None:
            return
        if (self.run / "metrics.csv").exists():
            csv.continue_from(self.run / "metrics.csv", self.step)
        if csv.path.parent == self.run:
            for step, later in numbered(self.path.parent).items():
                if step > self.step:
                    later.unlink()


def resume_on(config: Mapping[str, Any], data: ImageDataModule) -> Resume:
    """The checkpoint of `ckpt=`, on a data set whose classes are numbered from here on as they were there:
    earlier versions put names in another order.

    Raises:
        UsageError: as `resume`.
    """
    try:
        return resume(config, describe(data))
    except OtherOrderError as error:
        try:
            data.order_classes(error.classes)
        except ValueError:
            raise error from None
    return resume(config, describe(data))


def resume(config: Mapping[str, Any], data: Mapping[str, Any]) -> Resume:
    """The checkpoint of `ckpt=`, which must belong to the run that the configuration describes.

    Args:
        config: of the run that is to go on.
        data: its data set, described.

    Raises:
        UsageError: naming what differs, or why there is nothing left to do; `OtherOrderError` where only the
            classes are in another order.
    """
    path, checkpoint = found(config["ckpt"])
    step, lr_schedule = checkpoint["global_step"], config["lr_schedule"]
    max_steps = config["trainer"]["max_steps"]
    as_it_was = lr_schedule == checkpoint["config"].get("lr_schedule")
    ends = lr_schedule.get("total_steps")
    if not as_it_was and ends == max_steps > step:
        lr_schedule = {**lr_schedule, "total_steps": max_steps - step}
    result = Resume(path, step, checkpoint.get("wandb_id"), lr_schedule)
    differing = [
        f"{key} is {here!r} here and {there!r} in the checkpoint"
        for name in CONTINUED
        for key, here, there in _differences(name, _select(config, name), _select(checkpoint["config"], name))
        if key not in FREE
    ]
    if not differing and data["fingerprint"] != checkpoint["data"]["fingerprint"]:
        _refuse_images(path, data, checkpoint["data"])
    if differing:
        raise UsageError(
            f"ckpt={path}: belongs to another run: {differing[0]}. ckpt= alone continues it with its own "
            "configuration; init= starts a new run from its weights"
        )
    more = step * 2 if step else 1000
    if 0 <= max_steps <= step:
        rate = " lr_schedule=constant" if ends is not None else ""
        raise UsageError(
            f"trainer.max_steps={max_steps}: the run in ckpt={path} is at step {step} already; train "
            f"on with a higher one, as trainer.max_steps={more}{rate}"
        )
    if as_it_was and isinstance(ends, int) and max_steps > ends:
        raise UsageError(
            f"trainer.max_steps={max_steps}: the learning rate of this run falls to 0 at step {ends}; choose "
            "another schedule for what comes after, as lr_schedule=constant"
        )
    return result


def start_from(module: DDPM, init: str) -> None:
    """Take over the averaged weights of a checkpoint, for the network and its average alike.

    Raises:
        UsageError: where they are of another network.
    """
    path, checkpoint = found(init, "init")
    config, data = checkpoint["config"], checkpoint["data"]
    check.check_group("variance", config["variance"])
    try:
        check_weights(
            variance=module.variance,
            num_classes=module.num_classes,
            their_variance=build("variance", config["variance"]),
            their_num_classes=len(data["classes"]) if config["conditional"] else None,
        )
    except ValueError as error:
        raise UsageError(f"init={path}: {error}") from error
    own = dict(module.network.named_parameters())
    theirs = averaged_weights(checkpoint)
    for name in sorted({*own, *theirs}):
        shapes = [tuple(weights[name].shape) if name in weights else None for weights in (own, theirs)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"init={path}: is of another network: {name} is {shapes[0]} in this one and {shapes[1]} "
                "there; choose the model that it was trained with"
            )
    module.start_from(theirs)


def _refuse_images(path: Path, here: Mapping[str, Any], there: Mapping[str, Any]) -> NoReturn:
    """Say what differs between the data set and that of a checkpoint, both described, and what to do.

    Raises:
        UsageError: always.
    """
    begin = f"ckpt={path}: the images are not those that it was trained on"
    end = "; init= starts a new run from its weights"
    classes, theirs = here.get("classes"), there.get("classes")
    if classes != theirs:
        differs = f"{begin}: their classes are {_some(classes)} here and {_some(theirs)} in the checkpoint"
        if classes and theirs and sorted(classes) == sorted(theirs):
            raise OtherOrderError(f"{differs}, in another order{end}", theirs)
        raise UsageError(
            f"{differs}. Folders such as train and test are parts now, not classes, and a folder around "
            f"everything is none; the version that trained it continues it as it was{end}"
        )
    counts = [tuple(data.get(name) for name in ("num_train", "num_validation")) for data in (here, there)]
    if counts[0] != counts[1]:
        said = [
            next((line for line in data.get("understood") or () if line.startswith("images: ")), None)
            or f"{train} to train on, {validation} held out"
            for data, (train, validation) in zip((here, there), counts, strict=True)
        ]
        said = [text.removeprefix("images: ") for text in said]
        raise UsageError(
            f"{begin}: here there are {said[0]}; in the checkpoint {said[1]}. data.split= and "
            f"data.validation_split= choose the parts{end}"
        )
    raise UsageError(
        f"{begin}: they are as many, with other pixels or labels. Their files have changed, or this version "
        f"reads them otherwise; the version that trained it continues it as it was{end}"
    )


def _some(classes: Sequence[str] | None) -> str:
    named = ", ".join(str(name) for name in (classes or ())[:NAMED])
    return f"{named} ..." if len(classes or ()) > NAMED else named or "none"


def _select(config: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name, or None."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _whole(key: str, node: Any) -> Any:
    """A node with what its constructor does where nothing is said, so that the two can be compared."""
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        return node
    parameters = inspect.signature(resolve(key, node["_target_"])).parameters.values()
    defaults = {
        parameter.name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for parameter in parameters
        if parameter.default is not parameter.empty and parameter.name not in PROVIDED.get(key, ())
    }
    return {**defaults, **{name: value for name, value in node.items() if name not in UNCOMPARED}}


def _differences(key: str, here: Any, there: Any) -> list[tuple[str, Any, Any]]:
    here, there = _whole(key, here), _whole(key, there)
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        return [
            difference
            for name in sorted({*here, *there})
            for difference in _differences(f"{key}.{name}", here.get(name), there.get(name))
        ]
    return [] if here == there else [(key, here, there)]
