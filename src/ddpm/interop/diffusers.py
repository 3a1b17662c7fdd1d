"""Whole runs to and from the directories that `diffusers.DDPMPipeline` loads. diffusers is not needed."""

import inspect
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm import bounded
from ddpm.diffusion import NoiseSchedule, schedules
from ddpm.diffusion.objectives import X0, Epsilon, Objective, V
from ddpm.diffusion.process import betas_between
from ddpm.diffusion.samplers import DDIM, DEIS, DPMSolver
from ddpm.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, Variance
from ddpm.interop import run_directory, sums
from ddpm.interop.foreign import Foreign, network_of, process, target
from ddpm.interop.unet2d import DEFAULTS, unet_from_diffusers, unet_settings, unet_to_diffusers
from ddpm.interop.weights import MOST_HEADER, of_safetensors
from ddpm.networks.unet import UNet
from ddpm.training import checkpoints
from ddpm.training.outline import outlined

logger = logging.getLogger(__name__)

WRITTEN_FOR = "0.36.0"
"""The version of diffusers that exported pipelines name as their origin."""

OBJECTIVES: dict[str, type[Objective]] = {"epsilon": Epsilon, "sample": X0, "v_prediction": V}
"""`prediction_type` of a scheduler, and the objective that it is."""

VARIANCES: dict[str, type[Variance]] = {
    "fixed_small": FixedSmall,
    "fixed_small_log": FixedSmall,
    "fixed_large": FixedLarge,
    "learned_range": LearnedRange,
}
"""`variance_type` of a scheduler, and the variance that it is. Its `fixed_large_log` takes the root of a
logarithm, and its `learned` is a variance, not a logarithm: neither is ours."""

SCHEDULES: dict[str, Callable[..., NoiseSchedule]] = {
    "linear": schedules.linear,
    "scaled_linear": schedules.quadratic,
    "squaredcos_cap_v2": schedules.cosine,
}
"""`beta_schedule` of a scheduler, and the schedule that it is."""


def _sigmoid(steps: int, first: float, last: float) -> Tensor:
    """Betas that rise like a sigmoid from -6 to 6."""
    return torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64)) * (last - first) + first


def _laplace(steps: int, *_: float) -> Tensor:
    """Betas with which the square of alpha-bar is a sigmoid of half of Laplace's quantiles."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    sign = torch.where(u > 0.5, -1.0, 1.0)
    log_snr = -0.5 * sign * torch.log(1 - 2 * (0.5 - u).abs() + 1e-6)
    return betas_between(torch.sigmoid(log_snr).sqrt()).clamp(max=0.999)


TABLES: dict[str, Callable[..., Tensor]] = {"sigmoid": _sigmoid, "laplace": _laplace}
"""`beta_schedule` of a scheduler that no schedule of ours is: its betas from their number and ends."""

SCHEDULER_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
"""What a `DDPMScheduler` configuration means where it leaves a key out."""

PIPELINES = ("DDPMPipeline", "DDIMPipeline")

LEFT_OUT: dict[str, dict[str, Any]] = {
    "DDPMScheduler": {},
    "DDIMScheduler": {},
    "DPMSolverMultistepScheduler": {"clip_sample": False},
    "DEISMultistepScheduler": {"clip_sample": False},
}
"""Schedulers that are known, and what their configurations mean otherwise where they leave a key out."""

MOST_STEPS = 1_000_000
"""Of a chain."""

MOST_PIXELS = 8_192
"""Of a side of an image, as of pictures that are read."""

CONFIGS = {"unet": "config", "scheduler": "scheduler_config"}
"""The file that configures each part of a pipeline."""

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def export_run(run: str | Path, out_dir: str | Path) -> Path:
    """Write a run as a directory that `diffusers.DDPMPipeline.from_pretrained` loads.

    Args:
        run: run directory or checkpoint file.
        out_dir: a directory that is empty or does not exist yet.

    Returns:
        `out_dir`.

    Raises:
        ValueError: where there is no run, and as `export_checkpoint`.
    """
    _, checkpoint = checkpoints.find(Path(run))
    return export_checkpoint(checkpoint, out_dir)


def export_checkpoint(
    checkpoint: Mapping[str, Any], out_dir: str | Path, beside: Mapping[str, bytes] | None = None
) -> Path:
    """Write what a checkpoint holds as a directory that `diffusers.DDPMPipeline.from_pretrained` loads.

    It holds the averaged weights and the chain's betas, so the pipeline's images are those of our ancestral
    sampler on every step of the schedule. A pipeline takes 1000 steps unless it is called with another
    `num_inference_steps`.

    A DDPMPipeline cannot choose a class. Of a class-conditional run, a loop of one's own uses the pipeline's
    `unet`, called with `class_labels`, and `scheduler`; a warning says so. The names of the classes are in
    `unet.config["id2label"]`, and the number after the last stands for no class. Guidance is not exported.

    The checksums of its files lie beside them: `sha256sum -c SHA256SUMS` verifies them, and so does
    `import_pipeline`.

    Args:
        checkpoint: as `ddpm.training.checkpoints.find` reads it.
        out_dir: a directory that is empty or does not exist yet.
        beside: contents of further files by name.

    Returns:
        `out_dir`.

    Raises:
        ValueError: where the directory is in use, or diffusers cannot express the network, the objective or
            the variance.
    """
    from safetensors.torch import save_file

    config, data = checkpoint["config"], checkpoint["data"]
    if data.get("condition"):
        raise ValueError(
            "condition: this network is conditioned on more than the class, and a DDPMPipeline gives its "
            "network nothing but noise; ddpm.load(RUN_DIR).module.network is a torch.nn.Module to build on"
        )
    network = _network(config["model"], checkpoints.averaged_weights(checkpoint))
    scheduler = _scheduler_config(config)
    _, height, width = data["image_shape"]
    unet, weights = unet_to_diffusers(network, (height, width))
    if network.num_classes is not None:
        unet["id2label"] = dict(enumerate(data["classes"] or []))

    out_dir = Path(os.path.expanduser(out_dir))
    origin = {"_diffusers_version": WRITTEN_FOR}
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    with run_directory.claimed(out_dir, sum(weight.nbytes for weight in weights.values())):
        _write_json(out_dir / "unet" / "config.json", {**unet, **origin})
        _write_json(out_dir / "scheduler" / "scheduler_config.json", {**scheduler, **origin})
        save_file(weights, out_dir / "unet" / WEIGHTS[0], metadata={"format": "pt"})
        _write_json(out_dir / "model_index.json", {"_class_name": "DDPMPipeline", **origin, **parts})
        for name, contents in (beside or {}).items():
            (out_dir / name).write_bytes(contents)
        sums.write(out_dir)
    if network.num_classes is not None:
        logger.warning(
            "a DDPMPipeline cannot choose a class, so this one cannot be called: use its scheduler, and its "
            "unet with class_labels from 0 to %d (%d for no class; names in unet.config['id2label'])",
            *(network.num_classes - 1, network.num_classes),
        )
    return out_dir


def import_pipeline(pipeline_dir: str | Path, run_dir: str | Path) -> Path:
    """Make a run directory from a directory of `diffusers.DDPMPipeline` or `DDIMPipeline`.

    Its checkpoint is at step 0 and knows no data but the shape and the classes of the images; averaged and
    raw weights are the same. Its config.yaml is the program's default training recipe around what the
    pipeline says. Betas that none of our schedules has are listed in a betas.txt, which then has to stay
    where it is. A scheduler that is no DDPMScheduler gives the sampler that is nearest to it here.

    It may be a stranger's: nothing of it is run, sizes are looked at before memory is taken, and every weight
    must be finite. Where a SHA256SUMS lies in it, the files must be those that it lists.

    Args:
        pipeline_dir: with a model_index.json, and network and scheduler in folders of their own or, as in the
            first published pipelines, beside it.
        run_dir: a directory that is empty or does not exist yet.

    Returns:
        `run_dir`, absolute.

    Raises:
        ValueError: where there is no pipeline, the directory is in use, or we cannot express its network, its
            schedule, its prediction type or its variance; where a file is damaged or larger than what it is.
    """
    model, weights = read_pipeline(pipeline_dir)
    return run_directory.write(Path(run_dir), model, model.ours(weights))


def read_pipeline(pipeline_dir: str | Path) -> tuple[Foreign, dict[str, Tensor]]:
    """What a pipeline is, and the weights of its network.

    Raises:
        ValueError: as `import_pipeline`.
    """
    pipeline_dir = Path(os.path.expanduser(pipeline_dir)).absolute()
    try:
        return _read(pipeline_dir)
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ValueError(f"{pipeline_dir}: is no pipeline that can be read ({said})") from error


def _read(pipeline_dir: Path) -> tuple[Foreign, dict[str, Tensor]]:
    kind, sampler = _index(pipeline_dir)
    folders = {name: _folder(pipeline_dir, name) for name in ("unet", "scheduler")}
    configs = {name: folders[name] / f"{file}.json" for name, file in CONFIGS.items()}
    weights_file = _weights_file(folders["unet"])
    sums.check(pipeline_dir, [pipeline_dir / "model_index.json", *configs.values(), weights_file])
    unet = {**DEFAULTS, **_read_json(configs["unet"])}
    names = unet.pop("id2label", None)
    scheduler = {**SCHEDULER_DEFAULTS, **LEFT_OUT[kind], **_read_json(configs["scheduler"])}
    scheduler["variance_type"] = scheduler["variance_type"] or "fixed_small"  # of one that draws no noise
    config, betas = _scheduler_settings(scheduler)
    if sampler is not None:
        config["sampler"] = _sampler(sampler, scheduler)
    image_shape = _image_shape(unet)
    if unet["out_channels"] != image_shape[0] * (1 + VARIANCES[scheduler["variance_type"]].outputs):
        raise ValueError(
            f"out_channels={unet['out_channels']}: does not fit in_channels={image_shape[0]} and "
            f"variance_type={scheduler['variance_type']}"
        )
    outline, _ = network_of(UNet, **unet_settings(unet))
    weights = _read_weights(weights_file, sum(parameter.numel() for parameter in outline.parameters()))
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{weights_file}: {name} holds numbers that are not finite")
    network = unet_from_diffusers(unet, weights)
    config["model"] = _model_config(network)
    config["zero_terminal_snr"] = bool(scheduler["rescale_betas_zero_snr"])
    classes = _classes(network.num_classes, names)
    listed = betas if config["schedule"] is None else None
    model = Foreign(config, network, image_shape, classes, lambda _: network.state_dict(), listed)
    return model, weights


def _index(pipeline_dir: Path) -> tuple[str, str | None]:
    """The class of a pipeline's scheduler, and that of the one that it samples with, if it is no ancestral
    one.

    Raises:
        ValueError: where a part of it is of a class that is not known here.
    """
    index = _read_json(pipeline_dir / "model_index.json")
    if (pipeline := index.get("_class_name")) not in PIPELINES:
        raise ValueError(f"{pipeline_dir}: is a {pipeline}, only a {' or '.join(PIPELINES)} can be imported")
    found = {name: (index.get(name) or [None, None])[1] for name in ("unet", "scheduler")}
    for name, known in (("unet", ("UNet2DModel",)), ("scheduler", LEFT_OUT)):
        if found[name] not in known:
            raise ValueError(f"{pipeline_dir}: its {name} is a {found[name]}, only {', '.join(known)} can be")
    scheduler = found["scheduler"]
    if pipeline == "DDIMPipeline":  # whatever scheduler it comes with
        return scheduler, "DDIMScheduler"
    return scheduler, None if scheduler == "DDPMScheduler" else scheduler


def _sampler(kind: str, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler here that is nearest to a scheduler, with our number of steps and its spacing.

    Raises:
        ValueError: for a scheduler of flow matching.
    """
    if scheduler.get("use_flow_sigmas"):
        raise ValueError("use_flow_sigmas=True: its noise levels are those of flow matching")
    spacing = SPACINGS.get(str(scheduler.get("timestep_spacing")), "uniform")
    if scheduler.get("use_karras_sigmas"):
        spacing = "karras"
    if kind == "DDIMScheduler":
        return target(DDIM, spacing=spacing)
    if kind == "DEISMultistepScheduler":
        return target(DEIS, spacing=spacing, order=min(int(scheduler.get("solver_order", 2)), 3))
    stochastic = str(scheduler.get("algorithm_type")).startswith("sde-")
    return target(DPMSolver, spacing=spacing, stochastic=stochastic)


SPACINGS = {"linspace": "uniform", "leading": "leading", "trailing": "trailing"}
"""Ours by theirs."""


def _network(model: Mapping[str, Any], weights: Mapping[str, Tensor]) -> UNet:
    """The network of a run, with these weights. Their shapes say what its program gave it."""
    if model["_target_"] not in (target(UNet)["_target_"], "ddpm.networks.UNet"):
        raise ValueError(f"model {model['_target_']}: a DDPMPipeline holds a UNet, and this is none")
    arguments = {name: model[name] for name in inspect.signature(UNet).parameters if name in model}
    arguments["in_channels"] = weights["conv_in.weight"].shape[1]
    arguments["out_channels"] = weights["conv_out.weight"].shape[0]
    arguments["num_classes"] = len(weights["classes.weight"]) if "classes.weight" in weights else None
    network = outlined(lambda: UNet(**arguments), weights)
    network.load_state_dict(weights, assign=True)
    return network


def _model_config(network: UNet) -> dict[str, Any]:
    """Every argument of the network but those that the program gives, plain containers."""
    names = inspect.signature(UNet).parameters
    return network_of(UNet, **{name: getattr(network, name) for name in names})[1]


def _scheduler_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `DDPMScheduler` that draws as our ancestral sampler does."""
    names = {}
    for group, known in (("objective", OBJECTIVES), ("variance", VARIANCES)):
        named = config[group]["_target_"]
        names[group] = next((name for name, ours in known.items() if target(ours)["_target_"] == named), None)
        if names[group] is None:
            raise ValueError(f"{group} {named.rpartition('.')[2]}: diffusers' DDPMScheduler has none such")
    betas = schedule_of(config["schedule"]).betas.tolist()
    return {
        "_class_name": "DDPMScheduler",
        **SCHEDULER_DEFAULTS,
        "num_train_timesteps": len(betas),
        "beta_start": betas[0],
        "beta_end": betas[-1],
        "trained_betas": betas,
        "variance_type": names["variance"],
        "prediction_type": names["objective"],
        "clip_sample": config["clip_x_0"],
    }


def schedule_of(config: Mapping[str, Any]) -> NoiseSchedule:
    """A schedule of this project, as a checkpoint's configuration has it.

    Raises:
        ValueError: where it is somebody else's.
    """
    module, _, name = config["_target_"].rpartition(".")
    function = getattr(schedules, name, None)
    if function is None or module != schedules.__name__ or function.__module__ != module:
        raise ValueError(f"schedule {config['_target_']}: is not of this project, so its betas are unknown")
    return function(**{key: value for key, value in config.items() if not key.startswith("_")})


def _scheduler_settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[float]]:
    """The parts of a run's configuration that a `DDPMScheduler` decides, and its betas.

    The schedule is None where it is only listed, and none of ours.
    """
    for key, known in (("prediction_type", OBJECTIVES), ("variance_type", VARIANCES)):
        if given[key] not in known:
            raise ValueError(f"{key}={given[key]}: is none of {', '.join(known)}")
    if given["clip_sample"] and given["clip_sample_range"] != 1:
        raise ValueError(f"clip_sample_range={given['clip_sample_range']}: images are clipped at 1 only")
    if given["thresholding"]:
        raise ValueError("thresholding=True: there is no such option here")
    objective = OBJECTIVES[given["prediction_type"]]
    variance = VARIANCES[given["variance_type"]]
    schedule, betas = _scheduler_betas(given)
    if (given["rescale_betas_zero_snr"] or betas[-1] == 1) and not objective.defined_at_zero_snr:
        raise ValueError(
            f"prediction_type={given['prediction_type']}: says nothing of x_0 where the schedule ends, "
            "at zero signal-to-noise ratio"
        )
    return {**process(schedule, variance, objective), "clip_x_0": bool(given["clip_sample"])}, betas


def _scheduler_betas(given: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[float]]:
    steps, kind, betas = given["num_train_timesteps"], given["beta_schedule"], given["trained_betas"]
    if type(steps) is not int or not 0 < steps <= MOST_STEPS:
        raise ValueError(f"num_train_timesteps={str(steps)[:20]}: must be from 1 to {MOST_STEPS:,}")
    if betas is None:
        if kind in TABLES:
            return None, TABLES[kind](steps, given["beta_start"], given["beta_end"]).tolist()
        if kind not in SCHEDULES:
            raise ValueError(f"beta_schedule={kind}: is none of {', '.join([*SCHEDULES, *TABLES])}")
        config = _named_schedule(kind, steps, given["beta_start"], given["beta_end"])
        return config, schedule_of(config).betas.tolist()
    if len(betas) != steps:
        raise ValueError(f"trained_betas: are {len(betas)}, and num_train_timesteps={steps}")
    listed = NoiseSchedule(torch.tensor(betas, dtype=torch.float64)).betas
    for kind in SCHEDULES if betas[-1] < 1 else ():
        config = _named_schedule(kind, steps, betas[0], betas[-1])
        if torch.allclose(schedule_of(config).betas, listed, rtol=1e-5, atol=1e-7):
            return config, betas
    return None, betas


def _named_schedule(kind: str, steps: int, first: float, last: float) -> dict[str, Any]:
    if kind == "squaredcos_cap_v2":
        return target(SCHEDULES[kind], num_timesteps=steps)
    ends = {"beta_start": first * steps / 1000, "beta_end": last * steps / 1000}  # stated for 1000 steps
    return target(SCHEDULES[kind], num_timesteps=steps, **ends)


def _image_shape(unet: Mapping[str, Any]) -> tuple[int, int, int]:
    size = unet["sample_size"]
    if size is None:
        raise ValueError("sample_size: the UNet2DModel does not say the size of its images")
    height, width = (size, size) if isinstance(size, int) else size
    if not all(type(one) is int and 0 < one <= MOST_PIXELS for one in (height, width)):
        raise ValueError(f"sample_size={str(size)[:40]}: must be from 1 to {MOST_PIXELS:,} pixels")
    return unet["in_channels"], height, width


def _classes(num_classes: int | None, names: Any) -> list[str] | None:
    """The name of each class from `id2label`; its number where it has none."""
    if num_classes is None:
        return None
    numbers = [str(number) for number in range(num_classes)]
    return [str(names.get(n, n)) for n in numbers] if isinstance(names, Mapping) else numbers


def _folder(pipeline_dir: Path, name: str) -> Path:
    """The first published pipelines keep everything in one folder."""
    return pipeline_dir / name if (pipeline_dir / name).is_dir() else pipeline_dir


def _read_json(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        raise ValueError(f"{path}: there is no such file")
    return bounded.json_values(path)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _weights_file(folder: Path) -> Path:
    path = next((folder / name for name in WEIGHTS if os.path.lexists(folder / name)), None)
    if path is None:
        raise ValueError(f"{folder}: holds no {' or '.join(WEIGHTS)}")
    return path


def _read_weights(path: Path, numbers: int) -> dict[str, Tensor]:
    """The tensors in a file of a network of so many numbers.

    Raises:
        ValueError: where it is damaged, or larger than such a network in any precision.
    """
    most = 8 * (numbers + numbers // 8) + MOST_HEADER
    bounded.beginning(path, 0)
    if path.stat().st_size > most:
        raise ValueError(f"{path}: is larger than the network that its configuration describes")
    if path.suffix == ".safetensors":
        return of_safetensors(path)
    try:
        found = checkpoints.guarded_load(path)
        if not (isinstance(found, dict) and all(isinstance(value, Tensor) for value in found.values())):
            raise ValueError("it holds more than tensors")
        return found
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ValueError(f"{path}: cannot be read ({said})") from error
