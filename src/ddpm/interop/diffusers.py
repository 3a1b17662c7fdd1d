"""Whole runs to and from the directories that `diffusers.DDPMPipeline` loads. diffusers is not needed."""

import inspect
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm import bounded
from ddpm.interop import run_directory, schedulers, sums
from ddpm.interop.foreign import Foreign, network_of, target
from ddpm.interop.unet2d import (
    DEFAULTS,
    modern_settings,
    unet_from_diffusers,
    unet_settings,
    unet_to_diffusers,
)
from ddpm.interop.weights import MOST_HEADER, of_safetensors
from ddpm.networks.unet import UNet
from ddpm.training import checkpoints
from ddpm.training.outline import outlined

logger = logging.getLogger(__name__)

WRITTEN_FOR = "0.36.0"
"""The version of diffusers that exported pipelines name as their origin."""

PIPELINES = ("DDPMPipeline", "DDIMPipeline", "AudioDiffusionPipeline")
"""Pipelines that are a U-Net and a scheduler; what is drawn by the last are pictures of sound."""

REFUSED = {
    "PNDMPipeline": "no sampler here takes its steps; with DDIMPipeline in place of it in model_index.json, "
    "the same model draws by DDIM",
    "LDMPipeline": "its U-Net draws latents, which a VQModel decodes, and none does here; with DDIMPipeline "
    "in place of it in model_index.json, and without vqvae, the U-Net alone is imported and draws latents",
    "DiTPipeline": "diffusers conditions its transformer on other frequencies of the timestep than those it "
    "was trained with; import the file that it was made from, as DiT-XL-2-256x256.pt, which is kind=dit",
    "ScoreSdeVePipeline": "its U-Net is NCSN++ and is conditioned on sigma, which grows to a thousand times "
    "the image; no network here does",
    "KarrasVePipeline": "its U-Net is NCSN++ and is conditioned on sigma, which grows to a hundred times the "
    "image; no network here does",
    "ConsistencyModelPipeline": "its network leads from any noise to the image at once, and predicts no step "
    "of a chain",
}
"""Pipelines of single pictures that cannot be imported, and why."""

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
    scheduler = schedulers.scheduler_config(config)
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
    where it is. The scheduler gives the sampler that is nearest to it here, with its spacing; a warning names
    the settings that it does not have.

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
    kind = _index(pipeline_dir)
    folders = {name: _folder(pipeline_dir, name) for name in ("unet", "scheduler")}
    configs = {name: folders[name] / f"{file}.json" for name, file in CONFIGS.items()}
    weights_file = _weights_file(folders["unet"])
    sums.check(pipeline_dir, [pipeline_dir / "model_index.json", *configs.values(), weights_file])
    unet = {**DEFAULTS, **modern_settings(_read_json(configs["unet"]))}
    names = unet.pop("id2label", None)
    scheduler = schedulers.complete(kind, _read_json(configs["scheduler"]))
    config, betas = schedulers.parts(kind, scheduler)
    image_shape = _image_shape(unet)
    if unet["out_channels"] != image_shape[0] * (
        1 + schedulers.VARIANCES[scheduler["variance_type"]].outputs
    ):
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
    classes = _classes(network.num_classes, names)
    listed = betas if config["schedule"] is None else None
    model = Foreign(config, network, image_shape, classes, lambda _: network.state_dict(), listed)
    if unfollowed := schedulers.unfollowed(kind, scheduler):
        logger.warning(
            "%s: its %s states %s, which no sampler here has: in few steps it draws other images",
            *(pipeline_dir, kind, ", ".join(unfollowed)),
        )
    return model, weights


def _index(pipeline_dir: Path) -> str:
    """The class of the scheduler that a pipeline samples with.

    Raises:
        ValueError: where a part of it is of a class that is not known here.
    """
    index = _read_json(pipeline_dir / "model_index.json")
    pipeline = index.get("_class_name")
    if pipeline in REFUSED:
        raise ValueError(f"{pipeline_dir}: is a {pipeline}: {REFUSED[pipeline]}")
    if pipeline not in PIPELINES:
        raise ValueError(f"{pipeline_dir}: is a {pipeline}, only a {' or '.join(PIPELINES)} can be imported")
    found = {name: (index.get(name) or [None, None])[1] for name in ("unet", "scheduler", "vqvae")}
    if found["unet"] not in OLD_UNETS:
        raise ValueError(f"{pipeline_dir}: its unet is a {found['unet']}, only a UNet2DModel can be")
    if found["vqvae"] is not None:
        raise ValueError(
            f"{pipeline_dir}: its U-Net draws latents, and is not imported with the {found['vqvae']} that "
            "decodes them; without vqvae in model_index.json, it is imported alone and draws latents"
        )
    scheduler = str(found["scheduler"])
    if pipeline == "DDIMPipeline" and scheduler in (*schedulers.LEFT_OUT, *schedulers.OTHER_STEPS):
        return "DDIMScheduler"  # which it makes of each of them
    if scheduler in schedulers.OTHER_STEPS:
        raise ValueError(
            f"{pipeline_dir}: its scheduler is a {scheduler}, whose steps no sampler here takes; with "
            "DDIMScheduler in place of it in model_index.json, the same model draws by DDIM"
        )
    if scheduler not in schedulers.LEFT_OUT:
        raise ValueError(
            f"{pipeline_dir}: its scheduler is a {scheduler}, only {', '.join(schedulers.LEFT_OUT)} can be"
        )
    return scheduler


OLD_UNETS = ("UNet2DModel", "UNetUnconditionalModel")
"""The class of the network, and what it was called before diffusers 0.1."""


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
