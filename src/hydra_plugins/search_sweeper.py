"""A Hydra sweeper that searches: Optuna chooses each job when a place for it is free."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class SamplerConf:
    """Of Optuna's tree-structured Parzen estimator."""

    n_startup_trials: int = 10


@dataclass
class PrunerConf:
    """Of Optuna's `PercentilePruner`; steps are optimizer steps."""

    percentile: float = 50.0
    n_startup_trials: int = 5
    n_warmup_steps: int = 0
    n_min_trials: int = 1


@dataclass
class SearchSweeperConf:
    """Settings of `hydra/sweeper=search`.

    n_trials: in all.
    direction: minimize or maximize.
    monitor: the metric that is compared.
    seed: of what is drawn.
    sampler, pruner: of Optuna; without a pruner every run goes to its end.
    params: what is searched, in Hydra's grammar, by key.
    """

    _target_: str = "hydra_plugins.search_sweeper.SearchSweeper"
    n_trials: int = 20
    direction: str = "minimize"
    monitor: str = "val/loss"
    seed: int = 0
    sampler: SamplerConf = field(default_factory=SamplerConf)
    pruner: PrunerConf | None = field(default_factory=PrunerConf)
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchSweeperConf, provider="ddpm")


class SearchSweeper(Sweeper):
    """Runs the search that the command line has read and checked, `ddpm.app.sweeps.search`; its settings are
    what that reads.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.directory = Path(config.hydra.sweep.dir)
        self.config = config
        self.task_function = task_function
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the trials that are left, and return the best one's value."""
        from ddpm.app.sweeps.jobs import SweepJob  # when used: Hydra imports every plugin at every start
        from ddpm.app.sweeps.study import Study

        job = self.task_function
        if not isinstance(job, SweepJob) or job.search is None or not hasattr(self.launcher, "launch_each"):
            raise HydraException("hydra/sweeper=search is for train.py and hydra/launcher=fresh_process")
        OmegaConf.save(self.config, self.directory / "multirun.yaml")  # as Hydra's own sweeper does
        study = Study(self.directory, job.search)
        self.launcher.launch_each(study.jobs(arguments), job.search.n_trials, study.ended)
        study.raise_failures()
        return study.best_value
