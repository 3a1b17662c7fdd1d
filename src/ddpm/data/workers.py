"""Batches that worker processes read, which are waited for so long and no longer."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

LOOKS_EVERY = 5.0
"""Seconds between two looks at whether workers and what pins their memory are alive."""

TO_BEGIN = 3600.0
"""Seconds that the first batch may take: a stream fills its buffer, or passes over what was seen before."""

FOR_A_BATCH = 600.0
"""Seconds that any other may take. Time in which this process stood still itself is not counted."""


class WorkerLoader(DataLoader[Any]):
    """A DataLoader of batches, which gives up where its workers hand over nothing.

    Args:
        dataset: of whole batches, or an iterable one.
        num_workers: processes that read; 0 reads in this one, and waits for as long as it takes.
        further: arguments of DataLoader. Lightning, which makes a loader anew from its arguments, gives also
            those that are decided here.

    Raises:
        TimeoutError: from its iterator, where there is no batch in time.
    """

    def __init__(self, dataset: Dataset[Any], num_workers: int = 0, **further: Any):
        decided = {
            "batch_size": None,
            "collate_fn": _as_it_is,
            "timeout": LOOKS_EVERY if num_workers else 0,
        }
        super().__init__(dataset, num_workers=num_workers, **{**further, **decided})

    def __iter__(self) -> Any:
        return _in_time(super().__iter__(), self.num_workers, self.timeout)


def _in_time(batches: Iterator[Any], num_workers: int, seconds: float) -> Iterator[Any]:
    waited, limit = 0.0, TO_BEGIN
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):  # its own kind it has not
                raise
            waited += seconds
            if waited < limit:
                continue
            raise TimeoutError(
                f"data.num_workers={num_workers}: the processes that read the data have handed over no batch "
                f"for {waited:g} s; the disk or server of the data may be away. data.num_workers=0 reads in "
                "the training process"
            ) from error
        waited, limit = 0.0, FOR_A_BATCH
        yield batch


def _as_it_is(batch: Any) -> Any:
    return batch
