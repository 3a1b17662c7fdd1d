"""Data that are shown as a run has seen its own, whatever they are today."""

from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.run import Run


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
