"""Cleans text and JSON from outside before they are stored, so that every database accepts them.

PostgreSQL rejects a NUL, which SQLite accepts. Both reject a lone surrogate in some places. Neither accepts
NaN in JSON. Here they all become the same value for both databases. Idempotent.

`clean_value` is for a column of a model: it takes the maximum length from the model's field.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import islice
from typing import Any

from django.db import models

MAX_TEXT_CHARS = 16_000  # of a column without a maximum length
MAX_JSON_TEXT_CHARS = 2000
MAX_JSON_KEY_CHARS = 200
MAX_JSON_DEPTH = 8
MAX_JSON_ITEMS = 1000

# Control characters other than tab and newline; those that force a direction of text (embeddings, overrides,
# isolates), because one that is not closed turns the rest of a page around; and lone surrogates.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def clean_text(text: str, max_length: int = MAX_TEXT_CHARS) -> str:
    """Text in NFC, without the characters above, at most `max_length` long."""
    cleaned = _SURROGATE.sub("\ufffd", _CONTROL.sub("", text[: max_length * 2]))
    return unicodedata.normalize("NFC", cleaned)[:max_length]


def clean_json(value: Any, depth: int = 0) -> Any:
    """The same for JSON. NaN and infinities become null; what is nested too deep or not JSON becomes text."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return clean_text(value, MAX_JSON_TEXT_CHARS)
        case Mapping() if depth < MAX_JSON_DEPTH:
            items = islice(value.items(), MAX_JSON_ITEMS)
            return {
                clean_text(str(key), MAX_JSON_KEY_CHARS): clean_json(item, depth + 1) for key, item in items
            }
        case list() | tuple() if depth < MAX_JSON_DEPTH:
            return [clean_json(item, depth + 1) for item in value[:MAX_JSON_ITEMS]]
        case _:
            return clean_text(str(value), MAX_JSON_TEXT_CHARS)


def clean_value(model: type[models.Model], name: str, value: Any) -> Any:
    """The value as this column of the model stores it. Only text and JSON columns change it."""
    cleaner = _cleaner(model, name)
    return cleaner(value) if cleaner else value


@cache  # runs for every entry, and looking up a field is slow
def _cleaner(model: type[models.Model], name: str) -> Callable[[Any], Any] | None:
    match model._meta.get_field(name):
        case models.CharField(max_length=max_length):
            return partial(clean_text, max_length=max_length or MAX_TEXT_CHARS)
        case models.TextField():
            return clean_text
        case models.JSONField():
            return clean_json
        case _:
            return None
