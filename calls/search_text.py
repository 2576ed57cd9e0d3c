"""What is indexed for the search besides the texts: scripts without spaces, and numbers by their end.

Databases divide text into words at spaces. Chinese, Japanese, Thai and others have none between words, and
Korean joins particles to them. So each of their characters becomes a word of its own, and a query for several
is a query for adjacent words. Compatibility forms, such as full-width letters, become the usual ones.

Pure, except for the fields, which compute their value from another field whenever a row is saved.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from django.db import models

MAX_WORDS = 8  # of a query

# Word separators: whitespace, control characters, ASCII punctuation, common other punctuation, and
# characters that no database stores. Not `\W`: it also splits at the vowel signs of many scripts.
_WORD = re.compile(
    r"[^\x00-/:-@\[-`{-\xa1\xab\xb7\xbb\xbf\u2010-\u2027\u2030-\u205e\u3000-\u3003\ud800-\udfff]+"
)

# Thai, Lao, Tibetan, Burmese; Hangul; Khmer; kana, Bopomofo and Hangul letters; ideographs; syllables.
UNSPACED = (
    r"\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u19e0-\u19ff\u3005-\u3007\u3040-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{UNSPACED}]")


def normalize(text: str) -> str:
    """In the usual forms of characters, composed, and in lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def split_words(text: str) -> list[str]:
    """The first `MAX_WORDS` words of a query."""
    words = (word for word in _WORD.findall(normalize(text)) if any(map(str.isalnum, word)))
    return list(words)[:MAX_WORDS]


def separate(text: str) -> str:
    """With a space around each character of a script without spaces; vowel signs and accents stay on it."""
    if not _UNSPACED.search(text):
        return text
    parts: list[str] = []
    is_unspaced = False
    for char in text:
        if is_unspaced and unicodedata.category(char).startswith("M"):
            parts[-1] += char
            continue
        was_unspaced, is_unspaced = is_unspaced, _UNSPACED.match(char) is not None
        parts.append(f" {char}" if is_unspaced or was_unspaced else char)
    return "".join(parts).strip()


def build_search_text(text: str) -> str | None:
    """What is indexed in addition to the text; None where its own words are enough."""
    normalized = normalize(text)
    if _UNSPACED.search(normalized):
        return separate(normalized)
    return normalized if _WORD.findall(normalized) != _WORD.findall(text.lower()) else None


def reverse_digits(number: str) -> str:
    """The digits of a phone number in reverse, so that its end is their start. Empty for an address."""
    return "".join(char for char in reversed(number) if char.isdigit()) if number.startswith("+") else ""


class SearchTextField(models.TextField):  # type: ignore[type-arg]
    """`build_search_text` of the row's `text`."""

    def pre_save(self, model_instance: Any, add: bool) -> str | None:
        value = build_search_text(model_instance.text)
        setattr(model_instance, self.attname, value)
        return value


class ReversedDigitsField(models.CharField):  # type: ignore[type-arg]
    """`reverse_digits` of another field of the row."""

    def __init__(self, *args: Any, source: str = "", **options: Any) -> None:
        self.source = source
        super().__init__(*args, **options)

    def deconstruct(self) -> Any:
        name, path, args, options = super().deconstruct()
        return name, path, args, options | {"source": self.source}

    def pre_save(self, model_instance: Any, add: bool) -> str:
        value = reverse_digits(getattr(model_instance, self.source))
        setattr(model_instance, self.attname, value)
        return value
