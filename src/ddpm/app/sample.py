"""What sample.py does once its configuration is checked."""

import logging
from typing import Any

import numpy as np
from PIL import Image

from ddpm.app import terminal
from ddpm.app.build import build
from ddpm.app.command_line import Job
from ddpm.app.errors import UsageError
from ddpm.app.loading import load
from ddpm.app.run_directory import Place
from ddpm.training.grids import grid, to_uint8

log = logging.getLogger(__name__)

MOST_IN_A_GRID = 400


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Load the run that is to be sampled.

    Raises:
        UsageError: where there is none, or the settings make no sense.
    """
    terminal.set_up(None, leader=True)
    if config["sampler"] and "_target_" not in config["sampler"]:
        raise UsageError(
            f"sampler.{next(iter(config['sampler']))}: choose a sampler first, such as sampler=ddim"
        )
    run = load(config["ckpt"], config["device"], config["allow_targets"])
    sampler = build(config, "sampler") if config["sampler"] else run.module.sampler
    try:
        sampler.chain(run.module.schedule)
    except ValueError as error:
        raise UsageError(str(error)) from error
    directory = place.directory

    def job() -> int:
        terminal.set_up(directory / "sample.log", leader=True)
        log.info("sampling from %s, step %d, %s weights", run.path, run.step, config["weights"])
        images = to_uint8(
            run.sample(
                config["n"],
                seed=config["seed"],
                sampler=sampler,
                weights=config["weights"],
                batch_size=config["batch_size"],
            )
        )
        np.savez(directory / "samples.npz", arr_0=images.permute(0, 2, 3, 1).numpy())
        Image.fromarray(grid(images[:MOST_IN_A_GRID])).save(directory / "grid.png")
        terminal.say(str(directory))
        return 0

    return job
