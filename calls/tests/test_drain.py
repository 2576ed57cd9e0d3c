"""Draining: estimates, the command, the action of staff, and the row of each server process."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import SimpleTestCase, TestCase, override_settings
from django.urls import reverse
from django.utils import timezone

from calls.drain import MIN_SECONDS, estimate_seconds, get_status, request_drain
from calls.ingest.worker_row import WorkerRow, WorkerState
from calls.models import AuditEntry, Worker
from calls.models.worker import SEEN_WITHIN
from calls.tests.builders import make_call, make_staff


def make_worker(name: str = "w1", *, ago: timedelta = timedelta(), **values: Any) -> Worker:
    seen_at = timezone.now() - ago
    values = {"host": "a-host", "max_calls": 50} | values
    return Worker.objects.create(name=name, started_at=seen_at, seen_at=seen_at, **values)


class EstimateTests(SimpleTestCase):
    def test_it_depends_on_the_calls_that_took_longer(self) -> None:
        durations = [float(seconds) for seconds in range(10, 101, 10)]  # ten calls of 10 to 100 s
        for ages, expected in (
            ([], 0.0),
            ([0.0], 100.0),
            ([35.0], 65.0),
            ([35.0, 95.0], 65.0),
            ([99.5], MIN_SECONDS),
            ([150.0], 450.0),  # none took so long: it may take the longest time
            ([599.0], MIN_SECONDS),
        ):
            with self.subTest(ages=ages):
                self.assertEqual(estimate_seconds(ages, durations, 600.0), expected)
        self.assertEqual(estimate_seconds([10.0], [], 600.0), 590.0)


class StatusTests(TestCase):
    def test_it_counts_the_running_processes(self) -> None:
        self.assertEqual(get_status(timezone.now()).workers, ())
        make_worker("gone", ago=SEEN_WITHIN + timedelta(seconds=1), live_calls=9)
        make_worker("w1", live_calls=2)
        make_worker("w2", stopping=True)
        status = get_status(timezone.now())
        self.assertEqual((status.live_calls, status.max_calls), (2, 100))
        self.assertTrue(status.is_accepting)
        self.assertFalse(status.is_draining)
        Worker.objects.filter(name="w1").update(drain_requested=True)
        status = get_status(timezone.now())
        self.assertFalse(status.is_accepting)
        self.assertTrue(status.is_draining)

    def test_full_servers_accept_no_calls_and_do_not_drain(self) -> None:
        make_worker(live_calls=50)
        status = get_status(timezone.now())
        self.assertEqual((status.is_accepting, status.is_draining), (False, False))

    @override_settings(MAX_CALL_SECONDS=600)
    def test_it_says_when_the_servers_can_be_stopped(self) -> None:
        make_worker("w1", live_calls=1)
        now = timezone.now()
        for started, text in (
            (timedelta(seconds=30), "1 call, safe to stop in about 10 min"),
            (timedelta(seconds=570), "1 call, safe to stop in less than a minute"),
        ):
            call = make_call(status="in-progress", end_reason="", worker="w1", started_at=now - started)
            call.duration_seconds = None
            call.save()
            self.assertEqual(get_status(now).summary, text)
            call.delete()
        Worker.objects.update(live_calls=0)
        self.assertEqual(get_status(now).summary, "no calls, safe to stop")


class CommandTests(TestCase):
    def run_command(self, *arguments: str) -> str:
        output = io.StringIO()
        call_command("drain", *arguments, stdout=output)
        return output.getvalue()

    def test_it_drains_and_says_when_it_is_safe_to_stop(self) -> None:
        make_worker("w1")
        make_worker("w2")
        self.assertIn("w1 on a-host: accepts calls; 0 of 50 lines in use", self.run_command("--status"))
        output = self.run_command("--wait", "60")
        self.assertIn("w1 on a-host: takes no new calls; 0 of 50 lines in use", output)
        self.assertTrue(output.endswith("In all: no calls, safe to stop.\n"))
        self.assertEqual(Worker.objects.filter(drain_requested=True).count(), 2)
        self.run_command("--off", "--worker", "w2")
        self.assertEqual(list(Worker.objects.filter(drain_requested=True)), [Worker(name="w1")])

    def test_it_fails_without_a_server_and_if_calls_are_left(self) -> None:
        with pytest.raises(CommandError, match="No running server process reports to this database"):
            self.run_command()
        make_worker(live_calls=1)
        with pytest.raises(CommandError, match="No running server process has the name w9"):
            self.run_command("--worker", "w9")
        with pytest.raises(CommandError, match="There are calls left"):
            self.run_command("--wait", "0")
        make_worker("w2")
        make_call(status="in-progress", end_reason="", worker="w1", started_at=timezone.now())
        output = self.run_command("--worker", "w2", "--wait", "0")
        self.assertTrue(output.endswith("In all: no calls, safe to stop.\n"), "of this process alone")
        Worker.objects.all().delete()
        self.assertIn("no running server process reports", self.run_command("--status"))


class ActionTests(TestCase):
    def test_staff_with_the_permission_drain_the_servers(self) -> None:
        make_worker()
        self.client.force_login(make_staff("view_call", "drain_worker"))
        page = self.client.get("/").content.decode()
        self.assertIn("Accepting calls", page)
        self.assertIn("Stop accepting calls", page)
        self.client.post(reverse("drain"), {"drain": "on"})
        self.assertTrue(Worker.objects.get().drain_requested)
        page = self.client.get("/").content.decode()
        self.assertIn("Not accepting calls", page)
        self.assertIn("draining: no calls, safe to stop", page)
        self.client.post(reverse("drain"), {"drain": "off"})
        self.assertFalse(Worker.objects.get().drain_requested)
        actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
        self.assertEqual(actions, ["drain", "accept-calls"])

    def test_others_do_not(self) -> None:
        make_worker()
        self.client.force_login(make_staff("view_call", "act_on_call"))
        self.assertNotIn("Stop accepting calls", self.client.get("/").content.decode())
        self.assertEqual(self.client.post(reverse("drain"), {"drain": "on"}).status_code, 403)
        self.assertFalse(Worker.objects.get().drain_requested)
        self.assertEqual(self.client.get(reverse("drain")).status_code, 405)


class WorkerRowTests(TestCase):
    def setUp(self) -> None:
        self.state = WorkerState(3, 50, False)
        self.requests: list[bool] = []
        self.row = WorkerRow("w1", state=lambda: self.state, on_drain=self.requests.append)

    def test_it_reports_the_state_and_keeps_the_request(self) -> None:
        now, later = timezone.now(), timezone.now() + timedelta(seconds=5)
        make_worker("old", ago=timedelta(days=3))
        self.row.read_drain()
        self.assertEqual(self.requests, [], "there is no row yet")
        self.row.report(now)
        worker = Worker.objects.get()
        self.assertEqual((worker.live_calls, worker.started_at, worker.seen_at), (3, now, now))
        Worker.objects.update(drain_requested=True)
        self.state = WorkerState(2, 50, True)
        self.row.report(later)
        self.row.read_drain()
        worker = Worker.objects.get()
        self.assertEqual((worker.live_calls, worker.stopping, worker.drain_requested), (2, True, True))
        self.assertEqual((worker.started_at, worker.seen_at), (now, later))
        self.assertEqual(self.requests, [True])
        self.row.delete()
        self.assertFalse(Worker.objects.exists())


class RequestTests(TestCase):
    def test_only_running_processes_are_asked(self) -> None:
        make_worker("gone", ago=SEEN_WITHIN + timedelta(seconds=1))
        make_worker("w1")
        self.assertEqual([worker.name for worker in request_drain(drain=True)], ["w1"])
        self.assertEqual([worker.name for worker in Worker.objects.filter(drain_requested=True)], ["w1"])
