"""Compiling the network before the first step."""

import logging
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.runtime.compilation import COMPILING, keep_compiled

log = logging.getLogger(__name__)


class Compilation(Callback):
    """Compiles the network before the first step, and says so, and how long that step took.

    Args:
        cache: directory that keeps what was compiled, for the next run; $TORCHINDUCTOR_CACHE_DIR comes first.
        cuda_graphs: see `ddpm.training.module.DDPM.compile_network`.
    """

    def __init__(self, cache: Path, *, cuda_graphs: bool = False):
        self.cache = keep_compiled(cache)
        self.cuda_graphs = cuda_graphs
        self._since: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        log.info(COMPILING)
        pl_module.compile_network(cuda_graphs=self.cuda_graphs)
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._since is not None:
            took = time.monotonic() - self._since
            log.info("compiled in %.0f s; the next run finds most of it in %s", took, self.cache)
            self._since = None
