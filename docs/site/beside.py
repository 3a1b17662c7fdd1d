"""Theory beside code: a link to an object of the package, alone on its line, becomes the object's source.

In the file it is a link [`ddpm.diffusion.process.q_sample`](../../src/ddpm/diffusion/process.py), on the site
the lines as they stand in the source, so that the page cannot say anything else than what runs.
"""

import re
from typing import Any

from source import ROOT, find

LINK = re.compile(r"^\[`(ddpm(?:\.\w+)+)`\]\(([^)]+\.py)\)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return LINK.sub(lambda link: _shown(link[1]), markdown)


def _shown(name: str) -> str:
    found = find(name)
    title = f"{name} · {found.path.relative_to(ROOT)}:{found.node.lineno}"
    return f'``` {{.python .beside title="{title}"}}\n{found.text}\n```'
