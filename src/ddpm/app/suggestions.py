"""What a key that does not exist was meant to be."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ddpm import targets
from ddpm.app.groups import provided
from ddpm.migration import MOVED

SYNONYMS = {
    "trainer.devices": ("gpus", "num_gpus", "n_gpus"),
    "trainer.max_steps": ("steps", "num_steps", "iterations", "epochs", "max_epochs"),
    "sampler.num_steps": ("steps", "num_steps", "num_inference_steps", "sampling_steps", "timesteps"),
    "schedule.num_timesteps": ("T", "num_train_timesteps", "diffusion_steps", "noise_steps"),
    "optimizer.lr": ("learning_rate", "base_lr"),
    "data.image_size": ("size", "resolution"),
    "data.path": ("dataset", "data_path"),
    "logger.wandb.project": ("wandb",),
    "ckpt": ("resume", "checkpoint", "resume_from", "ckpt_path"),
    "model": ("net", "network"),
}
"""What keys are called elsewhere."""


def unknown(key: str, valid: Iterable[str]) -> str:
    """The message for a key that does not exist, with the nearest that does."""
    if key in MOVED:
        return f"{key}: is now {MOVED[key]}"
    parent, _, name = key.rpartition(".")
    valid = sorted(valid)
    if key == "data.path":  # an option that makes or downloads its images
        return f"{key}: this data has no such key; a folder of pictures of your own is data=folder {key}=PATH"
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    prefix = f"{parent}." if parent else ""
    hint = f"did you mean {prefix}{near[0]}?" if near else f"valid here: {', '.join(valid) or 'nothing'}"
    return f"{key}: there is no such key; {hint}"


def unknown_at_top(key: str, config: Mapping[str, Any], valid: set[str]) -> str:
    """A key that stands at the top often belongs to a group: `lr` to the optimizer."""
    if key in MOVED:
        return f"{key}: is now {MOVED[key]}"
    inner = sorted(set(_settable(config)))
    if key == "out":
        return f"{key}: there is no such key; hydra.run.dir=DIR says where files are written"
    known = [ours for ours, theirs in SYNONYMS.items() if key in theirs and (ours in inner or ours in valid)]
    meant = known + [name for name in inner if name.rpartition(".")[2] == key and name not in known]
    meant = meant or difflib.get_close_matches(key, sorted(valid), n=1, cutoff=0.75)
    leaves = {name.rpartition(".")[2] for name in inner}
    for leaf in difflib.get_close_matches(key, sorted(leaves), n=1, cutoff=0.8) if not meant else ():
        meant = [name for name in inner if name.rpartition(".")[2] == leaf]
    if meant:
        return f"{key}: there is no such key; did you mean {' or '.join(meant[:3])}?"
    return f"{key}: there is no such key; valid here: {', '.join(sorted(valid))}"


def _settable(config: Mapping[str, Any]) -> Iterator[str]:
    """The keys of what the groups build, also those that only our constructors know."""
    for group, node in config.items():
        if not isinstance(node, Mapping):
            continue
        yield from _settable_in(group, node)
        for name, child in node.items():
            if "_target_" not in node and isinstance(child, Mapping):  # of a mapping of objects
                yield from _settable_in(f"{group}.{name}", child)


def _settable_in(path: str, node: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{path}.{name}" for name in node if name not in targets.NODE_KEYS)
    if isinstance(node.get("_target_"), str) and targets.is_ours(node["_target_"]):
        taken = targets.parameters(path, node["_target_"]).names
        yield from (f"{path}.{name}" for name in taken if name not in provided(path, taken))
