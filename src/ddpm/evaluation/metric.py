"""What every metric is."""

from pathlib import Path
from typing import Any, Protocol

from ddpm.data.module import ImageDataModule
from ddpm.runtime.sharing import Sharing
from ddpm.training.module import DDPM


class Metric(Protocol):
    """A measure of a trained model. Settings are in the constructor, which does nothing else."""

    def check(self, module: DDPM, data: ImageDataModule) -> None:
        """Refuse, with ValueError, a model or data that the settings do not fit, before anything is done."""
        ...

    def __call__(
        self,
        module: DDPM,
        data: ImageDataModule,
        *,
        seed: int,
        batch_size: int,
        directory: Path,
        sharing: Sharing,
    ) -> dict[str, Any]:
        """Measure, with the weights that the module evaluates with, and leave figures in a directory. Every
        rank does, and comes to the same.

        `module.sample`, `Drawing` and `module.evaluating()` use them by themselves.

        Args:
            module: the model, in evaluation mode.
            data: images to compare with.
            seed: of whatever is drawn.
            batch_size: images at once.
            directory: for figures, which `sharing.is_leader` leaves.
            sharing: `sharing.through` has the ranks share what is computed image by image, and keeps it.

        Returns:
            plain containers, for metrics.json.
        """
        ...
