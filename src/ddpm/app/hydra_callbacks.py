"""Hydra's own callbacks (`hydra.callbacks`) around a single run; around a sweep's jobs Hydra calls them."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf


def called_around(work: Callable[[], int], config: DictConfig, program: str) -> int:
    """Do the work between the callbacks for the start and the end of a run and its job.

    As in Hydra, what a callback raises is a warning.

    Args:
        work: returns the exit code.
        config: as Hydra composed it, with its own part, which `hydra_part` has checked.
        program: the name of its configuration.
    """
    nodes = OmegaConf.select(config, "hydra.callbacks") or {}
    built = [instantiate(node) for node in nodes.values() if node]

    def notify(what: str, callbacks: Sequence[Any], **about: Any) -> None:
        for callback in callbacks:
            try:
                getattr(callback, what)(config=config, **about)
            except Exception as error:
                name = f"hydra.callbacks: {type(callback).__name__}.{what}"
                warnings.warn(f"{name} raised {type(error).__name__}: {error}", stacklevel=2)

    result = JobReturn(
        overrides=list(config.hydra.overrides.task),
        cfg=OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]),
        hydra_cfg=OmegaConf.masked_copy(config, "hydra"),
        working_dir=config.hydra.runtime.output_dir,
        task_name=config.hydra.job.name,
        status=JobStatus.FAILED,
    )
    notify("on_run_start", built, config_name=program)
    notify("on_job_start", built, task_function=work)
    try:
        result.return_value = code = work()
        result.status = JobStatus.FAILED if code else JobStatus.COMPLETED
        return code
    except BaseException as error:
        result.return_value = error
        raise
    finally:
        notify("on_job_end", built[::-1], job_return=result)
        notify("on_run_end", built[::-1])
