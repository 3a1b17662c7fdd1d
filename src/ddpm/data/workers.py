"""Batches that worker processes read, which are waited for so long and no longer."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

WAITS = 300.0
"""Seconds that a batch is waited for at a time."""

TIMES = 2
"""It is waited for so often: a process that stood still itself, as it was stopped, gives its workers time."""


class WorkerLoader(DataLoader[Any]):
    """A DataLoader of batches, which gives up where its workers hand over nothing.

    Args:
        dataset: of whole batches, or an iterable one.
        num_workers: processes that read; 0 reads in this one, and waits for as long as it takes.
        kept: further arguments of DataLoader.

    Raises:
        TimeoutError: from its iterator, where there is no batch after `TIMES` x `WAITS` seconds.
    """

    def __init__(self, dataset: Dataset[Any], *, num_workers: int, **kept: Any):
        super().__init__(
            dataset,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            timeout=WAITS if num_workers else 0,
            **kept,
        )

    def __iter__(self) -> Any:
        return _in_time(super().__iter__(), self.num_workers, self.timeout)


def _in_time(batches: Iterator[Any], num_workers: int, seconds: float) -> Iterator[Any]:
    waited = 0
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):  # its own kind it has not
                raise
            waited += 1
            if waited < TIMES:
                continue
            raise TimeoutError(
                f"data.num_workers={num_workers}: the processes that read the data have handed over no batch "
                f"for {waited * seconds:g} s; the disk or server of the data may be away. data.num_workers=0 "
                "reads in the training process"
            ) from error
        waited = 0
        yield batch


def _as_it_is(batch: Any) -> Any:
    return batch
