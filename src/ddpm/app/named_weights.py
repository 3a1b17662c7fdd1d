"""What the log calls the weights that a run draws with."""

from collections.abc import Mapping
from typing import Any

from ddpm.run import Run


def named_weights(run: Run, config: Mapping[str, Any]) -> str:
    """Such as "ema weights", and of an average that was made after training its length.

    Args:
        run: that draws.
        config: of the command line.
    """
    length = run.module.sigma_rel
    return f"{config['weights']} weights" if length is None else f"the average of sigma_rel={length:g}"
