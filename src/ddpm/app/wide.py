"""Characters that an input method for Chinese or Japanese types in place of those that the programs read."""

import os
import shlex

from ddpm.app.grammar import PATHS
from ddpm.errors import UsageError

NARROW = {wide: chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)} | {
    ord(wide): narrow
    for wide, narrow in {
        "\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u3001": ",", "\u3002": ".",
        "\u3010": "[", "\u3011": "]", "\u3000": " ", "\u300c": '"', "\u300d": '"',
    }.items()
}  # fmt: skip
"""What each stands for: the full-width forms of ASCII, quotes, brackets, comma, full stop and blank."""

DASHES = ("\u2014\u2014", "\u2014", "\u2013\u2013", "\u2013")
"""What becomes of the dashes of a flag."""

TEXT = ("tags", "labels")
"""Keys whose words may hold any of them; the numbers and brackets there may not."""

FREE = ("logger", "logger_many")
"""Groups of which every value is left as it is: names and notes."""

NAMES = (
    "name", "notes", "note", "subdir", "label_column", "image_column", "columns", "key", "path", "file",
    "filename", "reference",
)  # fmt: skip
"""Last parts of keys whose values are names, of files among them."""

WRITTEN = ("out", "hydra.run.dir", "hydra.sweep.dir")
"""Of the paths those that need not be there."""

OPENING, CLOSING, SEPARATING = "\u3010\uff3b", "\u3011\uff3d", frozenset("\uff0c\u3001")
"""Of a list."""

NUMBERS = frozenset("0123456789.,+-eE[](){}\"' ")


def check(text: str) -> None:
    """Refuse a word that an input method has typed otherwise than it was meant.

    In a key every such character is one too many. A value is refused where nothing but plain ASCII is left
    of it once they are as they should be; what holds Chinese letters is text, and so are paths and names.

    Args:
        text: KEY=VALUE, or a flag.

    Raises:
        UsageError: naming the first such character, and the word as it is read.
    """
    narrow = _narrow(text)
    if narrow == text:
        return
    wide = next(letter for letter, own in zip(text, _each(text), strict=True) if letter != own)
    word = _as_typed(narrow)
    plain = _each(wide)[0]
    called = {" ": "a blank"}.get(plain, plain)
    shown = {"\u3000": "U+3000, a full-width blank,"}.get(wide, f"{wide} (U+{ord(wide):04X})")
    raise UsageError(f"{text}: {shown} is no {called}, type {word}")


def _each(text: str) -> list[str]:
    return [NARROW.get(ord(letter), "-" if letter in "\u2013\u2014" else letter) for letter in text]


def _narrow(text: str) -> str:
    """The word as it should be typed; itself where nothing is wrong."""
    for dashes in DASHES:
        if text.startswith(dashes):
            name = text.removeprefix(dashes)
            is_short = len(dashes) == 1 and len(name) == 1
            return f"{'-' if is_short else '--'}{name.translate(NARROW)}"
    at = min((at for sign in "=\uff1d" if (at := text.find(sign)) >= 0), default=len(text))
    key = text[:at].translate(NARROW)
    value = text[at + 1 :]
    return key + ("=" if at < len(text) else "") + _value(key.lstrip("+~"), value)


def _value(key: str, value: str) -> str:
    """A value as it should be typed; itself where it may be meant."""
    narrow = value.translate(NARROW)
    if key in PATHS:
        is_quoted = (
            len(value) > 1
            and value[0] in "\u201c\u2018\uff02\uff07"
            and value[-1] in "\u201d\u2019\uff02\uff07"
        )
        return (
            f'"{value[1:-1]}"' if is_quoted and key not in WRITTEN and not os.path.lexists(value) else value
        )
    if key in TEXT and not NUMBERS.issuperset(narrow):
        is_list = value[:1] in OPENING and value[-1:] in CLOSING and not SEPARATING.isdisjoint(value)
        return f"[{value[1:-1].translate(dict.fromkeys(map(ord, SEPARATING), ','))}]" if is_list else value
    if not narrow.isascii() or key.split(".")[0] in FREE or key.rpartition(".")[2] in NAMES:
        return value
    if "/" in value or "\\" in value or os.path.lexists(value):  # it leads somewhere
        return value
    return narrow


def _as_typed(narrow: str) -> str:
    """Words for a shell; a full-width blank may have parted several."""
    words = narrow.split()
    if len(words) > 1 and all("=" in word or word.startswith("-") for word in words):
        return " ".join(map(shlex.quote, words))
    return shlex.quote(narrow.strip())
