"""What evaluate.py says of its measurements: the file of all, and a line for each."""

from typing import Any

MEASURED = "metrics.json"
"""What all measurements are written to."""


def summary(name: str, values: dict[str, Any]) -> str:
    """A metric's single figures and intervals on one line."""
    figures = (f"{key} {_shown(value)}" for key, value in values.items() if _shown(value))
    return f"{name}  " + "  ".join(figures)


def _shown(value: Any) -> str:
    """yes; 3.17; [3.1, 3.2]; nothing for what is no figure."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) == 2 and all(isinstance(end, float) for end in value):
        return f"[{value[0]:.6g}, {value[1]:.6g}]"
    return ""
