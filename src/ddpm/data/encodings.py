"""The encoding of words that do not say theirs: UTF-8, or that of Chinese Windows."""

import codecs
from collections.abc import Sequence

UTF_8, UTF_16, CHINESE, LATIN = "UTF-8", "UTF-16", "GB18030", "Latin-1"


def decoded(words: bytes, all_in: str | None = None) -> tuple[str, str]:
    """What is in a file of words, without a mark at its beginning; and its encoding, `LATIN` where none else
    fits.

    Args:
        words: what is in it.
        all_in: the encoding of it and its like, if that is known: few letters alone may fit several.
    """
    if words.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = UTF_16
    else:
        encoding = all_in or guessed([words]) or LATIN
    return words.decode(encoding, "replace").removeprefix("\ufeff"), encoding


def as_bytes(text: str) -> bytes:
    """What Python has read as UTF-8, with bytes that are none kept as lone surrogates, as it was."""
    return text.encode("utf-8", "surrogateescape")


def is_utf_8(text: str) -> bool:
    """Whether none of the bytes of such a text was kept."""
    return not any("\udc80" <= letter <= "\udcff" for letter in text)


def is_surely_utf_8(word: bytes) -> bool:
    """Whether it is UTF-8 with a letter of three bytes or more, as Chinese ones are. Words of GB18030 may
    pass for UTF-8 with letters of two bytes, and hardly for this.
    """
    try:
        return any(letter >= "\u0800" for letter in word.decode(UTF_8))
    except UnicodeDecodeError:
        return False


def guessed(words: Sequence[bytes]) -> str | None:
    """The one encoding of all of these, `UTF_8` or `CHINESE`; None where it is neither.

    Nearly any bytes are words of GB18030, accented letters of Latin-1 before plain ones too. Chinese words
    are mostly of the few thousand letters of GB2312, in which no plain byte takes part.
    """
    whole = b"\n".join(words)
    try:
        whole.decode(UTF_8)
    except UnicodeDecodeError:
        pass
    else:
        return UTF_8
    try:
        letters = [letter for letter in whole.decode(CHINESE) if not letter.isascii()]
    except UnicodeDecodeError:
        return None
    common = len("".join(letters).encode("gb2312", "ignore")) // 2
    return CHINESE if 2 * common > len(letters) else None
