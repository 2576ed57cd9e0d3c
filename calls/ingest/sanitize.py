"""The one sanitiser of what strangers wrote: every text and every JSON value passes it on its way to a row.

PostgreSQL refuses a NUL that SQLite takes, both refuse a lone surrogate somewhere, and neither takes NaN
in JSON; here all of that becomes one and the same value for both. Pure, and idempotent.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from itertools import islice
from typing import Any

MAX_TEXT = 16_000
MAX_JSON_TEXT = 2000
MAX_JSON_DEPTH = 8
MAX_JSON_ITEMS = 1000

# Control characters other than tab and newline, and lone halves of surrogate pairs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def clean_text(text: str, most: int = MAX_TEXT) -> str:
    """Text that every database takes: no control characters, no lone surrogates, NFC, bounded."""
    cut = _SURROGATE.sub("\ufffd", _CONTROL.sub("", text[: most * 2]))
    return unicodedata.normalize("NFC", cut)[:most]


def clean_json(value: Any, depth: int = 0) -> Any:
    """The same for JSON; NaN and infinities become null, what is too deep or strange becomes text."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return clean_text(value, MAX_JSON_TEXT)
        case Mapping() if depth < MAX_JSON_DEPTH:
            items = islice(value.items(), MAX_JSON_ITEMS)
            return {clean_text(str(key), 200): clean_json(item, depth + 1) for key, item in items}
        case list() | tuple() if depth < MAX_JSON_DEPTH:
            return [clean_json(item, depth + 1) for item in value[:MAX_JSON_ITEMS]]
        case _:
            return clean_text(str(value), MAX_JSON_TEXT)
