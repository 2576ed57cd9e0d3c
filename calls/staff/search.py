"""Search of calls: by ID, by phone number in any form, by words that were said, by outcome and note.

Words are answered from indexes that follow every write: PostgreSQL has GIN indexes on `Utterance.text` and
`Utterance.search_text`, SQLite full-text tables that triggers keep current. All words must occur in one
utterance, the last one may be the start of a word; in outcome and note each may be any part of a word. Input
is never interpreted as a query operator.

A search in up to `MAX_SEARCHED_CALLS` calls is complete. In a longer list it finds the newest calls with the
words, and says so if there may be older ones.
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

MAX_SEARCHED_CALLS = 5_000  # of a list; in a longer one the newest matching lines are searched for
MAX_LINES = 4_000  # that match, whichever calls they belong to
MAX_PAGE_LINES = 5_000  # read to find the matches of one page
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
# Comparing text first is faster: to split a line into words takes 100 microseconds.
_SCAN_CALLS = f"""
    SELECT id, call_id FROM calls_utterance
    WHERE call_id = ANY(%s) AND {{column}} ILIKE ALL(%s) AND {_VECTOR} @@ to_tsquery('simple', %s)
    ORDER BY id DESC LIMIT %s
"""
_USE_INDEX = f"""
    WITH matches AS MATERIALIZED (
        SELECT id, call_id FROM calls_utterance
        WHERE {{column}} IS NOT NULL AND {_VECTOR} @@ to_tsquery('simple', %s)
    ) SELECT id, call_id FROM matches ORDER BY id DESC LIMIT %s
"""
_SQLITE = """
    SELECT u.id, u.call_id FROM {table} w CROSS JOIN calls_utterance u ON u.id = w.rowid
    WHERE {table} MATCH %s {and_in_calls} ORDER BY w.rowid DESC LIMIT %s
"""
_SQLITE_TABLES = {"text": "calls_utterance_words", "search_text": "calls_utterance_search_words"}

# The condition is that of the index `call_noted`, word for word: SQLite compares them literally. Without the
# hint, statistics of a small table can lead SQLite to another index, which it scans from end to end.
_NOTED = """
    SELECT id FROM calls_call {hint}
    WHERE ("note" > '' OR "outcome" > '') AND {contains} {and_in_calls} ORDER BY id DESC LIMIT %s
"""

_IDS = ("call_sid", "vapi_call_id")
_NUMBERS, _NUMBERS_REVERSED = ("from_number", "to_number"), ("from_reversed", "to_reversed")
_ID_PREFIX = re.compile(r"(?=.*[0-9])[A-Za-z]{0,2}[0-9a-fA-F-]{4,}")
_NUMBER = re.compile(r"(?:tel:)?[+0-9()./ \u2010-\u2015-]{3,}")
_ADDRESS = re.compile(r"(?:sips?|client):.+")
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_MIN_DIGITS = 3
_MIN_NATIONAL_DIGITS = 6  # of a number whose leading zero is left out where its country code is given


class Found(NamedTuple):
    """The calls that a search found. `is_capped`: only the newest ones, as there may be more."""

    calls: CallQuerySet
    is_capped: bool = False


class Hit(NamedTuple):
    """A matching line, split around the word that matched, and who spoke it."""

    speaker: str
    before: str
    match: str
    after: str


def search_calls(calls: CallQuerySet, text: str, viewer: Viewer) -> Found:
    """Those of the calls that the text finds: by number or ID if it looks like one and finds any, else by
    words. Viewers who see numbers masked cannot search for them."""
    prefixes = parse_prefixes(text, include_numbers=viewer.can_view_numbers)
    if prefixes:
        found = calls.search_prefixes(prefixes)
        if found.exists():
            return Found(found)
    in_calls = None
    if calls.query.where:
        ids = list(calls.order_by().values_list("pk", flat=True)[: MAX_SEARCHED_CALLS + 1])
        in_calls = ids if len(ids) <= MAX_SEARCHED_CALLS else None
    call_ids, is_capped = find_call_ids(text, in_calls)
    return Found(calls.filter(pk__in=call_ids), is_capped)


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


def find_call_ids(
    text: str, in_calls: list[int] | None = None, max_lines: int = MAX_LINES
) -> tuple[list[int], bool]:
    """Ids of the calls in which one utterance, or outcome and note, contain all words; and whether there may
    be older ones. Those with a note are first, then the newest. `in_calls`: ids of the calls to search in.
    Five queries at most."""
    words = split_words(text)
    if not words or in_calls == []:
        return [], False
    noted = _find_noted(words, in_calls, max_lines)
    lines = [_find_lines(column, words, in_calls, max_lines) for column in _SQLITE_TABLES]
    spoken = (call_id for _, call_id in heapq.merge(*lines, reverse=True))
    is_capped = max(len(noted), *map(len, lines)) >= max_lines
    return list(dict.fromkeys([*noted, *spoken])), is_capped


def _find_lines(
    column: str, words: Sequence[str], in_calls: list[int] | None, max_lines: int
) -> list[tuple[int, int]]:
    """Ids of utterances and their calls, newest first."""
    phrases = [separate(word) for word in words] if column == "search_text" else words
    if connection.vendor != "postgresql":
        query = " ".join(f'"{phrase}"' for phrase in phrases) + "*"
        condition, ids = _restrict("u.call_id", in_calls)
        statement = _SQLITE.format(table=_SQLITE_TABLES[column], and_in_calls=condition)
        return _run_query(statement, query, *ids, max_lines)
    adjacent = (" <-> ".join(f"'{word}'" for word in phrase.split()) for phrase in phrases)
    query = " & ".join(f"({phrase})" for phrase in adjacent).removesuffix(")") + ":*)"
    if in_calls is not None:
        patterns = [f"%{part}%" for phrase in phrases for part in phrase.split()]
        return _run_query(_SCAN_CALLS.format(column=column), in_calls, patterns, query, max_lines)
    scan, use_index = (statement.format(column=column) for statement in (_SCAN_NEWEST, _USE_INDEX))
    lines = _run_query(scan, _SAMPLE_LINES, query, max_lines)
    if len(lines) >= max_lines:
        return lines
    if len(lines) < _COMMON_HITS:
        return _run_query(use_index, query, max_lines)
    # One and a half times as many lines as the hit rate of the sample predicts.
    return _run_query(scan, _SAMPLE_LINES * max_lines * 3 // (len(lines) * 2), query, max_lines)


def _find_noted(words: Sequence[str], in_calls: list[int] | None, limit: int) -> list[int]:
    is_postgresql = connection.vendor == "postgresql"
    like, hint = ("ILIKE", "") if is_postgresql else ("LIKE", "INDEXED BY call_noted")
    contains = " AND ".join([f"note || ' ' || outcome {like} %s"] * len(words))
    condition, ids = _restrict("id", in_calls)
    statement = _NOTED.format(contains=contains, hint=hint, and_in_calls=condition)
    rows = _run_query(statement, *(f"%{word}%" for word in words), *ids, limit)
    return [call_id for (call_id,) in rows]


def _restrict(column: str, ids: list[int] | None) -> tuple[str, list[int]]:
    """A condition that the column is one of the ids, and its parameters. Without ids, none."""
    return (f"AND {column} IN ({', '.join(['%s'] * len(ids))})", ids) if ids is not None else ("", [])


def _run_query(statement: str, *parameters: int | str | list[int] | list[str]) -> list[Any]:
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
    for call_id, speaker, line in lines.values_list("call_id", "speaker", "text")[:MAX_PAGE_LINES]:
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
