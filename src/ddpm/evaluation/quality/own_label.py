"""Whether samples are of the class that they were asked to be."""

from typing import Any, ClassVar

import torch

from ddpm.evaluation.extractors.classifier import Classifier
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.kept import Evidence
from ddpm.evaluation.quality.intervals import share
from ddpm.evaluation.quality.material import Material
from ddpm.evaluation.quality.metric import QualityMetric


class OwnLabel(QualityMetric):
    """The share of class-conditional samples that a classifier of the data set's labels takes for what they
    were asked to be. How often it is right about held-out images stands beside it.
    """

    of: ClassVar[type[Extractor]] = Classifier
    by_definition: ClassVar[bool] = True
    compares: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = True
    fewest: int = 1

    def __call__(self, material: Material) -> dict[str, Any]:
        logits, asked, extractor = material.logits, material.samples.asked, material.extractor
        assert logits is not None
        assert asked is not None
        assert isinstance(extractor, Classifier)
        right = logits.argmax(1) == torch.from_numpy(asked)
        value = right.double().mean().item()
        material.keep("own_label", Evidence("share", value, (right.numpy(),)))
        by_class = {
            str(label): right[torch.from_numpy(asked == label)].double().mean().item()
            for label in sorted(set(asked.tolist()))
        }
        return {
            material.named("own_label", with_reference=False): value,
            "interval": share(value, len(right)),
            "of_held_out_images": extractor.accuracy,
            "by_class": by_class,
        }
