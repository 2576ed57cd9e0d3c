"""Full-text search in transcripts: which calls contain the words, and the matching line with its context.

Both databases answer from an index that follows every write: PostgreSQL from a GIN index on
`Utterance.text`, SQLite from a full-text table that triggers keep current. All words must occur in one
utterance; the last word matches as a prefix. Input is never interpreted as a query operator.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from django.db import connection

from calls.models import Utterance
from calls.querysets import CallQuerySet
from calls.viewer import Viewer

MAX_CALLS = 1000  # the newest; a search that matches more is too broad to be useful
MAX_WORDS = 8
MAX_LINES = 5000  # read to find the matches of one page
_LINES_PER_CALL = 4  # in how many lines of a call a word occurs, roughly
_CONTEXT_CHARS = 60  # shown before and after a match

# Word separators: whitespace, control characters, ASCII punctuation, common other punctuation, and
# characters that no database stores. Not `\W`: it also splits at the vowel signs of many scripts.
_WORD = re.compile(
    r"[^\x00-/:-@\[-`{-\xa1\xab\xb7\xbb\xbf\u2010-\u2027\u2030-\u205e\u3000-\u3003\ud800-\udfff]+"
)

# PostgreSQL keeps URLs, decimal numbers and the like as single words. Replacing these characters with
# spaces prevents it. The index uses the same expression (migration 0003).
_TEXT_VECTOR = "to_tsvector('simple', translate(text, '.:/@-_+~&<>=?#''', '               '))"

# PostgreSQL's planner assumes that every word prefix is common, and would scan millions of lines for a
# rare one. So the newest lines are sampled first: a common word is found by scanning on, a rare one by
# using the index.
_SAMPLE_LINES = 5_000
_COMMON_HITS = 150  # in the sample; from here on scanning is faster than sorting all hits of the index
_SCAN_NEWEST = f"""
    SELECT call_id FROM (SELECT id, call_id, text FROM calls_utterance ORDER BY id DESC LIMIT %s) newest
    WHERE {_TEXT_VECTOR} @@ to_tsquery('simple', %s) ORDER BY id DESC LIMIT %s
"""
_USE_INDEX = f"""
    WITH matches AS MATERIALIZED (
        SELECT id, call_id FROM calls_utterance WHERE {_TEXT_VECTOR} @@ to_tsquery('simple', %s)
    ) SELECT call_id FROM matches ORDER BY id DESC LIMIT %s
"""
_SQLITE = """
    SELECT u.call_id FROM calls_utterance_words w CROSS JOIN calls_utterance u ON u.id = w.rowid
    WHERE calls_utterance_words MATCH %s ORDER BY w.rowid DESC LIMIT %s
"""


_ID_PREFIX = re.compile(r"(?=.*[0-9])[A-Za-z]{0,2}[0-9a-fA-F-]{4,}")
_NUMBER_PREFIX = re.compile(r"(tel:)?[+0-9()./ -]{3,}")


class Hit(NamedTuple):
    """A matching line, split around the word that matched, and who spoke it."""

    speaker: str
    before: str
    match: str
    after: str


def search_calls(calls: CallQuerySet, text: str, viewer: Viewer) -> CallQuerySet:
    """Those of the calls with this id or number, by its start, or in which these words were said."""
    if prefix := parse_prefix(text):
        return calls.search_prefix(prefix, include_numbers=viewer.can_view_numbers)
    return calls.filter(pk__in=find_call_ids(text))


def parse_prefix(text: str) -> str:
    """The start of a number or id that was entered, normalized; empty when the text is words."""
    text = text.strip()
    if _NUMBER_PREFIX.fullmatch(text):
        digits = re.sub(r"[^0-9+]", "", text.removeprefix("tel:"))
        return "+" + digits[2:] if digits.startswith("00") else digits
    return text if _ID_PREFIX.fullmatch(text) else ""


def split_words(text: str) -> list[str]:
    """The first `MAX_WORDS` words of a query, in lower case."""
    words = (word for word in _WORD.findall(text.lower()) if any(map(str.isalnum, word)))
    return list(words)[:MAX_WORDS]


def find_call_ids(text: str, limit: int = MAX_CALLS) -> list[int]:
    """Ids of the calls in which one utterance contains all words, newest first. Two queries at most."""
    words = split_words(text)
    if not words:
        return []
    max_lines = limit * _LINES_PER_CALL
    if connection.vendor == "postgresql":
        call_ids = _query_postgres(" & ".join(f"'{word}'" for word in words) + ":*", max_lines)
    else:
        call_ids = _run_query(_SQLITE, " ".join(f'"{word}"' for word in words) + "*", max_lines)
    return list(dict.fromkeys(call_ids))[:limit]


def _query_postgres(tsquery: str, max_lines: int) -> list[int]:
    call_ids = _run_query(_SCAN_NEWEST, _SAMPLE_LINES, tsquery, max_lines)
    if len(call_ids) >= max_lines:
        return call_ids
    if len(call_ids) < _COMMON_HITS:
        return _run_query(_USE_INDEX, tsquery, max_lines)
    # One and a half times as many lines as the hit rate of the sample predicts.
    return _run_query(_SCAN_NEWEST, _SAMPLE_LINES * max_lines * 3 // (len(call_ids) * 2), tsquery, max_lines)


def _run_query(statement: str, *parameters: int | str) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [call_id for (call_id,) in cursor.fetchall()]


def find_hits(call_ids: Sequence[int], text: str) -> dict[int, Hit]:
    """The first matching line of each of these calls. One query."""
    words = [] if parse_prefix(text) else split_words(text)
    hits: dict[int, Hit] = {}
    if not words or not call_ids:
        return hits
    lines = Utterance.objects.filter(call__in=call_ids).order_by("call_id", "index")
    for word in words:
        lines = lines.filter(text__icontains=word)
    for call_id, speaker, line in lines.values_list("call_id", "speaker", "text")[:MAX_LINES]:
        if call_id not in hits and (hit := highlight(line, text, speaker)):
            hits[call_id] = hit
    return hits


def highlight(line: str, text: str, speaker: str) -> Hit | None:
    """Split a line around the first query word that it contains. None when it contains none."""
    words = split_words(text)
    for word in [*words[-1:], *words[:-1]]:
        match = re.search(rf"(?<![^\W_]){re.escape(word)}[^\W_]*", line, re.IGNORECASE)
        if match:
            start, end = match.span()
            before, after = line[:start], line[end:]
            return Hit(
                speaker,
                before if len(before) <= _CONTEXT_CHARS else "…" + before[-_CONTEXT_CHARS:],
                line[start:end],
                after if len(after) <= _CONTEXT_CHARS else after[:_CONTEXT_CHARS] + "…",
            )
    return None
