"""The texts of pages in their languages, and the language of the system."""

import locale
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("texts.yaml")
"""Those of the report."""

LANGUAGES = {"en": "English", "zh": "中文"}
"""By code, as each calls itself."""


@cache
def texts(file: Path = FILE) -> Mapping[str, Mapping[str, str]]:
    """Every text of a file by key and language."""
    found: Mapping[str, Mapping[str, str]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def text(key: str, language: str, values: Mapping[str, Any] | None = None, file: Path = FILE) -> str:
    """A text with its values put in.

    Raises:
        KeyError: where there is no such text, or a value is missing.
    """
    return texts(file)[key][language].format_map(values or {})


def of_the_system() -> str:
    """The language that the environment asks for, English where it asks for none that there is."""
    asked = next(
        (found for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (found := os.environ.get(name))), None
    )
    if asked is None:
        try:
            asked = locale.getlocale()[0]
        except ValueError:  # of a locale that Python cannot read
            asked = None
    return "zh" if (asked or "").lower().startswith(("zh", "chinese")) else "en"
