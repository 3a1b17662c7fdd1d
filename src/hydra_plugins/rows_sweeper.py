"""A Hydra sweeper that runs through rows of overrides: not every product of values has a meaning."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # the public one has no loop
from hydra.core.config_store import ConfigStore


@dataclass
class RowsSweeperConf:
    """Settings of `hydra/sweeper=rows`.

    rows: a list of overrides for each job.
    max_batch_size, params: as Hydra's own sweeper has them.
    """

    _target_: str = "hydra_plugins.rows_sweeper.RowsSweeper"
    rows: list[list[str]] = field(default_factory=list)
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="rows", node=RowsSweeperConf, provider="ddpm")


class RowsSweeper(BasicSweeper):
    """Hydra's own sweeper, with each of the rows for each job that the command line makes. A key that is
    typed holds in every row.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[str]],
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.rows = rows

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """The overrides of each job of the next batch."""
        from ddpm.app.sweeps.rows import with_rows  # when used: Hydra imports every plugin at every start

        return with_rows(super().get_job_batch(), self.rows)
