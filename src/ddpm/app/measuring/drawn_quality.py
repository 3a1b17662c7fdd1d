"""Samples of a run, drawn and measured: what is to be known beforehand, how long it takes, the values."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm.app.measuring.drawn import IMAGES, draw
from ddpm.app.measuring.quality import number_of_samples, save_reference
from ddpm.app.own import own_settings
from ddpm.evaluation.kept import Kept
from ddpm.evaluation.quality import measuring
from ddpm.evaluation.quality.drawn import classes_of, name_of
from ddpm.evaluation.quality.measuring import Comparison
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.run import Run
from ddpm.runtime.sharing import Sharing, size_of_a_piece
from ddpm.sampling.batches import images_at_once, seconds_to_draw
from ddpm.sampling.drawing import Drawing

FIRST = 8
"""Images that are kept, to be looked at."""


class DrawnQuality:
    """Samples of a run, and what is measured of them; checked here.

    Args:
        run: that draws.
        config: of the command line.
        drawing: how.
        metrics: of samples, by name.
        comparison: what samples are compared with.
        world_size: devices that share the work.

    Raises:
        UsageError: where something does not fit.
    """

    def __init__(
        self,
        run: Run,
        config: Mapping[str, Any],
        drawing: Drawing,
        metrics: Mapping[str, QualityMetric],
        comparison: Comparison,
        world_size: int,
    ):
        self.run, self.config, self.drawing = run, config, drawing
        self.metrics, self.comparison = metrics, comparison
        self.n = number_of_samples(config, comparison)
        self.asked = classes_of(run.module, comparison.data, self.n)
        measuring.check(metrics, self.n, self.asked is not None, comparison)
        at_once = config["batch_size"] or images_at_once(run.module)
        self.size = size_of_a_piece(self.n, at_once, world_size)
        self.evaluations = drawing.nfe * math.ceil(self.n / self.size / world_size)

    @property
    def way(self) -> str:
        """How samples are drawn, in a word: ema_ddim50_guided1.5."""
        return name_of(self.drawing)

    def seconds(self, sharing: Sharing, *, references: bool = True) -> dict[str, float]:
        """How long drawing and features will take, but for what is there from an earlier start.

        Args:
            sharing: of the work, which has not begun.
            references: whether features of references count too.
        """
        left = sharing.missing(IMAGES, self.n)
        drawn = seconds_to_draw(self.drawing, range(left), self.size) if left else 0.0
        features = measuring.seconds_to_extract(
            self.metrics, self.n, self.comparison, sharing, references=references
        )
        return {"sampling": drawn / sharing.world_size, "features": features / sharing.world_size}

    def measure(
        self, directory: Path, sharing: Sharing, kept: Kept | None = None
    ) -> dict[str, dict[str, Any]]:
        """Draw the samples on all devices, and measure them; only the leader has the values.

        Args:
            directory: for figures.
            sharing: of the work.
            kept: takes the first images and what values are made of, if somebody compares them.
        """
        settings = {group: own_settings(self.run, self.config, group) for group in ("sampler", "guidance")}
        settings["variance"] = self.config["variance"] or self.run.config["variance"]
        samples = draw(self.run, self.drawing, self.n, self.asked, self.size, settings, sharing)
        if kept is not None and sharing.is_leader:
            kept.images = samples.read(range(min(self.n, FIRST)))
            kept.classes = None if self.asked is None else self.asked[:FIRST]
        found = measuring.measure(
            self.metrics,
            samples,
            self.comparison,
            seed=self.config["seed"],
            directory=directory,
            sharing=sharing,
            kept=kept,
        )
        save_reference(self.config, self.metrics, self.comparison, sharing)
        return found
