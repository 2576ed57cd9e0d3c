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
_AROUND = 60  # characters shown before and behind a hit

# What parts words: blanks, control characters, ASCII's punctuation, the common rest of it, and what no
# database takes. Not `\W`: the vowel signs of many scripts are no letters.
_WORD = re.compile(
    r"[^\x00-/:-@\[-`{-\xa1\xab\xb7\xbb\xbf\u2010-\u2027\u2030-\u205e\u3000-\u3003\ud800-\udfff]+"
)

# PostgreSQL alone makes addresses, numbers with points and the like into words of their own; without these
# characters there are none. The index has the same expression (migration 0003).
_SPOKEN = "to_tsvector('simple', translate(text, '.:/@-_+~&<>=?#''', '               '))"

# Its planner takes every beginning of a word for common, and walks millions of lines for a rare one. So we
# look at the newest lines ourselves and then choose: walk on for a common word, ask the index for a rare one.
_LOOKED_AT = 5_000
_COMMON = 150  # of these; from here on walking is quicker than sorting all that the index has
_WALKED = f"""
    SELECT call_id FROM (SELECT id, call_id, text FROM calls_utterance ORDER BY id DESC LIMIT %s) newest
    WHERE {_SPOKEN} @@ to_tsquery('simple', %s) ORDER BY id DESC LIMIT %s
"""
_INDEXED = f"""
    WITH said AS MATERIALIZED (
        SELECT id, call_id FROM calls_utterance WHERE {_SPOKEN} @@ to_tsquery('simple', %s)
    ) SELECT call_id FROM said ORDER BY id DESC LIMIT %s
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
    words = (word for word in _WORD.findall(text.lower()) if any(map(str.isalnum, word)))
    return list(words)[:MAX_WORDS]


def call_ids_saying(text: str, limit: int = LIMIT) -> list[int]:
    """The newest calls in which somebody said this, the newest first; two queries at most."""
    words = words_of(text)
    if not words:
        return []
    lines = limit * _HITS_PER_CALL
    if connection.vendor == "postgresql":
        found = _ask_postgres(" & ".join(f"'{word}'" for word in words) + ":*", lines)
    else:
        found = _ask(_SQLITE, " ".join(f'"{word}"' for word in words) + "*", lines)
    return list(dict.fromkeys(found))[:limit]


def _ask_postgres(wanted: str, lines: int) -> list[int]:
    found = _ask(_WALKED, _LOOKED_AT, wanted, lines)
    if len(found) >= lines:
        return found
    if len(found) < _COMMON:
        return _ask(_INDEXED, wanted, lines)
    # As far as it should take, and half as far again.
    return _ask(_WALKED, _LOOKED_AT * lines * 3 // (len(found) * 2), wanted, lines)


def _ask(statement: str, *asked: int | str) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(statement, asked)
        return [call_id for (call_id,) in cursor.fetchall()]


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
