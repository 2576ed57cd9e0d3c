"""The writer: nothing acknowledged is lost, whatever becomes of the database, the disk or the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.conf import settings
from django.db import OperationalError, connection, connections
from django.test import TestCase, TransactionTestCase

from bridge.journal import (
    AssistantAnswered,
    AssistantReported,
    CallOffered,
    Entry,
    Happened,
    StreamStarted,
    UtteranceSpoken,
    from_line,
    to_line,
)
from calls.ingest import housekeeping
from calls.ingest.housekeeping import ROUNDS_SECONDS, ROUTES_SECONDS, Rounds, now_utc
from calls.ingest.spool import Spool
from calls.ingest.writer import (
    BATCH,
    CUT_ABOVE_BYTES,
    PARK_SECONDS,
    TICK_SECONDS,
    JournalWriter,
    SpoolJournal,
)
from calls.models import Call, CallEvent, PhoneNumber, Utterance
from calls.routes import active_routes
from calls.tests.builders import make_call

SID = "CA" + "7" * 32
ROOT = Path(settings.BASE_DIR)


def spoken(number: int, text: str = "Hello.", speaker: str = "caller") -> UtteranceSpoken:
    return UtteranceSpoken(SID, number, speaker, text)


def until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up, what
        time.sleep(0.01)


class Folder:
    """A journal in a folder of its own."""

    folder: Path
    journal: SpoolJournal

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.folder = Path(tempfile.mkdtemp(prefix="voiceai-journal-"))
        self.journal = SpoolJournal(self.folder, "1-abcd")
        self.now = 1000.0

    def tearDown(self) -> None:
        self.journal.close()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()
        super().tearDown()  # type: ignore[misc]

    def writer(self, **changes: Any) -> JournalWriter:
        return JournalWriter(self.journal, clock=lambda: self.now, **changes)

    def write(self, *entries: Entry) -> None:
        for entry in entries:
            self.journal.write(entry)

    def quarantined(self) -> list[bytes]:
        found = [path.read_bytes() for path in self.folder.glob("*.quarantine")]
        return b"".join(found).splitlines(keepends=True)


def work(writer: JournalWriter) -> None:
    while writer.step():
        pass


class StepTests(Folder, TestCase):
    """The writer's work, step by step on this thread."""

    def test_it_makes_rows_and_tells_whose(self) -> None:
        told: list[set[str]] = []
        writer = self.writer(on_commit=told.append)
        self.write(CallOffered(SID, 5.0), spoken(0), spoken(1))
        self.assertEqual(writer.figures().backlog, 3)
        work(writer)
        self.assertEqual(Utterance.objects.count(), 2)
        self.assertEqual(told, [{SID}])
        figures = writer.figures()
        self.assertEqual((figures.backlog, figures.backlog_bytes, figures.applied), (0, 0, 3))

    def test_it_works_in_batches(self) -> None:
        self.write(*(spoken(number) for number in range(BATCH + 1)))
        writer = self.writer()
        self.assertTrue(writer.step())
        self.assertEqual(Utterance.objects.count(), BATCH)
        work(writer)
        self.assertEqual(Utterance.objects.count(), BATCH + 1)

    def test_a_listener_that_fails_costs_nothing(self) -> None:
        def fail(call_sids: set[str]) -> None:
            raise RuntimeError("nobody home")

        writer = self.writer(on_commit=fail)
        self.write(spoken(0))
        with self.assertLogs("calls.ingest.batch", "ERROR"):
            work(writer)
        self.assertEqual((Utterance.objects.count(), writer.figures().retries), (1, 0))

    def test_what_the_database_refuses_is_put_aside_alone(self) -> None:
        bad: list[Entry] = [spoken(1, speaker="robot"), StreamStarted(SID, "yesterday", "MZ1")]  # type: ignore[arg-type]
        self.write(spoken(0), *bad, spoken(2))
        writer = self.writer()
        with self.assertLogs("calls.ingest.batch", "ERROR"):
            work(writer)
        self.assertEqual(sorted(Utterance.objects.values_list("index", flat=True)), [0, 2])
        self.assertEqual([from_line(line) for line in self.quarantined()], bad)
        self.assertEqual((writer.figures().quarantined, writer.figures().retries), (2, 0))

    def test_damaged_lines_are_put_aside_alone(self) -> None:
        flipped = bytearray(to_line(spoken(1)))
        flipped[30] ^= 1
        self.write(spoken(0))
        self.journal.spool.append(bytes(flipped))
        self.journal.spool.append(b"\n")
        self.write(spoken(2))
        work(writer := self.writer())
        self.assertEqual(sorted(Utterance.objects.values_list("index", flat=True)), [0, 2])
        self.assertEqual(self.quarantined(), [bytes(flipped)])
        self.assertEqual((writer.figures().quarantined, writer.figures().backlog), (1, 0))

    def test_nothing_but_damage_is_no_batch(self) -> None:
        self.journal.spool.append(b"noise\n")
        work(self.writer())
        self.assertEqual(self.quarantined(), [b"noise\n"])

    def test_a_quarantine_that_cannot_be_written_holds_up_nothing(self) -> None:
        (self.folder / "1-abcd.quarantine").symlink_to("/dev/null")
        self.journal.spool.append(b"noise\n")
        self.write(spoken(0))
        with self.assertLogs("calls.ingest.writer", "ERROR"):
            work(self.writer())
        self.assertEqual(Utterance.objects.count(), 1)

    def test_a_full_quarantine_counts_on(self) -> None:
        with (self.folder / "old.quarantine").open("wb") as old:
            old.truncate(10 * 1024 * 1024)
        self.journal.spool.append(b"noise\n")
        with self.assertLogs("calls.ingest.writer", "ERROR"):
            work(writer := self.writer())
        self.assertEqual(writer.figures().quarantined, 1)

    # Parked

    def test_a_report_waits_for_its_call(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1", summary="Well.")
        writer = self.writer()
        self.write(report)
        work(writer)
        self.assertEqual((writer.figures().parked, writer.figures().applied), (1, 0))
        self.write(AssistantAnswered(SID, 5.0, 300, "vapi-1"))
        work(writer)
        self.assertEqual(Call.objects.get().summary, "")
        self.now += 1.1
        work(writer)
        self.assertEqual(Call.objects.get().summary, "Well.")
        self.assertEqual((writer.figures().parked, writer.figures().quarantined), (0, 0))

    def test_a_report_whose_call_never_comes_is_put_aside(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1")
        self.write(report)
        work(writer := self.writer())
        self.now += PARK_SECONDS - 1
        work(writer)
        self.assertEqual(writer.figures().parked, 1)
        self.now += 2
        work(writer)
        self.assertEqual((writer.figures().parked, writer.figures().quarantined), (0, 1))
        self.assertEqual([from_line(line) for line in self.quarantined()], [report])

    def test_parked_reports_stay_on_the_disk_when_the_spool_is_cut(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1")
        self.write(report, *(spoken(number, "x" * 2000) for number in range(CUT_ABOVE_BYTES // 2000 + 1)))
        work(writer := self.writer())
        self.assertEqual(self.journal.spool.path.read_bytes(), to_line(report))
        self.write(spoken(10_000))
        work(writer)
        self.assertEqual(writer.figures().parked, 1)  # read once only
        self.assertEqual(writer.figures().backlog, 0)

    def test_only_so_many_are_parked(self) -> None:
        with mock.patch("calls.ingest.writer.MAX_PARKED", 2):
            self.write(*(AssistantReported("", 9.0, "status-update", f"vapi-{n}") for n in range(3)))
            work(writer := self.writer())
        self.assertEqual((writer.figures().parked, writer.figures().quarantined), (2, 1))

    # The file

    def test_the_spool_is_cut_when_it_is_long_or_quiet(self) -> None:
        self.write(spoken(0))
        work(writer := self.writer())
        self.assertGreater(self.journal.spool.size, 0)
        self.now += 31
        work(writer)
        self.assertEqual(self.journal.spool.size, 0)
        self.write(spoken(1))
        work(writer)
        self.assertEqual(Utterance.objects.count(), 2)

    def test_it_goes_on_when_the_disk_does_not_sync(self) -> None:
        self.write(spoken(0))
        writer = self.writer()
        self.now += 1
        broken = mock.patch.object(os, "fdatasync", side_effect=OSError(5, "Input/output error"))
        with broken, self.assertLogs("calls.ingest.writer", "ERROR"):
            work(writer)
        self.assertEqual(Utterance.objects.count(), 1)

    def test_write_never_raises(self) -> None:
        class Odd:
            def __str__(self) -> str:
                raise RuntimeError("odd indeed")

        with self.assertLogs("calls.ingest.writer", "ERROR"):
            self.write(Happened(SID, 0, "odd", data={"odd": Odd()}))
        self.assertEqual(self.writer().figures().dropped, 1)
        self.journal.close()
        self.write(spoken(0))
        self.assertEqual(self.writer().figures().dropped, 2)

    # Spools of the dead

    def dead(self, name: str, *entries: Entry, tail: bytes = b"") -> Path:
        path = self.folder / f"{name}.log"
        path.write_bytes(b"".join(map(to_line, entries)) + tail)
        return path

    def test_it_applies_what_the_dead_left_oldest_first(self) -> None:
        old = self.dead("old", spoken(0, "old"), spoken(1), tail=to_line(spoken(9))[:20])
        new = self.dead("new", spoken(0, "new"))
        os.utime(old, (1, 1))
        self.write(spoken(2))
        writer = self.writer()
        writer.step()
        self.assertEqual(Utterance.objects.get(index=0).text, "old")
        self.assertEqual(Utterance.objects.count(), 3)  # our own entries do not wait behind the dead
        work(writer)
        self.assertEqual(Utterance.objects.get(index=0).text, "new")
        self.assertFalse(old.exists() or new.exists())
        self.assertEqual(self.quarantined(), [to_line(spoken(9))[:20] + b"\n"])

    def test_it_finds_those_who_die_later(self) -> None:
        work(writer := self.writer())
        self.dead("late", spoken(0))
        work(writer)
        self.assertEqual(Utterance.objects.count(), 0)
        self.now += ROUNDS_SECONDS
        work(writer)
        self.assertEqual(Utterance.objects.count(), 1)

    def test_a_dead_ones_report_waits_in_our_own_spool(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1")
        path = self.dead("old", report)
        work(writer := self.writer())
        self.assertFalse(path.exists())
        self.assertEqual(self.journal.spool.path.read_bytes(), to_line(report))
        self.assertEqual(writer.figures().parked, 1)

    def test_a_dead_ones_report_is_put_aside_when_our_spool_is_full(self) -> None:
        self.dead("old", AssistantReported("", 9.0, "end-of-call-report", "vapi-1"))
        self.journal.spool._cap = 10
        work(writer := self.writer())
        self.assertEqual((writer.figures().parked, writer.figures().quarantined), (0, 1))

    # Leases

    def test_a_start_that_waited_for_the_database_gets_a_fresh_lease(self) -> None:
        self.write(StreamStarted(SID, 5.0, "MZ1"))
        work(self.writer(live_calls=lambda: [SID]))
        lease = Call.objects.get().lease_until
        assert lease is not None
        self.assertGreater(lease, now_utc() + timedelta(seconds=10))

    def test_a_call_that_nobody_carries_is_ended_and_told(self) -> None:
        told: list[set[str]] = []
        writer = self.writer(on_commit=told.append)
        self.write(StreamStarted(SID, 5.0, "MZ1"))
        work(writer)
        told.clear()
        self.now += ROUNDS_SECONDS
        with self.assertLogs("calls.ingest.housekeeping", "WARNING"):
            work(writer)
        self.assertEqual(Call.objects.get().end_reason, "worker-lost")
        self.assertEqual(told, [{SID}])

    # Routes

    def test_routes_are_read_at_once_and_often_enough_for_five_seconds(self) -> None:
        self.assertLess(ROUTES_SECONDS + 2 * TICK_SECONDS, 5)
        taken: list[list[Mapping[str, Any]]] = []
        writer = self.writer(on_routes=lambda found: taken.append(list(found)))
        work(writer)
        PhoneNumber.objects.create(number="+15559870000")
        work(writer)
        self.assertEqual(taken, [[]], "not before it is time")
        self.now += ROUTES_SECONDS
        work(writer)
        self.assertEqual([route["number"] for route in taken[-1]], ["+15559870000"])


class RoundsTests(TestCase):
    def setUp(self) -> None:
        self.live: list[str] = []
        self.taken: list[list[Mapping[str, Any]]] = []
        self.rounds = Rounds(lambda: self.live, self.take, started_at=0.0)
        self.began = now_utc()
        self.call = make_call(status="in-progress", end_reason="", lease_until=self.began)

    def take(self, found: Iterable[Mapping[str, Any]]) -> None:
        self.taken.append(list(found))

    def go(self, mono: float, *, step: float = 0.0) -> list[str]:
        return self.rounds.go(mono, self.began + timedelta(seconds=mono + step))

    def test_it_renews_our_own_and_reaps_the_others(self) -> None:
        ours = make_call(status="in-progress", end_reason="", lease_until=self.began)
        self.live = [ours.call_sid]
        self.assertEqual(self.go(0), [])  # others may be starting as we are
        self.assertEqual(self.go(5), [self.call.call_sid])
        self.assertEqual(self.go(10), [])

    def test_it_waits_two_leases_after_a_time_without_renewal(self) -> None:
        self.go(0)
        for mono, ended in ((60, 0), (65, 0), (70, 0), (75, 0), (80, 0), (85, 0), (90, 1)):
            self.assertEqual(len(self.go(mono)), ended, mono)

    def test_it_waits_two_leases_after_a_step_of_the_clock(self) -> None:
        self.go(0)
        for mono, ended in ((5, 0), (10, 0), (15, 0), (20, 0), (25, 0), (30, 0), (35, 1)):
            self.assertEqual(len(self.go(mono, step=3600)), ended, mono)

    def test_it_hands_over_the_active_numbers(self) -> None:
        number = PhoneNumber.objects.create(number="+15559870000", assistant_id="a1", overrides=[1])
        PhoneNumber.objects.create(number="+15559870001", active=False)
        self.rounds.refresh_routes()
        (found,) = self.taken[0]
        self.assertEqual((found["id"], found["assistant_id"]), (str(number.pk), "a1"))
        self.assertEqual((found["overrides"], found["record"]), ({}, None))

    def test_routes_have_the_names_that_the_bridge_knows(self) -> None:
        from bridge.admission import Route

        PhoneNumber.objects.create(number="+15559870000", record_calls=True, max_call_seconds=60)
        (route,) = (Route(**row) for row in active_routes())
        self.assertEqual((route.number, route.record, route.max_call_seconds), ("+15559870000", True, 60))

    def test_routes_that_nobody_takes_stop_nothing(self) -> None:
        failing = Rounds(list, self.fail_to_take, started_at=0.0)
        with self.assertLogs("calls.ingest.housekeeping", "ERROR"):
            failing.refresh_routes()

    def fail_to_take(self, found: Iterable[Mapping[str, Any]]) -> None:
        raise KeyError("mood")


@contextmanager
def other_connection() -> Iterator[Any]:
    """A connection beside the one that this thread uses."""
    other = connections.create_connection("default")
    try:
        yield other
    finally:
        other.close()


@contextmanager
def without_table(table: str) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {table}_gone")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table}_gone RENAME TO {table}")


@contextmanager
def locked() -> Iterator[None]:
    """Nobody else writes, or on PostgreSQL even reads, calls."""
    with other_connection() as other, other.cursor() as cursor:
        if other.vendor == "sqlite":
            cursor.execute("BEGIN EXCLUSIVE")
        else:
            other.set_autocommit(False)
            cursor.execute("LOCK TABLE calls_call IN ACCESS EXCLUSIVE MODE")
        yield
        other.rollback() if other.vendor != "sqlite" else cursor.execute("ROLLBACK")


@pytest.mark.slow
class ThreadTests(Folder, TransactionTestCase):
    """The thread itself, on real connections."""

    def setUp(self) -> None:
        super().setUp()
        self.committed = threading.Condition()
        self.started: list[JournalWriter] = []

    def tearDown(self) -> None:
        for writer in self.started:
            writer.stop(10)
            self.assertFalse(writer.is_alive())
        super().tearDown()

    def start(self, journal: SpoolJournal | None = None, **changes: Any) -> JournalWriter:
        writer = JournalWriter(journal or self.journal, on_commit=self.tell, **changes)
        self.started.append(writer)
        writer.start()
        return writer

    def tell(self, call_sids: set[str]) -> None:
        with self.committed:
            self.committed.notify_all()

    def wait_for_rows(self, count: int, seconds: float = 20) -> None:
        with self.committed:
            found = self.committed.wait_for(lambda: Utterance.objects.count() >= count, seconds)
        assert found, (Utterance.objects.count(), self.started[0].figures())

    def test_an_entry_is_a_row_soon_after(self) -> None:
        writer = self.start()
        self.write(spoken(0))
        self.wait_for_rows(1)
        self.assertEqual(writer.figures().applied, 1)

    def test_at_the_stop_everything_is_written_and_the_spool_is_empty(self) -> None:
        writer = self.start()
        self.write(*(spoken(number) for number in range(1200)))
        writer.stop(20)
        self.assertFalse(writer.is_alive())
        self.assertEqual(Utterance.objects.count(), 1200)
        self.assertEqual(self.journal.spool.size, 0)
        writer.stop(1)  # twice is once
        self.journal.close()
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_stopping_a_writer_that_never_ran_is_nothing(self) -> None:
        JournalWriter(self.journal).stop(1)

    def test_what_is_written_after_the_stop_waits_for_the_next_start(self) -> None:
        self.start().stop(10)
        self.write(spoken(0))
        self.journal.close()
        self.start(SpoolJournal(self.folder, "2-next"))
        self.wait_for_rows(1)

    def test_while_a_table_is_missing_entries_wait_and_it_says_why_once(self) -> None:
        with without_table("calls_utterance"), self.assertLogs("calls.ingest.writer", "WARNING") as logs:
            writer = self.start()
            self.write(*(spoken(number) for number in range(30)))
            until(lambda: writer.figures().retries >= 3, "it tries again")
            self.assertEqual((writer.figures().backlog, writer.figures().quarantined), (30, 0))
            self.assertEqual(len([line for line in logs.output if "rows wait" in line]), 1)
            self.assertIn("migrate", logs.output[0])
        self.wait_for_rows(30)
        until(lambda: not writer.figures().last_error, "it is well again")
        texts = Utterance.objects.order_by("index").values_list("index", flat=True)
        self.assertEqual(list(texts), list(range(30)))

    def test_a_locked_database_costs_the_caller_nothing_and_no_row(self) -> None:
        timeout = connection.settings_dict["OPTIONS"].get("timeout")
        if connection.vendor == "sqlite":
            connection.settings_dict["OPTIONS"]["timeout"] = 0.2
            self.addCleanup(connection.settings_dict["OPTIONS"].update, timeout=timeout)
        writer = self.start()
        self.write(spoken(0))
        self.wait_for_rows(1)
        with self.assertLogs("calls.ingest.writer", "INFO"):
            with locked():
                began = time.monotonic()
                self.write(*(spoken(number) for number in range(1, 301)))
                took = time.monotonic() - began
                until(lambda: writer.figures().retries >= 2, "it gives up on the lock and tries again")
                self.assertEqual(writer.figures().backlog, 300)
            self.wait_for_rows(301)
        self.assertLess(took, 0.5)
        self.assertEqual(writer.figures().quarantined, 0)

    def test_a_stop_while_the_database_is_away_keeps_its_time_and_the_entries(self) -> None:
        with without_table("calls_utterance"), self.assertLogs("calls.ingest.writer", "WARNING"):
            writer = self.start()
            self.write(spoken(0), spoken(1))
            until(lambda: writer.figures().retries >= 1, "it has noticed")
            began = time.monotonic()
            writer.stop(0.5)
            self.assertLess(time.monotonic() - began, 2)
            writer.join(10)
        self.journal.close()
        self.start(SpoolJournal(self.folder, "2-next"))
        self.wait_for_rows(2)

    def test_a_report_waits_out_a_database_that_is_away(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1", summary="Well.")
        writer = self.start()
        self.write(report)
        until(lambda: writer.figures().parked == 1, "it is parked")
        with without_table("calls_callevent"), self.assertLogs("calls.ingest.writer", "WARNING"):
            make_call(vapi_call_id="vapi-1")
            until(lambda: writer.figures().retries >= 1, "it was tried")
        until(lambda: writer.figures().parked == 0, "it has its call")
        self.assertEqual(Call.objects.get().summary, "Well.")

    def test_a_bug_does_not_end_the_thread(self) -> None:
        writer = self.start()
        broken = mock.patch.object(Spool, "read", side_effect=OSError(5, "Input/output error"))
        with broken, self.assertLogs("calls.ingest.writer", "ERROR") as logs:
            self.write(spoken(0))
            until(lambda: bool(logs.records), "it stumbled")
        self.wait_for_rows(1)
        self.assertTrue(writer.is_alive())

    def test_trouble_in_the_rounds_passes(self) -> None:
        def away() -> Sequence[str]:
            if fails:
                raise fails.pop()
            return []

        fails = [OperationalError("gone"), RuntimeError("strange")]
        often = mock.patch("calls.ingest.writer.ROUNDS_SECONDS", 0.1)
        with often, self.assertLogs("calls.ingest.writer", "INFO") as logs:
            writer = self.start(live_calls=away)
            until(lambda: writer.figures().retries == 2, "both went wrong")
            until(lambda: not writer.figures().last_error, "it is well again")
        self.assertIn("takes rows again", logs.output[-1])

    def test_its_connection_is_from_no_pool(self) -> None:
        done: list[object] = []

        def look() -> None:
            housekeeping.use_own_connection()
            done.append(connection.settings_dict["OPTIONS"].get("pool"))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join(5)
        self.assertEqual(done, [None])

    def test_what_a_killed_server_had_acknowledged_becomes_rows(self) -> None:
        """Entries from several threads, then SIGKILL; whatever was acknowledged before is a row after."""
        program = f"""
import os, signal, threading
from pathlib import Path
from bridge.journal import UtteranceSpoken, to_line
from calls.ingest.spool import Spool
spool = Spool(Path({str(self.folder)!r}) / "9-killed.log")
def talk(first):
    for number in range(first, 100_000, 3):
        spool.append(to_line(UtteranceSpoken({SID!r}, number, "caller", "said")))
        os.write(1, b"%d\\n" % number)
for first in range(3):
    threading.Thread(target=talk, args=(first,), daemon=True).start()
signal.pause()
"""
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
        assert child.stdout is not None
        acknowledged = {int(child.stdout.readline()) for _ in range(1000)}
        os.kill(child.pid, signal.SIGKILL)
        acknowledged |= {int(line) for line in child.stdout if line.endswith(b"\n")}
        child.stdout.close()
        child.wait(10)
        writer = self.start()
        until(lambda: not (self.folder / "9-killed.log").exists(), "it is replayed and removed", 60)
        found = set(Utterance.objects.values_list("index", flat=True))
        self.assertLessEqual(acknowledged, found)
        self.assertLessEqual(writer.figures().quarantined, 1)
        self.assertEqual(CallEvent.objects.count(), 0)
