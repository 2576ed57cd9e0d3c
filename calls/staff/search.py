"""Search of calls: by id, by phone number in any form, by words that were said, by outcome and note.

Words are answered from indexes that follow every write: PostgreSQL has GIN indexes on `Utterance.text` and
`Utterance.search_text`, SQLite full-text tables that triggers keep current. All words must occur in one
utterance; the last word matches as a prefix. Input is never interpreted as a query operator.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Q

from calls.models import Utterance
from calls.querysets import CallQuerySet
from calls.search_text import UNSPACED, separate, split_words
from calls.viewer import Viewer

MAX_CALLS = 1000  # the newest; a search that matches more is too broad to be useful
MAX_LINES = 5000  # read to find the matches of one page
_LINES_PER_CALL = 4  # in how many lines of a call a word occurs, roughly
_CONTEXT_CHARS = 60  # shown before and after a match

# PostgreSQL keeps URLs, decimal numbers and the like as single words. Replacing these characters with
# spaces prevents it. The indexes use the same expressions (migrations 0003 and 0008).
_VECTOR = "to_tsvector('simple', translate({column}, '.:/@-_+~&<>=?#''', '               '))"

# PostgreSQL's planner assumes that every word prefix is common, and would scan millions of lines for a
# rare one. So the newest lines are sampled first: a common word is found by scanning on, a rare one by
# using the index.
_SAMPLE_LINES = 5_000
_COMMON_HITS = 150  # in the sample; from here on scanning is faster than sorting all hits of the index
_SCAN_NEWEST = f"""
    SELECT id, call_id FROM (
        SELECT id, call_id, {{column}} FROM calls_utterance ORDER BY id DESC LIMIT %s
    ) newest WHERE {_VECTOR} @@ to_tsquery('simple', %s) ORDER BY id DESC LIMIT %s
"""
_USE_INDEX = f"""
    WITH matches AS MATERIALIZED (
        SELECT id, call_id FROM calls_utterance
        WHERE {{column}} IS NOT NULL AND {_VECTOR} @@ to_tsquery('simple', %s)
    ) SELECT id, call_id FROM matches ORDER BY id DESC LIMIT %s
"""
_SQLITE = """
    SELECT u.id, u.call_id FROM {table} w CROSS JOIN calls_utterance u ON u.id = w.rowid
    WHERE {table} MATCH %s ORDER BY w.rowid DESC LIMIT %s
"""
_SQLITE_TABLES = {"text": "calls_utterance_words", "search_text": "calls_utterance_search_words"}

# The condition is that of the index `call_noted`, word for word: SQLite compares them literally. Without the
# hint, statistics of a small table can lead SQLite to another index, which it scans from end to end.
_NOTED = """
    SELECT id FROM calls_call {hint}
    WHERE ("note" > '' OR "outcome" > '') AND {contains} ORDER BY id DESC LIMIT %s
"""

_IDS = ("call_sid", "vapi_call_id")
_NUMBERS, _NUMBERS_REVERSED = ("from_number", "to_number"), ("from_reversed", "to_reversed")
_ID_PREFIX = re.compile(r"(?=.*[0-9])[A-Za-z]{0,2}[0-9a-fA-F-]{4,}")
_NUMBER = re.compile(r"(?:tel:)?[+0-9()./ \u2010-\u2015-]{3,}")
_ADDRESS = re.compile(r"(?:sips?|client):.+")
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_MIN_DIGITS = 3
_MIN_NATIONAL_DIGITS = 6  # of a number whose leading zero is left out where its country code is given


class Hit(NamedTuple):
    """A matching line, split around the word that matched, and who spoke it."""

    speaker: str
    before: str
    match: str
    after: str


def search_calls(calls: CallQuerySet, text: str, viewer: Viewer) -> CallQuerySet:
    """Those of the calls that the text finds: by number or id if it looks like one and finds any, else by
    words. Viewers who see numbers masked cannot search for them."""
    prefixes = parse_prefixes(text, include_numbers=viewer.can_view_numbers)
    if prefixes:
        found = calls.search_prefixes(prefixes)
        if found.exists():
            return found
    return calls.filter(pk__in=find_call_ids(text))


def parse_prefixes(text: str, *, include_numbers: bool) -> list[tuple[str, str]]:
    """Columns and the start of a value in each, for a text that looks like a phone number or an id.

    A number may be written in any way, without its country code, or be only its last digits.
    """
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).strip()
    text = "".join(str(unicodedata.digit(char, char)) for char in text)
    prefixes = [(column, text) for column in _IDS] if _ID_PREFIX.fullmatch(text) else []
    if not include_numbers:
        return prefixes
    if _ADDRESS.fullmatch(text):
        return [(column, text) for column in _NUMBERS]
    digits = re.sub("[^0-9]", "", text.replace("(0)", "")) if _NUMBER.fullmatch(text) else ""
    if len(digits) < _MIN_DIGITS:
        return prefixes
    starts, ends = {digits}, {digits}
    if digits.startswith("00"):
        starts.add(digits[2:])
    if "+" in text:
        ends.clear()
    elif len(national := digits.lstrip("0")) >= _MIN_NATIONAL_DIGITS:
        ends.add(national)
    prefixes += [(column, f"+{start}") for start in sorted(starts) for column in _NUMBERS]
    return prefixes + [(column, end[::-1]) for end in sorted(ends) for column in _NUMBERS_REVERSED]


def find_call_ids(text: str, limit: int = MAX_CALLS) -> list[int]:
    """Ids of the calls in which one utterance, or outcome and note, contain all words. The newest first,
    those with a note before the others. Five queries at most."""
    words = split_words(text)
    if not words:
        return []
    max_lines = limit * _LINES_PER_CALL
    lines = [_find_lines(column, words, max_lines) for column in _SQLITE_TABLES]
    spoken = (call_id for _, call_id in heapq.merge(*lines, reverse=True))
    return list(dict.fromkeys([*_find_noted(words, limit), *spoken]))[:limit]


def _find_lines(column: str, words: Sequence[str], max_lines: int) -> list[tuple[int, int]]:
    """Ids of utterances and their calls, newest first."""
    phrases = [separate(word) for word in words] if column == "search_text" else words
    if connection.vendor != "postgresql":
        query = " ".join(f'"{phrase}"' for phrase in phrases) + "*"
        return _run_query(_SQLITE.format(table=_SQLITE_TABLES[column]), query, max_lines)
    adjacent = (" <-> ".join(f"'{word}'" for word in phrase.split()) for phrase in phrases)
    query = " & ".join(f"({phrase})" for phrase in adjacent).removesuffix(")") + ":*)"
    scan, use_index = (statement.format(column=column) for statement in (_SCAN_NEWEST, _USE_INDEX))
    lines = _run_query(scan, _SAMPLE_LINES, query, max_lines)
    if len(lines) >= max_lines:
        return lines
    if len(lines) < _COMMON_HITS:
        return _run_query(use_index, query, max_lines)
    # One and a half times as many lines as the hit rate of the sample predicts.
    return _run_query(scan, _SAMPLE_LINES * max_lines * 3 // (len(lines) * 2), query, max_lines)


def _find_noted(words: Sequence[str], limit: int) -> list[int]:
    is_postgresql = connection.vendor == "postgresql"
    like, hint = ("ILIKE", "") if is_postgresql else ("LIKE", "INDEXED BY call_noted")
    contains = " AND ".join([f"note || ' ' || outcome {like} %s"] * len(words))
    rows = _run_query(_NOTED.format(contains=contains, hint=hint), *(f"%{word}%" for word in words), limit)
    return [call_id for (call_id,) in rows]


def _run_query(statement: str, *parameters: int | str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[Any] = cursor.fetchall()
        return rows


def find_hits(call_ids: Sequence[int], text: str) -> dict[int, Hit]:
    """The first matching line of each of these calls. One query."""
    words = split_words(text)
    hits: dict[int, Hit] = {}
    if not words or not call_ids:
        return hits
    lines = Utterance.objects.filter(call__in=call_ids).order_by("call_id", "index")
    for word in words:
        lines = lines.filter(Q(text__icontains=word) | Q(search_text__contains=separate(word)))
    for call_id, speaker, line in lines.values_list("call_id", "speaker", "text")[:MAX_LINES]:
        if call_id not in hits and (hit := highlight(line, text, speaker)):
            hits[call_id] = hit
    return hits


def highlight(line: str, text: str, speaker: str) -> Hit | None:
    """Split a line around the first query word that it contains. None when it contains none."""
    words = split_words(text)
    for form in (line, unicodedata.normalize("NFKC", line)):
        for word in [*words[-1:], *words[:-1]]:
            if match := re.search(_pattern(word), form, re.IGNORECASE):
                start, end = match.span()
                before, after = form[:start], form[end:]
                return Hit(
                    speaker,
                    before if len(before) <= _CONTEXT_CHARS else "…" + before[-_CONTEXT_CHARS:],
                    form[start:end],
                    after if len(after) <= _CONTEXT_CHARS else after[:_CONTEXT_CHARS] + "…",
                )
    return None


def _pattern(word: str) -> str:
    """The word from its start to its end; of a script without spaces, just these characters."""
    starts = rf"(?:(?<![^\W_])|(?<=[{UNSPACED}]))"
    rest = rf"(?:(?![{UNSPACED}])[^\W_])*"
    return re.escape(word) if re.search(f"[{UNSPACED}]", word) else starts + re.escape(word) + rest
