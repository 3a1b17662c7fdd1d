"""How many devices share the work."""


def auto() -> str:
    """Lightning's own choice: a single device alone, several by DDP."""
    return "auto"
