"""Columns and indexes for searching scripts without blanks, numbers by their end, and notes.

Existing rows get their values: numbers in one statement, utterances only where their text needs it.
"""

from django.db import migrations, models
from django.db.models import Q

import calls.search_text

BATCH = 5_000

# Characters because of which `build_search_text` may differ from the text's own words.
RANGES = (
    "\u0300-\u036f\u0e00-\u11ff\u1780-\u17ff\u19e0-\u19ff\u2070-\u209f\u2100-\u214f\u3005-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufeff\uff00-\uffef\U00020000-\U0003ffff"
)

# The same vector as in `search.py` and migration 0003.
POSTGRES = """CREATE INDEX utterance_search_words ON calls_utterance USING gin
    (to_tsvector('simple', translate(search_text, '.:/@-_+~&<>=?#''', '               ')))
    WHERE search_text IS NOT NULL"""
POSTGRES_BACK = "DROP INDEX utterance_search_words"
SQLITE = [
    # Vowel signs are parts of words.
    "CREATE VIRTUAL TABLE calls_utterance_search_words USING fts5("
    "search_text, content='calls_utterance', content_rowid='id', tokenize=\"unicode61 remove_diacritics 0 categories 'L* M* N* Co'\")",
    """INSERT INTO calls_utterance_search_words(rowid, search_text)
    SELECT id, search_text FROM calls_utterance WHERE search_text IS NOT NULL""",
    """CREATE TRIGGER calls_utterance_search_insert AFTER INSERT ON calls_utterance
    WHEN new.search_text IS NOT NULL BEGIN
    INSERT INTO calls_utterance_search_words(rowid, search_text) VALUES (new.id, new.search_text); END""",
    """CREATE TRIGGER calls_utterance_search_delete AFTER DELETE ON calls_utterance
    WHEN old.search_text IS NOT NULL BEGIN
    INSERT INTO calls_utterance_search_words(calls_utterance_search_words, rowid, search_text)
    VALUES ('delete', old.id, old.search_text); END""",
    """CREATE TRIGGER calls_utterance_search_remove AFTER UPDATE OF search_text ON calls_utterance
    WHEN old.search_text IS NOT NULL BEGIN
    INSERT INTO calls_utterance_search_words(calls_utterance_search_words, rowid, search_text)
    VALUES ('delete', old.id, old.search_text); END""",
    """CREATE TRIGGER calls_utterance_search_replace AFTER UPDATE OF search_text ON calls_utterance
    WHEN new.search_text IS NOT NULL BEGIN
    INSERT INTO calls_utterance_search_words(rowid, search_text) VALUES (new.id, new.search_text); END""",
]
SQLITE_BACK = [
    "DROP TRIGGER calls_utterance_search_insert",
    "DROP TRIGGER calls_utterance_search_delete",
    "DROP TRIGGER calls_utterance_search_remove",
    "DROP TRIGGER calls_utterance_search_replace",
    "DROP TABLE calls_utterance_search_words",
]


def fill_numbers(apps, schema_editor):
    connection = schema_editor.connection
    if connection.vendor == "sqlite":
        connection.connection.create_function(
            "reversed_digits", 1, calls.search_text.reverse_digits, deterministic=True
        )
        reverse = "reversed_digits({0})"
    else:
        reverse = (
            "CASE WHEN {0} LIKE '+%' THEN reverse(regexp_replace({0}, '[^0-9]', '', 'g')) ELSE '' END"
        )
    schema_editor.execute(
        f"UPDATE calls_call SET from_reversed = {reverse.format('from_number')},"
        f" to_reversed = {reverse.format('to_number')}",
        params=None,
    )


def fill_texts(apps, schema_editor):
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            matches, pattern = "text GLOB %s", f"*[{RANGES}]*"
        else:
            matches, pattern = "text ~ %s", f"[{RANGES}]"
        last = 0
        while True:
            cursor.execute(
                f"SELECT id, text FROM calls_utterance WHERE id > %s AND {matches} ORDER BY id LIMIT {BATCH}",
                [last, pattern],
            )
            rows = cursor.fetchall()
            if not rows:
                return
            values = [(calls.search_text.build_search_text(text), pk) for pk, text in rows]
            cursor.executemany("UPDATE calls_utterance SET search_text = %s WHERE id = %s", values)
            last = rows[-1][0]


def forwards(apps, schema_editor):
    for statement in SQLITE if schema_editor.connection.vendor == "sqlite" else [POSTGRES]:
        schema_editor.execute(statement, params=None)


def backwards(apps, schema_editor):
    for statement in SQLITE_BACK if schema_editor.connection.vendor == "sqlite" else [POSTGRES_BACK]:
        schema_editor.execute(statement, params=None)


def reversed_field(source):
    return calls.search_text.ReversedDigitsField(
        editable=False, max_length=64, null=True, source=source
    )


class Migration(migrations.Migration):
    dependencies = [("calls", "0007_call_list")]
    operations = [
        migrations.AddField("call", "from_reversed", reversed_field("from_number")),
        migrations.AddField("call", "to_reversed", reversed_field("to_number")),
        migrations.AddField(
            "utterance", "search_text", calls.search_text.SearchTextField(editable=False, null=True)
        ),
        migrations.RunPython(fill_numbers, migrations.RunPython.noop),
        migrations.RunPython(fill_texts, migrations.RunPython.noop),
        migrations.AddIndex(
            "call",
            models.Index(
                condition=Q(("note__gt", ""), ("outcome__gt", ""), _connector="OR"),
                fields=["id"],
                name="call_noted",
            ),
        ),
        migrations.AddIndex(
            "call",
            models.Index(fields=["from_reversed"], name="call_from_end", opclasses=["varchar_pattern_ops"]),
        ),
        migrations.AddIndex(
            "call",
            models.Index(fields=["to_reversed"], name="call_to_end", opclasses=["varchar_pattern_ops"]),
        ),
        migrations.RunPython(forwards, backwards),
    ]
