"""What the journal costs the caller, and how fast entries become rows.

    python -m bench.journal

Times `SpoolJournal.write` of a typical utterance and turn, first with the file alone, then at the pace of
fifty busy calls with the writer at work on a database of its own, in a folder that is removed. Then it
fills the spool with a backlog and times the writer until the last row.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

WRITES, PACED, BACKLOG = 50_000, 3_000, 20_000
PACE_SECONDS = 0.002  # fifty calls of ten entries a second each
CALLS = 50


def at_rank(sorted_ns: list[int], share: float) -> float:
    """A percentile, in microseconds."""
    return round(sorted_ns[min(len(sorted_ns) - 1, int(len(sorted_ns) * share))] / 1000, 1)


def figures(taken_ns: list[int]) -> dict[str, float]:
    taken_ns.sort()
    return {
        "n": len(taken_ns),
        "p50_us": at_rank(taken_ns, 0.5),
        "p99_us": at_rank(taken_ns, 0.99),
        "max_us": at_rank(taken_ns, 1.0),
    }


def entries(count: int) -> list[Any]:
    from bridge.journal import TurnTaken, UtteranceSpoken

    text = "I would like to move my appointment from Tuesday morning to Thursday, if that is possible."
    made: list[Any] = []
    for number in range(count // 2):
        sid = f"CA{number % CALLS:032x}"
        made.append(UtteranceSpoken(sid, number // CALLS, "caller", text, 1000, 4000))
        made.append(TurnTaken(sid, number // CALLS + 1, 4000, 4300, 4880, 4881, 4930, 880, 900))
    return made


def timed(journal: Any, made: list[Any], pace_seconds: float = 0.0) -> list[int]:
    taken = []
    for entry in made:
        before = time.perf_counter_ns()
        journal.write(entry)
        taken.append(time.perf_counter_ns() - before)
        if pace_seconds:
            time.sleep(pace_seconds)
    return taken


def run(folder: Path) -> dict[str, Any]:
    import django

    os.environ["DATABASE_URL"] = os.environ.get("BENCH_DATABASE_URL", f"sqlite:///{folder / 'bench.sqlite3'}")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "voiceai.settings")
    os.environ["DJANGO_DEBUG"] = "off"
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from calls.ingest.journal import SpoolJournal
    from calls.ingest.writer import JournalWriter

    call_command("migrate", verbosity=0)
    results: dict[str, Any] = {"database": connection.vendor}

    journal = SpoolJournal(folder / "alone", "1-bench")
    results["write_alone"] = figures(timed(journal, entries(WRITES)))
    journal.spool.cut(journal.spool.size)
    journal.close()

    journal = SpoolJournal(folder / "paced", "1-bench")
    writer = JournalWriter(journal)
    writer.start()
    results["write_while_rows_are_made"] = figures(timed(journal, entries(PACED), PACE_SECONDS))
    writer.stop(30)
    journal.close()

    journal = SpoolJournal(folder / "backlog", "1-bench")
    timed(journal, entries(BACKLOG))
    writer = JournalWriter(journal)
    began = time.monotonic()
    writer.start()
    writer.stop(120)
    seconds = time.monotonic() - began
    left = writer.figures().backlog
    results["backlog"] = {"n": BACKLOG, "left": left, "entries_per_second": round((BACKLOG - left) / seconds)}
    journal.close()
    return results


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="voiceai-bench-") as name:
        print(json.dumps(run(Path(name)), indent=2))
