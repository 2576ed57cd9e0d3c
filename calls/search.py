"""Words that were spoken: which calls have them, and where in the line they stand.

Both databases answer from an index that follows every write: PostgreSQL from a GIN index over the words
of `Utterance.text`, SQLite from a full-text table that triggers keep. All words must stand in one
utterance, the last one may be a beginning. Nothing that is typed is an operator.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from django.db import connection

from calls.models import Utterance

LIMIT = 1000  # calls, the newest; a search that finds more is no search
MAX_WORDS = 8
MAX_LINES = 5000  # looked at for the hits of one page
_HITS_PER_CALL = 4  # a word stands in so many lines of a call, more or less
_WORD = re.compile(r"[^\W_]+")
_AROUND = 60  # characters shown before and behind a hit

# Newest first needs no sorting: ids grow with time. The planner then walks the primary key for a common
# word and the index for a rare one, by the statistics of the expression.
_POSTGRES = """
    SELECT call_id FROM calls_utterance
    WHERE to_tsvector('simple', text) @@ to_tsquery('simple', %s) ORDER BY id DESC LIMIT %s
"""
_SQLITE = """
    SELECT u.call_id FROM calls_utterance_words w CROSS JOIN calls_utterance u ON u.id = w.rowid
    WHERE calls_utterance_words MATCH %s ORDER BY w.rowid DESC LIMIT %s
"""


class Hit(NamedTuple):
    """A line around what was found."""

    before: str
    found: str
    behind: str


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())[:MAX_WORDS]


def call_ids_saying(text: str, limit: int = LIMIT) -> list[int]:
    """The newest calls in which somebody said this, the newest first; one query."""
    words = words_of(text)
    if not words:
        return []
    if connection.vendor == "postgresql":
        statement, asked = _POSTGRES, " & ".join(words) + ":*"
    else:
        statement, asked = _SQLITE, " ".join(f'"{word}"' for word in words) + "*"
    with connection.cursor() as cursor:
        cursor.execute(statement, [asked, limit * _HITS_PER_CALL])
        found = dict.fromkeys(call_id for (call_id,) in cursor.fetchall())
    return list(found)[:limit]


def hits(call_ids: Sequence[int], text: str) -> dict[int, Hit]:
    """For each of these calls the first line with the words in it; one query."""
    words = words_of(text)
    found: dict[int, Hit] = {}
    if not words or not call_ids:
        return found
    lines = Utterance.objects.filter(call__in=call_ids).order_by("call_id", "index")
    for word in words:
        lines = lines.filter(text__icontains=word)
    for call_id, line in lines.values_list("call_id", "text")[:MAX_LINES]:
        hit = found.get(call_id) or hit_of(line, text)
        if hit is not None:
            found[call_id] = hit
    return found


def hit_of(line: str, text: str) -> Hit | None:
    """Where in a line the words stand: the first of them that does, with what is around it."""
    words = words_of(text)
    for word in [*words[-1:], *words[:-1]]:
        found = re.search(rf"(?<![^\W_]){re.escape(word)}[^\W_]*", line, re.IGNORECASE)
        if found:
            start, end = found.span()
            before, behind = line[:start], line[end:]
            return Hit(
                before if len(before) <= _AROUND else "…" + before[-_AROUND:],
                line[start:end],
                behind if len(behind) <= _AROUND else behind[:_AROUND] + "…",
            )
    return None
