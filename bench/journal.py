"""Measure the cost of a journal write, and how fast entries become rows.

    python -m bench.journal

Times `SpoolJournal.write` of a typical utterance and turn: first with the spool file alone, then at the
rate of fifty busy calls while the writer makes rows. Then it fills the spool with a backlog and times the
writer until the last row. Uses a database and a folder of its own, and removes both; with
`BENCH_DATABASE_URL`, it uses that database and leaves the rows there.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

WRITES, PACED, BACKLOG = 50_000, 3_000, 20_000
PACE_SECONDS = 0.002  # fifty calls with ten entries a second each
CALLS = 50


def percentile_us(sorted_ns: list[int], share: float) -> float:
    """A percentile of durations in nanoseconds, in microseconds."""
    return round(sorted_ns[min(len(sorted_ns) - 1, int(len(sorted_ns) * share))] / 1000, 1)


def summarize(durations_ns: list[int]) -> dict[str, float]:
    durations_ns.sort()
    return {
        "n": len(durations_ns),
        "p50_us": percentile_us(durations_ns, 0.5),
        "p99_us": percentile_us(durations_ns, 0.99),
        "max_us": percentile_us(durations_ns, 1.0),
    }


def make_entries(count: int) -> list[Any]:
    from bridge.journal import TurnTaken, UtteranceSpoken

    text = "I would like to move my appointment from Tuesday morning to Thursday, if that is possible."
    entries: list[Any] = []
    for number in range(count // 2):
        sid = f"CA{number % CALLS:032x}"
        entries.append(UtteranceSpoken(sid, number // CALLS, "caller", text, 1000, 4000))
        entries.append(TurnTaken(sid, number // CALLS + 1, 4000, 4300, 4880, 4881, 4930, 880, 900))
    return entries


def time_writes(journal: Any, entries: list[Any], pace_seconds: float = 0.0) -> list[int]:
    """Nanoseconds of each write."""
    durations = []
    for entry in entries:
        before = time.perf_counter_ns()
        journal.write(entry)
        durations.append(time.perf_counter_ns() - before)
        if pace_seconds:
            time.sleep(pace_seconds)
    return durations


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
    results["write_alone"] = summarize(time_writes(journal, make_entries(WRITES)))
    journal.spool.truncate(journal.spool.size)
    journal.close()

    journal = SpoolJournal(folder / "paced", "1-bench")
    writer = JournalWriter(journal)
    writer.start()
    results["write_while_rows_are_made"] = summarize(time_writes(journal, make_entries(PACED), PACE_SECONDS))
    writer.stop(30)
    journal.close()

    journal = SpoolJournal(folder / "backlog", "1-bench")
    time_writes(journal, make_entries(BACKLOG))
    writer = JournalWriter(journal)
    began = time.monotonic()
    writer.start()
    writer.stop(120)
    seconds = time.monotonic() - began
    left = writer.stats().backlog
    results["backlog"] = {"n": BACKLOG, "left": left, "entries_per_second": round((BACKLOG - left) / seconds)}
    journal.close()
    return results


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="voiceai-bench-") as name:
        print(json.dumps(run(Path(name)), indent=2))
