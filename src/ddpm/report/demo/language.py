"""What the page says, in its languages."""

from functools import partial
from pathlib import Path
from typing import Any

from ddpm.errors import UsageError
from ddpm.report.texts import text

FILE = Path(__file__).with_name("texts.yaml")

say = partial(text, file=FILE)
"""(key, language, values) -> the text."""


class RefusalError(UsageError):
    """What was asked for on the page cannot be done; one sentence says why, in the language of the page.

    Args:
        key: of the sentence.
        values: that it names.
    """

    def __init__(self, key: str, **values: Any):
        super().__init__(say(key, "en", values))
        self.key = key
        self.values = values


def sentence(error: Exception, language: str) -> str:
    """What an error says to the person in front of the page."""
    if isinstance(error, RefusalError):
        return say(error.key, language, error.values)
    return " ".join(str(error).split()) or type(error).__name__
