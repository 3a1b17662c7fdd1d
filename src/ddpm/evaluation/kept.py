"""What is kept of a run's measurements, so that it can be compared with other runs by the same images."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ddpm.evaluation.measures import paired
from ddpm.evaluation.measures.paired import Difference
from ddpm.runtime.writing import whole

Kind = Literal["mean", "share", "replicates", "jackknife"]


@dataclass(frozen=True)
class Evidence:
    """What a value is made of, image by image or draw by draw, in an order that all runs have.

    Attributes:
        kind: a mean over images; a share of them; replicates, such as those of the bootstrap; or what a value
            comes to without each group of images.
        value: that was measured.
        arrays: [N], of images or replicates; of the jackknife one [G] for each set of images.
        scale: of replicates, the standard error by their spread.
    """

    kind: Kind
    value: float
    arrays: tuple[np.ndarray, ...]
    scale: float = 1.0

    def minus(self, other: "Evidence") -> Difference:
        """The difference from the same value of another run.

        Raises:
            ValueError: where it is made of other images, or in another way.
        """
        if self.kind != other.kind:
            raise ValueError(f"{self.kind} and {other.kind}: are of two ways to measure")
        difference = self.value - other.value
        if self.kind == "jackknife":
            return paired.of_jackknife(difference, self.arrays, other.arrays)
        one, two = self.arrays[0], other.arrays[0]
        if self.kind == "replicates":
            return paired.of_replicates(difference, one, two, self.scale)
        return paired.of_means(one, two) if self.kind == "mean" else paired.of_shares(one, two)


Keep = Callable[[str, Evidence], None]
"""Takes the evidence for a measure, by its short name: fid, precision."""


def nothing(measure: str, evidence: Evidence) -> None:
    """Keeps none."""


@dataclass
class Kept:
    """What is kept of one run.

    Attributes:
        evidence: by the name of the metric and the measure.
        images: the first samples, uint8 [K, C, H, W]; None where none were drawn.
        classes: that they were asked to be of, int64 [K], or None.
    """

    evidence: dict[tuple[str, str], Evidence] = field(default_factory=dict)
    images: np.ndarray | None = None
    classes: np.ndarray | None = None

    def keep(self, metric: str, measure: str, evidence: Evidence) -> None:
        self.evidence[metric, measure] = evidence

    def write(self, path: Path) -> None:
        """Leave it in an npz file: `index` says in JSON what the other arrays are.

        Raises:
            ddpm.runtime.writing.WriteError: where the disk refuses it.
        """
        arrays: dict[str, np.ndarray] = {}
        index: list[dict[str, Any]] = []
        for (metric, measure), one in self.evidence.items():
            names = [f"{metric}.{measure}.{i}" for i in range(len(one.arrays))]
            arrays |= dict(zip(names, one.arrays, strict=True))
            index.append(
                {
                    "metric": metric,
                    "measure": measure,
                    "kind": one.kind,
                    "value": one.value,
                    "scale": one.scale,
                    "arrays": names,
                }
            )
        for name, array in (("images", self.images), ("classes", self.classes)):
            if array is not None:
                arrays[name] = array
        with whole(path) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, index=np.array(json.dumps(index)), **arrays)


def read(path: Path) -> Kept:
    """What `Kept.write` has left."""
    with np.load(path) as arrays:
        found = Kept(
            images=arrays.get("images"),
            classes=arrays.get("classes"),
        )
        for one in json.loads(str(arrays["index"])):
            parts = tuple(arrays[name] for name in one["arrays"])
            evidence = Evidence(one["kind"], one["value"], parts, one["scale"])
            found.keep(one["metric"], one["measure"], evidence)
    return found
