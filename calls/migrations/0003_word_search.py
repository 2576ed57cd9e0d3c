"""An index of the words of utterances: by PostgreSQL's full text search, or SQLite's FTS5 kept by triggers.

A later migration that alters `calls_utterance` makes SQLite copy the table, and its triggers are lost with the
old one: run `backwards` before it and `forwards` behind it.
"""

from django.db import migrations

# PostgreSQL makes addresses, numbers with points and the like into words of their own, which nobody looks
# for; without these characters there are none. `search.py` asks with the same expression.
POSTGRES = [
    """CREATE INDEX utterance_words ON calls_utterance USING gin
    (to_tsvector('simple', translate(text, '.:/@-_+~&<>=?#''', '               ')))""",
]
POSTGRES_BACK = ["DROP INDEX utterance_words"]
SQLITE = [
    "CREATE VIRTUAL TABLE calls_utterance_words USING fts5("
    "text, content='calls_utterance', content_rowid='id', tokenize=\"unicode61 remove_diacritics 0\")",
    "INSERT INTO calls_utterance_words(calls_utterance_words) VALUES ('rebuild')",
    """CREATE TRIGGER calls_utterance_said AFTER INSERT ON calls_utterance BEGIN
    INSERT INTO calls_utterance_words(rowid, text) VALUES (new.id, new.text); END""",
    """CREATE TRIGGER calls_utterance_unsaid AFTER DELETE ON calls_utterance BEGIN
    INSERT INTO calls_utterance_words(calls_utterance_words, rowid, text)
    VALUES ('delete', old.id, old.text); END""",
    """CREATE TRIGGER calls_utterance_said_otherwise AFTER UPDATE OF text ON calls_utterance BEGIN
    INSERT INTO calls_utterance_words(calls_utterance_words, rowid, text)
    VALUES ('delete', old.id, old.text);
    INSERT INTO calls_utterance_words(rowid, text) VALUES (new.id, new.text); END""",
]
SQLITE_BACK = [
    "DROP TRIGGER calls_utterance_said",
    "DROP TRIGGER calls_utterance_unsaid",
    "DROP TRIGGER calls_utterance_said_otherwise",
    "DROP TABLE calls_utterance_words",
]


def run(schema_editor, statements):
    for statement in statements:
        schema_editor.execute(statement, params=None)


def forwards(apps, schema_editor):
    vendor = schema_editor.connection.vendor
    run(schema_editor, {"postgresql": POSTGRES, "sqlite": SQLITE}.get(vendor, []))


def backwards(apps, schema_editor):
    vendor = schema_editor.connection.vendor
    run(schema_editor, {"postgresql": POSTGRES_BACK, "sqlite": SQLITE_BACK}.get(vendor, []))


class Migration(migrations.Migration):
    dependencies = [("calls", "0002_flags_hours_audit")]
    operations = [migrations.RunPython(forwards, backwards)]
