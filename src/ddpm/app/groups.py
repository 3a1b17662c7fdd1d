"""Which keys of a group its constructor is given by the program, and which are the program's own."""

from collections.abc import Sequence
from dataclasses import fields

from ddpm.app.schema import DataSwitches, ModelSwitches

WHOLE = ("experiment", "recipe", "debug", "sweep", "hparams_search")
"""Groups that build nothing: an option of theirs sets keys all over the configuration."""

PROVIDED = {
    "data": ("seed",),
    "model": ("in_channels", "out_channels", "num_classes", "vector_size"),
}
"""Arguments that the program gives to what a group builds, so that nobody types them."""

WITHIN = {"condition": "data/condition"}
"""Groups of train.py and ddpm inspect that stand within another, by the word that a person types for them."""

FIRST_PROVIDED = ("optimizer", "lr_schedule", "ema")
"""Groups whose constructor is given its first argument by the program: parameters, optimizer, network."""

SWITCHES = {
    "data": tuple(field.name for field in fields(DataSwitches)),
    "model": tuple(field.name for field in fields(ModelSwitches)),
}
"""Keys of a group that are for the program, not for what the group builds."""


def provided(path: str, taken: Sequence[str]) -> tuple[str, ...]:
    """The arguments of the constructor at `path`, which takes `taken`, that nobody types."""
    return tuple(taken[:1]) if path in FIRST_PROVIDED else PROVIDED.get(path, ())
