"""A page as a notebook: `python docs/site/notebooks.py docs/notebooks/equations.md` writes equations.ipynb.

What stands between two blocks of Python is a cell of text, and each block a cell of code, so that a page is
read, run and compared as text, and has no outputs that grow old.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```\n?", re.MULTILINE | re.DOTALL)


def notebook(page: str) -> dict[str, Any]:
    """A page of Markdown in the format of notebooks, version 4.5."""
    parts = BLOCK.split(page)  # text and code in turn
    cells = [
        {"cell_type": "code", "execution_count": None, "outputs": []} if i % 2 else {"cell_type": "markdown"}
        for i in range(len(parts))
    ]
    for i, (cell, part) in enumerate(zip(cells, parts, strict=True)):
        cell |= {"id": f"cell-{i}", "metadata": {}, "source": part.strip()}
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [cell for cell in cells if cell["source"]],
        "metadata": {"kernelspec": python, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        written = Path(name).with_suffix(".ipynb").name
        text = json.dumps(notebook(Path(name).read_text(encoding="utf-8")), indent=1, ensure_ascii=False)
        Path(written).write_text(f"{text}\n", encoding="utf-8")
        print(written)
