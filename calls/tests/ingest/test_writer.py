"""The writer thread: no acknowledged entry is lost when the database, the disk or the process fails."""

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
    StreamStarted,
    TimelineEvent,
    UtteranceSpoken,
    from_line,
    to_line,
)
from calls.ingest.db import now_utc
from calls.ingest.housekeeping import HOUSEKEEPING_INTERVAL_SECONDS, Housekeeping
from calls.ingest.journal import SpoolJournal
from calls.ingest.spool import Spool
from calls.ingest.writer import (
    DEFER_SECONDS,
    MAX_BATCH,
    TICK_SECONDS,
    TRUNCATE_ABOVE_BYTES,
    JournalWriter,
)
from calls.models import Call, CallEvent, PhoneNumber, Utterance
from calls.routes import read_routes
from calls.tests.builders import make_call

SID = "CA" + "7" * 32
ROOT = Path(settings.BASE_DIR)


def make_entry(number: int, text: str = "Hello.", speaker: str = "caller") -> UtteranceSpoken:
    return UtteranceSpoken(SID, number, speaker, text)


def wait_until(condition: Callable[[], bool], failure: str, timeout_seconds: float = 20) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.01)


class JournalFolderMixin:
    """A journal in a temporary folder."""

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

    def make_writer(self, **changes: Any) -> JournalWriter:
        return JournalWriter(self.journal, clock=lambda: self.now, **changes)

    def write(self, *entries: Entry) -> None:
        for entry in entries:
            self.journal.write(entry)

    def read_quarantine(self) -> list[bytes]:
        files = [path.read_bytes() for path in self.folder.glob("*.quarantine")]
        return b"".join(files).splitlines(keepends=True)


def drain(writer: JournalWriter) -> None:
    while writer.step():
        pass


class StepTests(JournalFolderMixin, TestCase):
    """The writer's steps, run on the test's thread."""

    def test_it_writes_rows_and_reports_their_calls(self) -> None:
        notified: list[set[str]] = []
        writer = self.make_writer(on_commit=notified.append)
        self.write(CallOffered(SID, 5.0), make_entry(0), make_entry(1))
        self.assertEqual(writer.stats().backlog, 3)
        drain(writer)
        self.assertEqual(Utterance.objects.count(), 2)
        self.assertEqual(notified, [{SID}])
        stats = writer.stats()
        self.assertEqual((stats.backlog, stats.backlog_bytes, stats.applied), (0, 0, 3))

    def test_it_applies_lines_in_batches(self) -> None:
        self.write(*(make_entry(number) for number in range(MAX_BATCH + 1)))
        writer = self.make_writer()
        self.assertTrue(writer.step())
        self.assertEqual(Utterance.objects.count(), MAX_BATCH)
        drain(writer)
        self.assertEqual(Utterance.objects.count(), MAX_BATCH + 1)

    def test_a_failing_listener_does_not_stop_the_writer(self) -> None:
        def fail(call_sids: set[str]) -> None:
            raise RuntimeError("a bug")

        writer = self.make_writer(on_commit=fail)
        self.write(make_entry(0))
        with self.assertLogs("calls.ingest.batch", "ERROR"):
            drain(writer)
        self.assertEqual((Utterance.objects.count(), writer.stats().retries), (1, 0))

    def test_it_quarantines_only_the_entry_that_the_database_rejects(self) -> None:
        bad: list[Entry] = [make_entry(1, speaker="robot"), StreamStarted(SID, "yesterday", "MZ1")]  # type: ignore[arg-type]
        self.write(make_entry(0), *bad, make_entry(2))
        writer = self.make_writer()
        with self.assertLogs("calls.ingest.batch", "ERROR"):
            drain(writer)
        self.assertEqual(sorted(Utterance.objects.values_list("index", flat=True)), [0, 2])
        self.assertEqual([from_line(line) for line in self.read_quarantine()], bad)
        self.assertEqual((writer.stats().quarantined, writer.stats().retries), (2, 0))

    def test_it_quarantines_only_the_damaged_lines(self) -> None:
        flipped = bytearray(to_line(make_entry(1)))
        flipped[30] ^= 1
        self.write(make_entry(0))
        self.journal.spool.append(bytes(flipped))
        self.journal.spool.append(b"\n")
        self.write(make_entry(2))
        drain(writer := self.make_writer())
        self.assertEqual(sorted(Utterance.objects.values_list("index", flat=True)), [0, 2])
        self.assertEqual(self.read_quarantine(), [bytes(flipped)])
        self.assertEqual((writer.stats().quarantined, writer.stats().backlog), (1, 0))

    def test_a_batch_of_damaged_lines_makes_no_query(self) -> None:
        drain(writer := self.make_writer())  # the first step reads routes and ends lost calls
        self.journal.spool.append(b"noise\n")
        queries: list[str] = []

        def record(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
            queries.append(sql)
            return execute(sql, *arguments)

        with connection.execute_wrapper(record):  # the writer resets the log that `assertNumQueries` reads
            drain(writer)
        self.assertEqual(queries, [])
        self.assertEqual(self.read_quarantine(), [b"noise\n"])

    def test_an_unwritable_quarantine_does_not_stop_the_writer(self) -> None:
        (self.folder / "1-abcd.quarantine").symlink_to("/dev/null")
        self.journal.spool.append(b"noise\n")
        self.write(make_entry(0))
        with self.assertLogs("calls.ingest.writer", "ERROR"):
            drain(self.make_writer())
        self.assertEqual(Utterance.objects.count(), 1)

    def test_a_full_quarantine_still_counts(self) -> None:
        with (self.folder / "old.quarantine").open("wb") as old:
            old.truncate(10 * 1024 * 1024)
        self.journal.spool.append(b"noise\n")
        with self.assertLogs("calls.ingest.writer", "ERROR"):
            drain(writer := self.make_writer())
        self.assertEqual(writer.stats().quarantined, 1)

    # Deferred

    def test_a_report_is_deferred_until_its_call_is_known(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1", summary="Well.")
        writer = self.make_writer()
        self.write(report)
        drain(writer)
        self.assertEqual((writer.stats().deferred, writer.stats().applied), (1, 0))
        self.write(AssistantAnswered(SID, 5.0, 300, "vapi-1"))
        drain(writer)
        self.assertEqual(Call.objects.get().summary, "")
        self.now += 1.1
        drain(writer)
        self.assertEqual(Call.objects.get().summary, "Well.")
        self.assertEqual((writer.stats().deferred, writer.stats().quarantined), (0, 0))

    def test_a_report_whose_call_stays_unknown_is_quarantined(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1")
        self.write(report)
        drain(writer := self.make_writer())
        self.now += DEFER_SECONDS - 1
        drain(writer)
        self.assertEqual(writer.stats().deferred, 1)
        self.now += 2
        drain(writer)
        self.assertEqual((writer.stats().deferred, writer.stats().quarantined), (0, 1))
        self.assertEqual([from_line(line) for line in self.read_quarantine()], [report])

    def test_deferred_reports_stay_on_disk_when_the_spool_is_truncated(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1")
        self.write(
            report, *(make_entry(number, "x" * 2000) for number in range(TRUNCATE_ABOVE_BYTES // 2000 + 1))
        )
        drain(writer := self.make_writer())
        self.assertEqual(self.journal.spool.path.read_bytes(), to_line(report))
        self.write(make_entry(10_000))
        drain(writer)
        self.assertEqual(writer.stats().deferred, 1)  # read once only
        self.assertEqual(writer.stats().backlog, 0)

    def test_deferred_reports_are_bounded(self) -> None:
        with mock.patch("calls.ingest.writer.MAX_DEFERRED", 2):
            self.write(*(AssistantReported("", 9.0, "status-update", f"vapi-{n}") for n in range(3)))
            drain(writer := self.make_writer())
        self.assertEqual((writer.stats().deferred, writer.stats().quarantined), (2, 1))

    # The file

    def test_the_spool_is_truncated_when_it_is_large_or_idle(self) -> None:
        self.write(make_entry(0))
        drain(writer := self.make_writer())
        self.assertGreater(self.journal.spool.size, 0)
        self.now += 31
        drain(writer)
        self.assertEqual(self.journal.spool.size, 0)
        self.write(make_entry(1))
        drain(writer)
        self.assertEqual(Utterance.objects.count(), 2)

    def test_a_failing_sync_does_not_stop_the_writer(self) -> None:
        self.write(make_entry(0))
        writer = self.make_writer()
        self.now += 1
        broken = mock.patch.object(os, "fdatasync", side_effect=OSError(5, "Input/output error"))
        with broken, self.assertLogs("calls.ingest.writer", "ERROR"):
            drain(writer)
        self.assertEqual(Utterance.objects.count(), 1)

    def test_write_never_raises(self) -> None:
        class Unprintable:
            def __str__(self) -> str:
                raise RuntimeError("not printable")

        with self.assertLogs("calls.ingest.journal", "ERROR"):
            self.write(TimelineEvent(SID, 0, "dtmf", data={"digit": Unprintable()}))
        self.assertEqual(self.make_writer().stats().dropped, 1)
        self.journal.close()
        self.write(make_entry(0))
        self.assertEqual(self.make_writer().stats().dropped, 2)

    # Abandoned spools

    def abandon(self, name: str, *entries: Entry, tail: bytes = b"") -> Path:
        path = self.folder / f"{name}.log"
        path.write_bytes(b"".join(map(to_line, entries)) + tail)
        return path

    def test_it_applies_abandoned_spools_oldest_first(self) -> None:
        old = self.abandon("old", make_entry(0, "old"), make_entry(1), tail=to_line(make_entry(9))[:20])
        new = self.abandon("new", make_entry(0, "new"))
        os.utime(old, (1, 1))
        self.write(make_entry(2))
        writer = self.make_writer()
        writer.step()
        self.assertEqual(Utterance.objects.get(index=0).text, "old")
        self.assertEqual(Utterance.objects.count(), 3)  # our own entries do not wait for the abandoned spools
        drain(writer)
        self.assertEqual(Utterance.objects.get(index=0).text, "new")
        self.assertFalse(old.exists() or new.exists())
        self.assertEqual(self.read_quarantine(), [to_line(make_entry(9))[:20] + b"\n"])

    def test_it_claims_a_spool_that_is_abandoned_later(self) -> None:
        drain(writer := self.make_writer())
        self.abandon("late", make_entry(0))
        drain(writer)
        self.assertEqual(Utterance.objects.count(), 0)
        self.now += HOUSEKEEPING_INTERVAL_SECONDS
        drain(writer)
        self.assertEqual(Utterance.objects.count(), 1)

    def test_a_deferred_report_moves_from_an_abandoned_spool_to_our_own(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1")
        path = self.abandon("old", report)
        drain(writer := self.make_writer())
        self.assertFalse(path.exists())
        self.assertEqual(self.journal.spool.path.read_bytes(), to_line(report))
        self.assertEqual(writer.stats().deferred, 1)

    def test_a_report_of_an_abandoned_spool_is_quarantined_when_ours_is_full(self) -> None:
        self.abandon("old", AssistantReported("", 9.0, "end-of-call-report", "vapi-1"))
        self.journal.spool._cap = 10
        drain(writer := self.make_writer())
        self.assertEqual((writer.stats().deferred, writer.stats().quarantined), (0, 1))

    # Leases

    def test_a_delayed_start_gets_a_new_lease(self) -> None:
        self.write(StreamStarted(SID, 5.0, "MZ1"))
        drain(self.make_writer(live_calls=lambda: [SID]))
        lease = Call.objects.get().lease_until
        assert lease is not None
        self.assertGreater(lease, now_utc() + timedelta(seconds=10))

    def test_a_lost_call_is_ended_and_notified(self) -> None:
        notified: list[set[str]] = []
        writer = self.make_writer(on_commit=notified.append)
        self.write(StreamStarted(SID, 5.0, "MZ1"))
        drain(writer)
        notified.clear()
        self.now += HOUSEKEEPING_INTERVAL_SECONDS
        with self.assertLogs("calls.ingest.housekeeping", "WARNING"):
            drain(writer)
        self.assertEqual(Call.objects.get().end_reason, "worker-lost")
        self.assertEqual(notified, [{SID}])

    # Routes

    def test_a_new_number_takes_effect_within_five_seconds(self) -> None:
        received: list[list[Mapping[str, Any]]] = []
        writer = self.make_writer(on_routes=lambda routes: received.append(list(routes)))
        drain(writer)
        PhoneNumber.objects.create(number="+15559870000")
        created_at = self.now
        while received[-1:] == [[]]:
            self.assertLess(self.now - created_at, 5)
            self.now += TICK_SECONDS
            drain(writer)
        self.assertEqual([route["number"] for route in received[-1]], ["+15559870000"])


class HousekeepingTests(TestCase):
    def setUp(self) -> None:
        self.live: list[str] = []
        self.received: list[list[Mapping[str, Any]]] = []
        self.housekeeping = Housekeeping(lambda: self.live, self.receive_routes, started_at=0.0)
        self.started_at = now_utc()
        self.call = make_call(status="in-progress", end_reason="", lease_until=self.started_at)

    def receive_routes(self, routes: Iterable[Mapping[str, Any]]) -> None:
        self.received.append(list(routes))

    def run_once(self, monotonic: float, *, step: float = 0.0) -> list[str]:
        return self.housekeeping.run_once(monotonic, self.started_at + timedelta(seconds=monotonic + step))

    def test_it_renews_its_own_leases_and_reaps_expired_ones(self) -> None:
        own_call = make_call(status="in-progress", end_reason="", lease_until=self.started_at)
        self.live = [own_call.call_sid]
        self.assertEqual(self.run_once(0), [])  # other processes may be starting as well
        self.assertEqual(self.run_once(5), [self.call.call_sid])
        self.assertEqual(self.run_once(10), [])

    def test_the_reaper_pauses_after_a_time_without_renewal(self) -> None:
        self.run_once(0)
        for monotonic, ended in ((60, 0), (65, 0), (70, 0), (75, 0), (80, 0), (85, 0), (90, 1)):
            self.assertEqual(len(self.run_once(monotonic)), ended, monotonic)

    def test_the_reaper_pauses_after_a_clock_step(self) -> None:
        self.run_once(0)
        for monotonic, ended in ((5, 0), (10, 0), (15, 0), (20, 0), (25, 0), (30, 0), (35, 1)):
            self.assertEqual(len(self.run_once(monotonic, step=3600)), ended, monotonic)

    def test_it_reads_the_active_numbers(self) -> None:
        number = PhoneNumber.objects.create(number="+15559870000", assistant_id="a1", overrides=[1])
        PhoneNumber.objects.create(number="+15559870001", active=False)
        self.housekeeping.refresh()
        (route,) = self.received[0]
        self.assertEqual((route["id"], route["assistant_id"]), (str(number.pk), "a1"))
        self.assertEqual((route["overrides"], route["record"]), ({}, None))

    def test_the_bridge_can_resolve_the_routes(self) -> None:
        from bridge.config import BridgeConfig
        from bridge.routes import Route

        PhoneNumber.objects.create(number="+15559870000", record_calls=True, max_call_seconds=60)
        (route,) = (Route.resolve(BridgeConfig(), row) for row in read_routes())
        self.assertEqual((route.number, route.record, route.max_call_seconds), ("+15559870000", True, 60))

    def test_a_failing_route_listener_is_logged(self) -> None:
        failing = Housekeeping(list, self.reject_routes, started_at=0.0)
        with self.assertLogs("calls.ingest.housekeeping", "ERROR"):
            failing.refresh()

    def reject_routes(self, routes: Iterable[Mapping[str, Any]]) -> None:
        raise KeyError("missing")


@contextmanager
def open_second_connection() -> Iterator[Any]:
    """Another connection to the database than this thread's own."""
    other = connections.create_connection("default")
    try:
        yield other
    finally:
        other.close()


@contextmanager
def rename_table(table: str) -> Iterator[None]:
    """Until the block ends, the table has another name."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {table}_gone")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table}_gone RENAME TO {table}")


@contextmanager
def lock_calls() -> Iterator[None]:
    """Until the block ends, no other connection can write calls; on PostgreSQL none can read them either."""
    with open_second_connection() as other, other.cursor() as cursor:
        if other.vendor == "sqlite":
            cursor.execute("BEGIN EXCLUSIVE")
        else:
            other.set_autocommit(False)
            cursor.execute("LOCK TABLE calls_call IN ACCESS EXCLUSIVE MODE")
        yield
        other.rollback() if other.vendor != "sqlite" else cursor.execute("ROLLBACK")


@pytest.mark.slow
class ThreadTests(JournalFolderMixin, TransactionTestCase):
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
        writer = JournalWriter(journal or self.journal, on_commit=self.on_commit, **changes)
        self.started.append(writer)
        writer.start()
        return writer

    def on_commit(self, call_sids: set[str]) -> None:
        with self.committed:
            self.committed.notify_all()

    def wait_for_rows(self, count: int, timeout_seconds: float = 20) -> None:
        with self.committed:
            is_done = self.committed.wait_for(lambda: Utterance.objects.count() >= count, timeout_seconds)
        assert is_done, (Utterance.objects.count(), self.started[0].stats())

    def test_the_thread_writes_an_entry_to_the_database(self) -> None:
        writer = self.start()
        self.write(make_entry(0))
        self.wait_for_rows(1)
        self.assertEqual(writer.stats().applied, 1)

    def test_stop_writes_everything_and_leaves_an_empty_spool(self) -> None:
        writer = self.start()
        self.write(*(make_entry(number) for number in range(1200)))
        writer.stop(20)
        self.assertFalse(writer.is_alive())
        self.assertEqual(Utterance.objects.count(), 1200)
        self.assertEqual(self.journal.spool.size, 0)
        writer.stop(1)  # a second stop does nothing
        self.journal.close()
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_writer_that_never_started_can_be_stopped(self) -> None:
        writer = JournalWriter(self.journal)
        self.write(make_entry(0))
        writer.stop(1)
        self.assertEqual((writer.is_alive(), writer.stats().backlog), (False, 1))
        self.assertGreater(self.journal.spool.size, 0, "the entry must stay in the spool")

    def test_an_entry_written_after_the_stop_is_applied_at_the_next_start(self) -> None:
        self.start().stop(10)
        self.write(make_entry(0))
        self.journal.close()
        self.start(SpoolJournal(self.folder, "2-next"))
        self.wait_for_rows(1)

    def test_entries_wait_for_a_missing_table_and_the_log_names_it_once(self) -> None:
        with rename_table("calls_utterance"), self.assertLogs("calls.ingest.writer", "WARNING") as logs:
            writer = self.start()
            self.write(*(make_entry(number) for number in range(30)))
            wait_until(lambda: writer.stats().retries >= 3, "no retry")
            self.assertEqual((writer.stats().backlog, writer.stats().quarantined), (30, 0))
            self.assertEqual(len([line for line in logs.output if "does not accept rows" in line]), 1)
            self.assertIn("migrate", logs.output[0])
        self.wait_for_rows(30)
        wait_until(lambda: not writer.stats().last_error, "the error did not clear")
        indexes = Utterance.objects.order_by("index").values_list("index", flat=True)
        self.assertEqual(list(indexes), list(range(30)))

    def test_a_locked_database_blocks_no_write_and_loses_no_row(self) -> None:
        timeout_seconds = connection.settings_dict["OPTIONS"].get("timeout")
        if connection.vendor == "sqlite":
            connection.settings_dict["OPTIONS"]["timeout"] = 0.2
            self.addCleanup(connection.settings_dict["OPTIONS"].update, timeout=timeout_seconds)
        writer = self.start()
        self.write(make_entry(0))
        self.wait_for_rows(1)
        with self.assertLogs("calls.ingest.writer", "INFO"):
            with lock_calls():
                started_at = time.monotonic()
                self.write(*(make_entry(number) for number in range(1, 301)))
                write_seconds = time.monotonic() - started_at
                wait_until(lambda: writer.stats().retries >= 2, "no retry after the lock timeout")
                self.assertEqual(writer.stats().backlog, 300)
            self.wait_for_rows(301)
        self.assertLess(write_seconds, 0.5)
        self.assertEqual(writer.stats().quarantined, 0)

    def test_stop_keeps_its_deadline_and_the_entries_while_the_database_is_down(self) -> None:
        with rename_table("calls_utterance"), self.assertLogs("calls.ingest.writer", "WARNING"):
            writer = self.start()
            self.write(make_entry(0), make_entry(1))
            wait_until(lambda: writer.stats().retries >= 1, "no retry")
            started_at = time.monotonic()
            writer.stop(0.5)
            self.assertLess(time.monotonic() - started_at, 2)
            writer.join(10)
        self.journal.close()
        self.start(SpoolJournal(self.folder, "2-next"))
        self.wait_for_rows(2)

    def test_a_deferred_report_survives_a_database_that_is_down(self) -> None:
        report = AssistantReported("", 9.0, "end-of-call-report", "vapi-1", summary="Well.")
        writer = self.start()
        self.write(report)
        wait_until(lambda: writer.stats().deferred == 1, "not deferred")
        with rename_table("calls_callevent"), self.assertLogs("calls.ingest.writer", "WARNING"):
            make_call(vapi_call_id="vapi-1")
            wait_until(lambda: writer.stats().retries >= 1, "no retry")
        wait_until(lambda: writer.stats().deferred == 0, "still deferred")
        self.assertEqual(Call.objects.get().summary, "Well.")

    def test_a_bug_does_not_end_the_thread(self) -> None:
        writer = self.start()
        broken = mock.patch.object(Spool, "read", side_effect=OSError(5, "Input/output error"))
        with broken, self.assertLogs("calls.ingest.writer", "ERROR") as logs:
            self.write(make_entry(0))
            wait_until(lambda: bool(logs.records), "nothing logged")
        self.wait_for_rows(1)
        self.assertTrue(writer.is_alive())

    def test_it_recovers_from_errors_in_housekeeping(self) -> None:
        def get_live_calls() -> Sequence[str]:
            if fails:
                raise fails.pop()
            return []

        fails = [OperationalError("connection lost"), RuntimeError("a bug")]
        frequent = mock.patch("calls.ingest.writer.HOUSEKEEPING_INTERVAL_SECONDS", 0.1)
        with frequent, self.assertLogs("calls.ingest.writer", "INFO") as logs:
            writer = self.start(live_calls=get_live_calls)
            wait_until(lambda: writer.stats().retries == 2, "not both errors raised")
            wait_until(lambda: not writer.stats().last_error, "the error did not clear")
        self.assertIn("accepts rows again", logs.output[-1])

    def test_its_connection_is_not_from_the_pool(self) -> None:
        options: list[dict[str, Any]] = []

        def get_live_calls() -> Sequence[str]:
            options.append(connection.settings_dict["OPTIONS"])
            return []

        # SQLite has no pool, so the option is set for the test.
        with mock.patch.dict(connection.settings_dict["OPTIONS"], pool={"max_size": 1}):
            self.start(live_calls=get_live_calls)
            wait_until(lambda: bool(options), "no housekeeping")
        self.assertNotIn("pool", options[0])

    def test_acknowledged_entries_of_a_killed_server_are_written_to_the_database(self) -> None:
        """Several threads write entries until SIGKILL. The next writer applies every acknowledged entry."""
        program = f"""
import os, signal, threading
from pathlib import Path
from bridge.journal import UtteranceSpoken, to_line
from calls.ingest.spool import Spool
spool = Spool(Path({str(self.folder)!r}) / "9-killed.log")
def append(first):
    for number in range(first, 100_000, 3):
        spool.append(to_line(UtteranceSpoken({SID!r}, number, "caller", "Hello.")))
        os.write(1, b"%d\\n" % number)
for first in range(3):
    threading.Thread(target=append, args=(first,), daemon=True).start()
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
        wait_until(lambda: not (self.folder / "9-killed.log").exists(), "the spool was not applied", 60)
        found = set(Utterance.objects.values_list("index", flat=True))
        self.assertLessEqual(acknowledged, found)
        self.assertLessEqual(writer.stats().quarantined, 1)
        self.assertEqual(CallEvent.objects.count(), 0)
