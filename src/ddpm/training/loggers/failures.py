"""Training goes on where a logger fails: its disk is full, its server is away."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from ddpm.runtime.writing import reason

log = logging.getLogger(__name__)

METHODS = ("log_metrics", "log_hyperparams", "save", "after_save_checkpoint", "finalize")
"""What Lightning and its callbacks call, as we do."""

TOLD_EVERY = 100
"""Failures of one kind after which it is told again."""

_failures: Counter[tuple[str, str, str]] = Counter()


def may_fail(logger: Logger) -> None:
    """Have a logger, of whatever kind, end no training: what its methods raise is told, and that is all.

    It is done on the instance, since the loggers are anybody's. Doing it twice is doing it once.
    """
    for name in METHODS:
        method = getattr(logger, name)
        if not hasattr(method, "may_fail"):
            setattr(logger, name, _forgiven(logger, name, method))


@contextmanager
def forgiven(logger: Logger, what: str) -> Iterator[None]:
    """Go on behind the context where the logger fails inside.

    It is told once for each kind of failure, and every hundredth time from then on.

    Args:
        logger: of any kind.
        what: fails, such as "log_metrics".
    """
    try:
        yield
    except Exception as error:
        kind = type(logger).__name__, what, type(error).__name__
        _failures[kind] += 1
        if (times := _failures[kind]) == 1 or times % TOLD_EVERY == 0:
            log.warning(
                "%s failed (%s: %s)%s; training goes on, and metrics.csv has what is logged",
                ".".join(kind[:2]), kind[2], reason(error), f" for the {times}th time" if times > 1 else "",
            )  # fmt: skip
        if isinstance(logger, TensorBoardLogger):
            # its writer's thread has died of it; the next value begins another file of events
            logger._experiment = None


def _forgiven(logger: Logger, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with forgiven(logger, name):
            return method(*args, **kwargs)

    call.may_fail = True  # type: ignore[attr-defined]  # of a function
    return call
