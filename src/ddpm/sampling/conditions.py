"""What images are drawn under beside their class, by their indices: given conditions in turn, or those of
images that data hold out.
"""

from collections.abc import Sequence

from torch import Tensor

from ddpm.data.module import ImageDataModule
from ddpm.diffusion.condition import Condition
from ddpm.sampling.model import Conditions


class InTurn:
    """Given conditions, again and again.

    Args:
        condition: N of them.
        truth: the images that they belong to, float32 [N, C, H, W]; None where nobody knows, as of `labels`.
        labels: classes of these, N.
    """

    def __init__(
        self, condition: Condition, truth: Tensor | None = None, labels: Sequence[int] | None = None
    ):
        self.condition = condition
        self._truth = truth
        self._labels = labels

    def __call__(self, indices: Sequence[int]) -> Condition:
        return self.condition.rows(self._rows(indices))

    def truth(self, indices: Sequence[int]) -> Tensor | None:
        return None if self._truth is None else self._truth[self._rows(indices)]

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        return None if self._labels is None else [self._labels[row] for row in self._rows(indices)]

    def _rows(self, indices: Sequence[int]) -> list[int]:
        rows = next(len(part) for part in self.condition if part is not None)
        return [i % rows for i in indices]


def always(conditions: Conditions, index: int) -> InTurn:
    """That of one index for every image."""
    one = [index]
    return InTurn(conditions(one), conditions.truth(one), conditions.labels(one))


def in_turn(condition: Condition | Conditions | None) -> Conditions | None:
    """Given conditions as what images are drawn under."""
    return InTurn(condition) if isinstance(condition, Condition) else condition


class HeldOut:
    """The conditions of the images that data hold out, in their order, again and again.

    Args:
        data: with a condition.
    """

    def __init__(self, data: ImageDataModule):
        self.data = data

    def __call__(self, indices: Sequence[int]) -> Condition:
        condition = self.data.held_out(indices).condition
        if condition is None:
            raise ValueError("condition: the data of this run have none; give one")
        return condition

    def truth(self, indices: Sequence[int]) -> Tensor | None:
        """Their images."""
        return self.data.held_out(indices).x_0

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        return self.data.labels_held_out(indices)
