"""The model card of an exported run: the README.md by which a model hub shows what a model is.

It says what the run's directory says, and nothing else. Every text in it may be a stranger's: names of
classes, of data and of directories are written so that YAML and Markdown take them as text.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from ddpm.data.skipped import printable
from ddpm.report.differences import shown
from ddpm.report.views import duration, figure

NAME = "README.md"

PICTURE = "samples.png"
"""The grid of samples beside the card."""

MOST_CLASSES = 100
"""That are named."""

MOST_CHARACTERS = 200
"""Of a text from data."""

MEASURES = {
    "bits_per_dim": "bits per dimension of held-out images",
    "coverage": "coverage",
    "density": "density",
    "fd": "Fréchet distance of the extractor's features",
    "fid": "Fréchet Inception distance",
    "is": "Inception score",
    "kid": "kernel Inception distance",
    "mifid": "memorisation-informed Fréchet Inception distance",
    "nearest": "distance to the nearest training image, as a share of that of held-out images",
    "own_label": "share of samples that are of their class",
    "precision": "precision",
    "recall": "recall",
}
"""What measures are called in words."""

TASK = "unconditional-image-generation"
"""As hubs call what such a model does."""

PARTS = {
    "model": "network",
    "objective": "objective",
    "schedule": "schedule",
    "variance": "variance",
    "weighting": "weighting",
    "optimizer": "optimizer",
    "lr_schedule": "learning rate",
    "ema": "average of the weights",
}
"""Groups of the configuration that a card tells, and how it calls them."""

OF_THE_CHAIN = ("model", "objective", "schedule", "variance")
"""Those that sampling depends on too."""

MEANT = re.compile(r"[\\`*_{}\[\]<>#|~&$!:@^]")
"""Characters that mean something to Markdown within a line, or that make a link of a bare address."""


@dataclass(frozen=True)
class Value:
    """A value that was measured.

    Attributes:
        name: its full name, fid50k_train_inception_ema_ddim50.
        measure: what was measured, fid; empty where it has no such name.
        value: finite.
        interval: in which it lies with probability 0.95, or None.
        step: completed optimizer steps of what was measured, or None.
        weights: "ema" or "raw"; empty where that makes no difference or is not known.
    """

    name: str
    measure: str
    value: float
    interval: tuple[float, float] | None = None
    step: int | None = None
    weights: str = ""


@dataclass(frozen=True)
class Model:
    """What is known of an exported run.

    Attributes:
        name: of the model.
        step: completed optimizer steps of its weights.
        config: the run's configuration, nested.
        data: what the checkpoint says of the data: `image_shape`, `classes` ...
        record: what run.json says; empty where there is none.
        values: that were measured.
        num_timesteps: of its chain.
        picture: whether a grid of samples lies beside the card.
        repository: where the card will be found on the hub, OWNER/NAME, or None.
    """

    name: str
    step: int
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    num_timesteps: int
    record: Mapping[str, Any] = field(default_factory=dict)
    values: Sequence[Value] = ()
    picture: bool = False
    repository: str | None = None

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes that it was conditioned on."""
        return [str(name) for name in self.data["classes"] or []] if self.config.get("conditional") else None

    @property
    def measured(self) -> list[Value]:
        """Values of the very weights that were exported."""
        return [one for one in self.values if one.measure and one.step == self.step and one.weights != "raw"]


def card(model: Model) -> str:
    """The file: front matter in YAML, then Markdown."""
    front = yaml.safe_dump(_front(model), sort_keys=False, allow_unicode=True, width=math.inf)
    parts = [
        f"---\n{front}# license: yours to name before others use the model, such as apache-2.0\n---",
        f"# {text(model.name)}",
        _what(model),
        f"![Samples at step {model.step:,}]({PICTURE})" if model.picture else "",
        "## Data",
        _pairs(_data(model)),
        "## Training",
        _pairs(_training(model)),
        *_measurements(model),
        "## Use",
        _use(model),
        *_limits(model),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def text(value: Any) -> str:
    """A value as Markdown shows it, on one line, whatever is in it."""
    plain = " ".join(printable(shown(value)).split())
    plain = plain if len(plain) <= MOST_CHARACTERS else f"{plain[: MOST_CHARACTERS - 3]}..."
    return MEANT.sub(lambda found: f"\\{found[0]}", plain)


def hub_data(config: Mapping[str, Any]) -> str | None:
    """The data set of the Hugging Face hub that a run was trained on, where it came from there."""
    data = config.get("data")
    if not isinstance(data, Mapping) or not str(data.get("_target_")).endswith(".Hub") or data.get("path"):
        return None
    name = data.get("name")
    return name if isinstance(name, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII) else None


def _front(model: Model) -> dict[str, Any]:
    front: dict[str, Any] = {"library_name": "diffusers"}
    if model.classes is None:
        front["pipeline_tag"] = TASK
    front["tags"] = ["ddpm", "diffusion-models", *([] if model.classes is None else ["class-conditional"])]
    if (data := hub_data(model.config)) is not None:
        front["datasets"] = [data]
    if model.measured:
        name = printable(_data_name(model))
        metrics = [{"type": one.measure, "name": one.name, "value": one.value} for one in model.measured]
        front["metrics"] = list(dict.fromkeys(one.measure for one in model.measured))
        front["model-index"] = [
            {
                "name": printable(model.name),
                "results": [
                    {
                        "task": {"type": TASK if model.classes is None else "image-generation"},
                        "dataset": {"type": data or name, "name": name},
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return front


def _what(model: Model) -> str:
    channels, height, width = model.data["image_shape"]
    kind = {1: "grey ", 3: "colour "}.get(channels, "")
    what = f"{kind}images of {height} x {width} pixels" + ("" if kind else f" and {channels} channels")
    if model.data.get("latents"):
        what = f"latents of {channels} x {height} x {width}, which an autoencoder makes images of"
    conditioned = "" if model.classes is None else f", conditioned on {len(model.classes)} classes"
    versions = model.record.get("versions")
    by = text(versions["ddpm"]) if isinstance(versions, Mapping) and versions.get("ddpm") else ""
    return (
        "A denoising diffusion probabilistic model "
        "([Ho et al. 2020](https://arxiv.org/abs/2006.11239)) that draws "
        f"{what}{conditioned}, as diffusers' `DDPMPipeline` reads it."
        f"{by and f' It was trained by ddpm {by}.'}"
    )


def without_path(value: Any) -> Any:
    """A value of a configuration; of a path on somebody's machine its last part."""
    if isinstance(value, str) and re.match(r"(/|~|[A-Za-z]:[/\\])", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def _data_name(model: Model) -> str:
    """Of a data set: its own, that of its file or folder, or that of its option. No path is told whole."""
    data = model.config.get("data")
    data = data if isinstance(data, Mapping) else {}
    if data.get("name"):
        return str(without_path(str(data["name"])))
    if data.get("path"):
        return re.split(r"[/\\]", str(data["path"]).rstrip("/\\"))[-1]
    choices = model.record.get("choices")
    if isinstance(choices, Mapping) and choices.get("data"):
        return str(choices["data"])
    return str(data.get("_target_", "")).rpartition(".")[2].lower() or "unknown"


def _data(model: Model) -> dict[str, str]:
    data = model.data
    channels, height, width = data["image_shape"]
    rows = {"name": text(_data_name(model))}
    if isinstance(number := data.get("num_train"), int) and number:
        held = data.get("num_validation")
        rows["images"] = f"{number:,} to train on, {held if isinstance(held, int) else 0:,} held out"
    rows["size"] = f"{height} x {width} pixels, {channels} channel{'s' if channels > 1 else ''}"
    if data.get("classes"):
        names = [text(name) for name in data["classes"]]
        more = f", and {len(names) - MOST_CLASSES:,} more" if len(names) > MOST_CLASSES else ""
        own = "" if model.classes is not None else ", which the model does not know"
        rows["classes"] = f"{len(names):,}: {', '.join(names[:MOST_CLASSES])}{more}{own}"
    if data.get("fingerprint"):
        rows["fingerprint"] = text(data["fingerprint"])
    return rows


def _training(model: Model) -> dict[str, str]:
    config, record = model.config, model.record
    rows = {"steps": f"{model.step:,}"}
    parts = PARTS
    if not model.step:  # of an imported run, whose configuration is what it could go on with
        rows["steps"] += "; of what it learned elsewhere nothing is known here"
        parts = {group: heading for group, heading in PARTS.items() if group in OF_THE_CHAIN}
    data, trainer = config.get("data"), config.get("trainer")
    if model.step and isinstance(data, Mapping) and data.get("batch_size"):
        rows["batch"] = f"{text(data['batch_size'])} images, of all devices together"
    for group, heading in parts.items():
        if isinstance(config.get(group), Mapping) and "_target_" in config[group]:
            rows[heading] = _built(config[group])
    if isinstance(parameters := record.get("parameters"), int):
        rows["network"] = f"{parameters:,} parameters, {rows.get('network', '')}".rstrip(", ")
    if config.get("init"):
        rows["began with"] = "the weights of another run"
    if isinstance(trainer, Mapping) and trainer.get("gradient_clip_val"):
        clip = (trainer.get("gradient_clip_algorithm") or "norm", trainer["gradient_clip_val"])
        rows["gradients"] = f"clipped by {text(clip[0])} at {text(clip[1])}"
    if record.get("precision"):
        rows["precision"] = text(record["precision"])
    if isinstance(devices := record.get("devices"), Mapping):
        rows["devices"] = f"{text(devices.get('number'))} x {text(devices.get('kind'))}"
    if isinstance(seconds := record.get("wall_seconds"), int | float):
        rows["time"] = duration(seconds)
    if model.step and isinstance(config.get("seed"), int):
        rows["seed"] = str(config["seed"])
    if isinstance(git := record.get("git"), Mapping) and git.get("commit"):
        rows["commit"] = f"{text(git['commit'])}{', with changes' if git.get('changed') else ''}"
    if isinstance(versions := record.get("versions"), Mapping):
        rows["versions"] = ", ".join(f"{text(name)} {text(own)}" for name, own in versions.items())
    return rows


def _built(node: Mapping[str, Any]) -> str:
    """What a part of the configuration builds: linear(num_timesteps=1000, beta_end=0.02)."""
    name = str(node["_target_"]).rpartition(".")[2]
    arguments = {
        key: without_path(value)
        for key, value in node.items()
        if not str(key).startswith("_") and value is not None
    }
    inside = ", ".join(f"{text(key)}={text(value)}" for key, value in arguments.items())
    return f"{text(name)}({inside})" if inside else text(name)


def _pairs(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {heading} | {row} |" for heading, row in rows.items())])


def _measurements(model: Model) -> list[str]:
    if not model.values:
        return []
    lines = ["| name | value | 95 % interval | what | of |", "|---|---|---|---|---|"]
    for one in model.values:
        ends = "" if one.interval is None else f"{figure(one.interval[0])} to {figure(one.interval[1])}"
        step = "" if one.step is None else f"step {one.step:,}"
        raw = "without averaging the weights" if one.weights == "raw" else ""
        of = ", ".join(part for part in (step, raw) if part)
        what = MEASURES.get(one.measure, text(one.measure))
        lines.append(f"| {text(one.name)} | {figure(one.value)} | {ends} | {what} | {of} |")
    return ["## Measurements", "\n".join(lines)]


def _use(model: Model) -> str:
    repository = model.repository
    if repository is None:
        head = 'directory = "."  # where this file lies'
    else:
        head = "from huggingface_hub import snapshot_download\n\n"
        head += f'directory = snapshot_download("{repository}")'
    return "\n\n".join(
        [
            f"```python\n{head}\n```",
            "With diffusers:",
            f"```python\n{_with_diffusers(model)}\n```",
            "With ddpm, in fewer steps:",
            f"```python\n{_with_ddpm(model)}\n```",
        ]
    )


def _with_diffusers(model: Model) -> str:
    channels, height, width = model.data["image_shape"]
    steps = model.num_timesteps
    if model.classes is None:
        return (
            "from diffusers import DDPMPipeline\n\n"
            "pipeline = DDPMPipeline.from_pretrained(directory)\n"
            f"images = pipeline(batch_size=4, num_inference_steps={steps}).images  # of PIL"
        )
    return (
        "import torch\nfrom diffusers import DDPMPipeline\n\n"
        "pipeline = DDPMPipeline.from_pretrained(directory)\n"
        f"labels = torch.arange({min(4, len(model.classes))})"
        '  # their names are in pipeline.unet.config["id2label"]\n'
        f"x_t = torch.randn(len(labels), {channels}, {height}, {width})\n"
        f"pipeline.scheduler.set_timesteps({steps})\n"
        "with torch.no_grad():\n"
        "    for t in pipeline.scheduler.timesteps:\n"
        "        output = pipeline.unet(x_t, t, class_labels=labels).sample\n"
        "        x_t = pipeline.scheduler.step(output, t, x_t).prev_sample\n"
        "images = (x_t / 2 + 0.5).clamp(0, 1)  # [B, C, H, W]"
    )


def _with_ddpm(model: Model) -> str:
    labels = "" if model.classes is None else "labels=0, "
    steps = min(50, model.num_timesteps)
    return (
        "import ddpm\nfrom ddpm.interop.diffusers import import_pipeline\n\n"
        'run = ddpm.load(import_pipeline(directory, "imported_run"))\n'
        f'images = run.sample(4, {labels}sampler="ddim", num_steps={steps}, seed=0)'
        "  # [B, C, H, W] in [-1, 1]"
    )


def _limits(model: Model) -> list[str]:
    """What the run's directory says against the model, if anything."""
    said = []
    trainer = model.config.get("trainer")
    most = trainer.get("max_steps") if isinstance(trainer, Mapping) else None
    if isinstance(most, int) and 0 < model.step < most:
        said.append(f"It is not trained to its end: {model.step:,} of {most:,} steps.")
    if model.classes is not None:
        said.append("A `DDPMPipeline` cannot choose a class, so its two parts are used in a loop, as above.")
    guidance = model.config.get("guidance") or {}
    if str(guidance.get("_target_", "")).endswith((".ClassifierFree", ".Autoguidance")):
        said.append(f"The run's own samples are guided, {_built(guidance)}; these files are without that.")
    return ["## Limits", "\n".join(f"- {line}" for line in said)] if said else []
