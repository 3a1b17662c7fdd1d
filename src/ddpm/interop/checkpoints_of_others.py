"""What `python -m ddpm import` does: which codebase a checkpoint is of, and the run that it becomes."""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ddpm.diffusion.variances import LearnedRange
from ddpm.interop import dit, ho, openai, pytorch_ddpm, run_directory, weights
from ddpm.interop.diffusers import read_pipeline
from ddpm.interop.foreign import Foreign, target
from ddpm.interop.told import Told
from ddpm.targets import build

KINDS: dict[str, Callable[[Mapping[str, Tensor], Told], Foreign]] = {
    "improved_diffusion": openai.improved,
    "guided_diffusion": openai.guided,
    "pytorch_ddpm": pytorch_ddpm.pytorch_ddpm,
    "dit": dit.dit,
    "ho": ho.ho,
}
"""Codebases whose networks are ours under other names."""

REFUSED = {
    "denoising_diffusion_pytorch": (
        ("init_conv.weight", "time_mlp.1.weight"),
        "its U-Net attends linearly on most levels, to keys and values of its own (mem_kv), begins with a "
        "convolution of 7x7 and halves images by moving pixels into channels; no network here does",
    ),
    "edm": (
        ("map_layer0.weight",),
        "its U-Nets (DDPM++, NCSN++, ADM) weaken skips by the square root of 1/2 and see ln(sigma) / 4; no "
        "network here does",
    ),
    "ncsnpp": (
        ("all_modules.0.weight",),
        "score_sde numbers its layers, and its U-Nets (DDPM++, NCSN++) are no network here",
    ),
}
"""Codebases whose networks are not: weights that they alone have, and why."""


def import_model(source: str | Path, run_dir: str | Path, words: Sequence[str] = ()) -> str:
    """Make a run directory from a model of another codebase, which runs nothing of it.

    Args:
        source: a file of weights, a directory that holds some, or a pipeline of diffusers.
        run_dir: a directory that is empty or does not exist yet.
        words: of a person, NAME=VALUE: `kind`, and what weights do not say, in that codebase's own names.

    Returns:
        What was understood, with everything that was told or assumed.

    Raises:
        ValueError: where it is of no kind that is known, cannot be expressed, or is damaged.
    """
    source = Path(os.path.expanduser(source))
    told = dict(_word(word) for word in words)
    kind = _known(told.pop("kind", ""))
    if kind == "diffusers" or (not kind and (source / "model_index.json").is_file()):
        if told:
            raise ValueError(f"{min(told)}: a pipeline of diffusers says everything itself")
        model, state = read_pipeline(source)
        run_directory.write(Path(run_dir), model, model.ours(state))
        parts = ("schedule", "objective", "variance", "sampler")
        names = {
            part: ((model.config.get(part) or {}).get("_target_") or "").rpartition(".")[2] for part in parts
        }
        said = " ".join(f"{part}={name}" for part, name in names.items() if name)
        return f"{source}: kind=diffusers {said} clip_x_0={model.config['clip_x_0']}"
    run = Path(os.path.expanduser(run_dir)).absolute()
    if run.exists() and not (run.is_dir() and not any(run.iterdir())):
        raise ValueError(f"{run}: exists already; name a new directory")  # before gigabytes are read
    found = weights.read(source)
    kind = kind or _found(found)
    if kind in REFUSED:
        raise ValueError(f"{found.file}: is of {kind}: {REFUSED[kind][1]}")
    settings = Told(told)
    try:
        model = KINDS[kind](found.averaged, settings)
        settings.check(kind)
        build("schedule", model.config["schedule"])  # which may not be with so many steps or such betas
        averaged = model.ours(found.averaged)
        raw = None if found.raw is found.averaged else model.ours(found.raw)
        multiple = getattr(model.network, "size_multiple", 1)
        if any(size % multiple for size in model.image_shape[1:]):
            raise ValueError(f"images of {model.image_shape[1]} pixels cannot be halved so often: {multiple}")
        run_directory.write(run, model, averaged, raw)
    except ValueError as error:
        said = str(error)
        begins = (str(run), *(f"{name}=" for name in told), *(f"{name}:" for name in told))
        raise ValueError(said if said.startswith(begins) else f"{found.file}: as {kind}: {said}") from error
    facts = [f"{sum(weight.numel() for weight in averaged.values()):,} parameters"]
    facts += ["learned sigma"] if model.config["variance"] == target(LearnedRange) else []
    facts += [] if model.classes is None else [f"{len(model.classes)} classes"]
    facts += [] if raw is None else ["averaged and raw"]
    return f"{found.file}: kind={kind} {settings} ({', '.join(facts)})"


def _word(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise ValueError(f"{word}: must be NAME=VALUE, as kind=guided_diffusion")
    return name, value


def _known(kind: str) -> str:
    """A kind as it is spelt here.

    Raises:
        ValueError: where there is none such.
    """
    known = ["diffusers", *KINDS, *REFUSED]
    spelt = kind.lower().replace("-", "_")
    if spelt in ("", *known):
        return spelt
    if spelt == "fast_dit":
        return "dit"
    near = difflib.get_close_matches(spelt, known, n=1)
    meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise ValueError(f"kind={kind}: is not known; {meant}")


def _found(found: weights.Weights) -> str:
    """The kind of weights, by their names."""
    names = found.averaged
    for kind, (marks, _) in REFUSED.items():
        if all(any(name.endswith(mark) for name in names) for mark in marks):
            return kind
    for kind, module in {"dit": dit, "pytorch_ddpm": pytorch_ddpm, "ho": ho}.items():
        if all(mark in names for mark in module.MARKS):
            return kind
    if all(mark in names for mark in openai.MARKS):
        return "guided_diffusion" if openai.is_guided(names) else "improved_diffusion"
    raise ValueError(
        f"{found.file}: is of no kind that is known: {', '.join(sorted(names)[:3])} ...; if it is of one of "
        f"{', '.join(KINDS)}, say kind="
    )
