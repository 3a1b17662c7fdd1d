"""What evaluate.py does where images are there already, and no run takes part."""

import logging
from typing import Any

from lightning.pytorch import Trainer

from ddpm.app import terminal
from ddpm.app.build import build_data, describe
from ddpm.app.devices import is_sharded
from ddpm.app.measuring import measurements_file
from ddpm.app.measuring.given import given
from ddpm.app.measuring.measurements import summary
from ddpm.app.measuring.quality import comparison_of, contents_of_reference, save_reference
from ddpm.app.request import Request
from ddpm.app.run_directory import Place
from ddpm.app.shared_work import Work
from ddpm.errors import UsageError
from ddpm.evaluation.quality import measuring
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.runtime.memory import keep_freed_memory
from ddpm.runtime.sharing import Sharing
from ddpm.targets import build

log = logging.getLogger(__name__)


def work(config: dict[str, Any], place: Place, trainer: Trainer) -> Work | None:
    """What is to be measured; None where all of it is there.

    Raises:
        UsageError: where the images do not serve, or the settings make no sense.
    """
    if is_sharded(trainer):
        raise UsageError("strategy=fsdp: parts a run's network, and samples= needs none; leave it out")
    device = trainer.strategy.root_device
    if device.type == "cpu":
        keep_freed_memory()
    metrics = _metrics(config)
    data = build_data(config)
    by_class = next((name for name, metric in metrics.items() if metric.needs_classes), None)
    samples = given(config, data.data_set.pictures, by_class)
    comparison = comparison_of(metrics, config, data.data_set.pictures, device)
    measuring.check(metrics, samples.n, samples.asked is not None, comparison)
    directory, described = place.directory, describe(data)
    contents = {
        **samples.contents,
        "data": described["fingerprint"],
        **contents_of_reference(config),
    }
    request = Request(config, contents)
    if measurements_file.is_there(place, request, leader=trainer.is_global_zero):
        return None

    def begin() -> None:
        there = "" if samples.n == samples.saved.n else f", the first of {samples.saved.n}"
        log.info("measuring %d images of %s%s", samples.n, config["samples"], there)
        request.write(directory)

    def share(sharing: Sharing) -> None:
        with samples.samples() as opened:
            values = measuring.measure(
                metrics, opened, comparison, seed=config["seed"], directory=directory, sharing=sharing
            )
        save_reference(config, metrics, comparison, sharing)
        if sharing.is_leader:
            for name, found in values.items():
                terminal.say(summary(name, found))
            all_found = {
                **opened.about,
                "seed": config["seed"],
                "data": described,
                "settings": {"metrics": config["metrics"]},
                **values,
            }
            measurements_file.write(directory, all_found)
            terminal.say(str(directory))

    return Work("evaluate.log", "measuring", None, {**contents, **request.texts()}, begin, share)


def _metrics(config: dict[str, Any]) -> dict[str, QualityMetric]:
    """The metrics by name.

    Raises:
        UsageError: where there are none, or one is of a run.
    """
    found = {}
    for name, node in config["metrics"].items():
        metric = build(f"metrics.{name}", node) if node else None
        if isinstance(metric, QualityMetric):
            found[name] = metric
        elif metric is not None:
            raise UsageError(
                f"metrics={name}: is of a run, and samples={config['samples']} are images alone; choose "
                "metrics=[fid] or another of them, or give ckpt=RUN_DIR instead"
            )
    if not found:
        raise UsageError("metrics: nothing is to be measured; choose metrics=[OPTION,...]")
    return found
