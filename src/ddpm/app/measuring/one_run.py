"""What evaluate.py does with one run."""

import logging
from typing import Any

from lightning.pytorch import Trainer

from ddpm.app import terminal
from ddpm.app.devices import loading_device
from ddpm.app.measuring import measurements_file
from ddpm.app.measuring.measurement import (
    Measurement,
    announce,
    data_of,
    draw_under_held_out,
    metrics_of,
)
from ddpm.app.measuring.quality import comparison_of, contents_of_reference
from ddpm.app.named_weights import named_weights
from ddpm.app.request import Request
from ddpm.app.run_directory import Place
from ddpm.app.shared_work import Work
from ddpm.run import load
from ddpm.runtime.memory import keep_freed_memory
from ddpm.runtime.sharing import Sharing
from ddpm.training.checkpoints.archive import fingerprint
from ddpm.training.guides import contents_of_guide

log = logging.getLogger(__name__)


def work(config: dict[str, Any], place: Place, trainer: Trainer) -> Work | None:
    """What is to be measured; None where all of it is there.

    Raises:
        UsageError: where there is no such run, or the settings make no sense.
    """
    run = load(
        config["ckpt"], loading_device(trainer), config["allow_targets"], sigma_rel=config["sigma_rel"]
    )
    if run.module.device.type == "cpu":
        keep_freed_memory()
    metrics = metrics_of(config)
    data = data_of(run, config)
    draw_under_held_out(run, data)
    measurement = Measurement(run, config, metrics, data)
    directory = place.directory
    contents = {"ckpt": fingerprint(run.checkpoint), "data": data.fingerprint}
    contents |= contents_of_reference(config) | contents_of_guide(run.module.guidance)
    request = Request(config, contents)
    if measurements_file.is_there(place, request, leader=trainer.is_global_zero):
        return None
    comparison = None
    if metrics.of_samples:
        comparison = comparison_of(
            metrics.of_samples, config, data.data_set.pictures, trainer.strategy.root_device
        )
    measurement.prepare(comparison, trainer)

    def begin() -> None:
        log.info("measuring %s, step %d, %s", run.checkpoint, run.step, named_weights(run, config))
        request.write(directory)

    def share(sharing: Sharing) -> None:
        if sharing.is_leader and not sharing.in_step:
            announce(measurement.seconds(sharing))
        found = measurement.measure(directory, sharing)
        if sharing.is_leader:
            measurements_file.write(directory, found)
            terminal.say(str(directory))

    weights = {} if comparison is None else comparison.checksums
    return Work(
        "evaluate.log", "measuring", run.module, {**contents, **weights, **request.texts()}, begin, share
    )
