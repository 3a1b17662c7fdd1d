"""A run's data, today's and others, shown as the run has seen its own."""

from collections.abc import Mapping
from typing import Any

from ddpm.app.build import build_data
from ddpm.app.own import own_settings
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.run import Run


def own_data(run: Run, config: Mapping[str, Any]) -> ImageDataModule:
    """The data of a run, or what a command says of them, not read yet.

    Args:
        run: whose they are.
        config: of the command, with `data`, None for the run's own, and `allow_targets`.

    Raises:
        UsageError: where they cannot be built.
    """
    return build_data({"data": own_settings(run, config, "data"), "seed": run.config["seed"]})


def show_as_to(run: Run, data: ImageDataModule) -> None:
    """Have data number classes as a run does, and spread the numbers that it is conditioned on as those that
    it was trained on are.

    Raises:
        UsageError: for other classes.
    """
    about = (run.module.data or {}).get("condition") or {}
    if data.condition_sizes[1] and len(about.get("mean", ())) == data.condition_sizes[1]:
        data.standardise_by(about["mean"], about["std"])
    if run.module.classes is not None:
        try:
            data.order_classes(run.module.classes)
        except ValueError as error:
            raise UsageError(f"data: its classes are no longer those of the run: {error}") from error
