"""What the site has beside docs/: README and its like as pages, files that a page links to, MathJax.

Links are written for the files, as they lie in the repository; here they are turned into those of the site.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

PAGES = {
    "README.md": "index.md",
    "README.zh.md": "zh/index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "logs/README.md": "logs.md",
}
"""Files outside docs/ that are pages."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs with the files of docs/."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    config.nav = [*(config.nav or []), *_more(files, config)]
    for path in sorted(_linked(files)):
        files.append(File.generated(config, f"source/{path}.md", content=_as_page(ROOT / path)))
    files.append(File.generated(config, "site/tex-svg.js", abs_src_path=str(_mathjax())))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Called by mkdocs for each page."""
    here = page.file.src_uri
    origin = {site: path for path, site in PAGES.items()}.get(here, f"docs/{here}")
    if here.startswith("source/"):
        return markdown
    return _outside_code(markdown, lambda text: LINK.sub(lambda link: _link(link[1], origin, here), text))


def _link(target: str, origin: str, here: str) -> str:
    """The site's link from the page `here` for what `target` means in the file `origin`."""
    path = _in_repository(origin, target)
    if path in PAGES:
        site = PAGES[path]
    elif path.startswith("docs/"):
        site = path.removeprefix("docs/")
    else:
        site = f"source/{path}.md"
    return os.path.relpath(site, PurePosixPath(here).parent)


def _linked(files: Files) -> set[str]:
    """Files and folders outside docs/ that pages link to, as paths in the repository."""
    sources = [(f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    sites = {f"docs/{site}": path for path, site in PAGES.items()}
    found = set()
    for origin, text in sources:
        links: list[str] = []
        _outside_code(text, lambda part, links=links: links.extend(LINK.findall(part)) or part)
        found |= {_in_repository(sites.get(origin, origin), link) for link in links}
    outside = {path for path in found if path not in PAGES and not path.startswith("docs/")}
    for path in outside:
        if not (ROOT / path).exists():
            raise PluginError(f"a page links to {path}, which there is not")
    return outside


def _in_repository(origin: str, target: str) -> str:
    return os.path.normpath(PurePosixPath(origin).parent / target)


def _outside_code(markdown: str, change: Any) -> str:
    """A page with its text changed, and its blocks of code left alone."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


def _as_page(path: Path) -> str:
    """A file as a page, or a folder as all of its files."""
    shown = [path] if path.is_file() else sorted(path.glob("*.*"))
    blocks = [f"```` {path.suffix[1:]}\n{path.read_text(encoding='utf-8')}\n````" for path in shown]
    names = [f"`{path.relative_to(ROOT)}`" for path in shown]
    title = f"---\nsearch:\n  exclude: true\n---\n# {path.relative_to(ROOT)}\n"
    return "\n\n".join([title, *(part for both in zip(names, blocks, strict=True) for part in both)])


def _more(files: Files, config: MkDocsConfig) -> list[Any]:
    """What mkdocs.yml's nav does not name."""
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    others = sorted(file.src_uri for file in files.documentation_pages() if file.src_uri not in named)
    return [{"More": others}] if others else []


def _mathjax() -> Path:
    """The script of the package that holds MathJax, which is no more than its files."""
    import mathjax

    return Path(mathjax.__file__).parent / "static" / "mathjax" / "es5" / "tex-svg.js"
