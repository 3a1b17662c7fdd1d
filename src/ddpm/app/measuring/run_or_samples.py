"""Whether evaluate.py measures a run or images that are there, and which keys belong to which."""

from collections.abc import Mapping
from typing import Any

from ddpm.app.grammar import absolute
from ddpm.errors import UsageError

OF_A_RUN: dict[str, Any] = {
    "sampler": {},
    "guidance": {},
    "variance": {},
    "weights": "ema",
    "sigma_rel": None,
    "batch_size": None,
    "channels_last": None,
    "compile": None,
}
"""Keys that say how a run's network is used, with what they are where nobody sets them."""

PRECISION = "32-true"


def check(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that names neither or both, or that sets what nothing would use.

    Args:
        config: of evaluate.py, checked but for this.

    Raises:
        UsageError: naming the key.
    """
    ckpt, samples = config["ckpt"], config["samples"]
    if not ckpt and not samples:
        raise UsageError(
            "ckpt and samples: nothing says what is to be measured; name a trained run by ckpt=RUN_DIR, or "
            "images by samples=DIR, a folder of pictures, or samples=FILE.npz"
        )
    if not samples:
        return
    if ckpt:
        raise UsageError(
            "ckpt and samples: give one; ckpt draws from a run and measures that, samples measures images "
            "that are there"
        )
    if not absolute(samples).exists():
        raise UsageError(f"samples={samples}: there is no such folder or file; check the spelling")
    for key, unset in OF_A_RUN.items():
        if config[key] != unset:
            raise UsageError(
                f"{key}: is of a run that draws, and samples={samples} are drawn already; leave it out"
            )
    if config["trainer"]["precision"] not in (PRECISION, "auto"):
        raise UsageError(
            f"trainer.precision={config['trainer']['precision']}: is of a run that draws, and "
            f"samples={samples} are drawn already; leave it out (extractor.bf16=true is the extractor's)"
        )
    if "_target_" not in config["data"]:
        raise UsageError(
            "data: nothing says what samples are compared with; choose data=OPTION, such as data=cifar10 or "
            "data=folder data.path=DIR"
        )
