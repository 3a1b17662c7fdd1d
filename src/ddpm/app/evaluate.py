"""What evaluate.py does once its configuration is checked: it measures a run, several runs, or images."""

from functools import partial
from typing import Any

import torch

from ddpm.app.command_line import Job
from ddpm.app.measuring import one_run, samples_there, several_runs
from ddpm.app.run_directory import Place
from ddpm.app.shared_work import on_devices


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Load the run that is to be measured, or the samples, and the images to measure it with.

    Raises:
        UsageError: where there are none, or the settings make no sense.
    """
    torch.backends.cudnn.allow_tf32 = False  # bits per dimension are worth the time
    if config["samples"]:
        work = samples_there.work
    else:
        work = several_runs.work if isinstance(config["ckpt"], list) else one_run.work
    return on_devices(config, place, partial(work, config, place))
