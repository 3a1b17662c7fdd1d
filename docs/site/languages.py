"""The site in two languages: what surrounds a page below zh/ is Chinese, and each page leads to its twin."""

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

CHINESE = "中文"
"""The part of the menu that comes first on Chinese pages, and the name of the language."""

_addresses: dict[str, str] = {}


def on_nav(nav: Navigation, *, files: Files, **_: Any) -> None:
    """Called by mkdocs when every page is known."""
    _addresses.clear()
    _addresses.update({file.src_uri: file.url for file in files.documentation_pages()})


def on_page_context(context: Any, page: Page, config: MkDocsConfig, nav: Navigation, **_: Any) -> Any:
    """Called by mkdocs before each page is laid out."""
    here = page.file.src_uri
    config.theme["language"] = "zh" if here.startswith("zh/") else "en"
    english = here.removeprefix("zh/")
    config.extra["alternate"] = [
        {"name": "English", "lang": "en", "link": _addresses[english]},
        {"name": CHINESE, "lang": "zh", "link": _addresses.get(f"zh/{english}", _addresses["zh/index.md"])},
    ]
    if config.theme["language"] == "zh":
        items = sorted(nav.items, key=lambda item: item.title != CHINESE)
        context["nav"] = Navigation(items, nav.pages)
    return context
