"""Confirms that a call has ended at Twilio and at Vapi, and ends it there if it has not.

When a call ends here, the media stream is closed and Vapi is told to end. Both can fail, and a process that
is killed does neither, while a call that goes on is billed by the minute. If an end is not reported within
ten seconds, a thread asks Vapi about the call. It also asks Twilio if Twilio has nothing more to do for the
caller. A call that still runs is ended. After five attempts in two minutes it is marked as "needs review".

What is confirmed is kept in memory only: after a restart the calls of the last minutes are asked for once
more, with those of a killed process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection
from django.db.models import Q

from bridge.journal import CarrierReported, to_line
from calls.end_reasons import END_REASONS, FollowUp
from calls.ingest.batch import RowWriter
from calls.ingest.db import bounded_transaction, now_utc, use_own_connection
from calls.masking import short_sid
from calls.models import MAX_CALL_AGE, Call, CallEvent
from calls.statuses import OPEN_STATUSES, TERMINAL_STATUSES
from calls.twilio import client as twilio_client
from calls.twilio.client import TWILIO_API
from calls.vapi import client as vapi_client
from calls.vendor_errors import VendorError

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 5.0
GRACE = timedelta(seconds=10)  # callbacks and reports are on their way
WINDOW = timedelta(minutes=10)  # `sync_calls` asks for older calls
PAUSES_SECONDS = (5.0, 10.0, 20.0, 40.0)  # between attempts
MAX_CALLS = 100  # asked about in one run; the others follow
MAX_ENDS = 10_000  # of the last minutes
MAX_REMEMBERED = 10_000
CONCURRENT_REQUESTS = 4
END_UNCONFIRMED = "end-unconfirmed"  # kind of the event

VENDORS = TWILIO, VAPI = ("Twilio", "Vapi")
# After any other end Twilio goes on with the caller: it dials somebody, or speaks.
TWILIO_HANGS_UP = [name for name, reason in END_REASONS.items() if reason.follow_up == FollowUp.HANG_UP]


@dataclass(frozen=True, slots=True)
class UnconfirmedEnd:
    """A call that has ended here, and a vendor that has not reported its end."""

    vendor: str
    call_sid: str
    vapi_call_id: str = ""


def find_unconfirmed(now: datetime) -> list[UnconfirmedEnd]:
    """The ends of the last minutes that a vendor has not reported. One query."""
    at_twilio = Q(status__in=OPEN_STATUSES, end_reason__in=TWILIO_HANGS_UP)
    at_vapi = ~Q(vapi_call_id="") & Q(reported_at=None, vapi_ended_reason="")
    if settings.TWILIO_BASE_URL == TWILIO_API:  # which does not know simulated calls
        at_twilio &= Q(simulated=False)
    conditions: dict[str, Q] = {}
    if settings.TWILIO_ACCOUNT_SID and settings.TWILIO_AUTH_TOKENS:
        conditions[TWILIO] = at_twilio
    if settings.VAPI_API_KEY and not settings.VAPI_SOCKET_URL:
        conditions[VAPI] = at_vapi
    ended = Call.objects.since(now - MAX_CALL_AGE).filter(
        ended_at__gte=now - WINDOW, ended_at__lte=now - GRACE
    )
    ended = ended.exclude(end_reason="").order_by("ended_at")
    names = ("call_sid", "vapi_call_id")
    return [
        UnconfirmedEnd(vendor, call_sid, vapi_call_id)
        for vendor, condition in conditions.items()
        for call_sid, vapi_call_id in ended.filter(condition).values_list(*names)[:MAX_ENDS]
    ]


@dataclass(slots=True)
class Attempts:
    """How often a vendor was asked for a call, and when to ask again (monotonic)."""

    count: int = 0
    due_at: float = 0.0
    problem: str = ""


class EndConfirmer(threading.Thread):
    """The thread that confirms ends. One for each server process; several may ask for the same call."""

    def __init__(
        self,
        *,
        on_change: Callable[[set[str]], object] = lambda call_sids: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_change` gets the CallSids whose rows have changed."""
        super().__init__(name="end-confirmer", daemon=True)
        self._rows = RowWriter(list, on_change)
        self._on_change = on_change
        self._clock = clock
        self._attempts: dict[UnconfirmedEnd, Attempts] = {}
        self._done: OrderedDict[UnconfirmedEnd, None] = OrderedDict()  # confirmed, or given up
        self._last_error = ""
        self._stopping = threading.Event()

    def stop(self, timeout_seconds: float) -> None:
        self._stopping.set()
        if self.is_alive():
            self.join(timeout_seconds)

    def run(self) -> None:
        use_own_connection()
        while not self._stopping.wait(INTERVAL_SECONDS):
            self.run_once(now_utc())
        connection.close()

    def run_once(self, now: datetime) -> None:
        """Ask once for each end that is due. Never raises: the next run tries again."""
        try:
            with bounded_transaction():
                unconfirmed = [end for end in find_unconfirmed(now) if end not in self._done]
            self._attempts = {end: self._attempts.get(end, Attempts()) for end in unconfirmed}
            due = [end for end, attempts in self._attempts.items() if attempts.due_at <= self._clock()]
            del due[MAX_CALLS:]
            if due:
                reports = asyncio.run(self._ask_all(due, now))
                # Only what is written is confirmed.
                self._rows.apply_lines([to_line(report) for report in reports.values()])
                for end in reports:
                    self._remember(end)
                self._give_up(due)
        except Exception as error:
            self._on_error(error)
        else:
            self._last_error = ""

    async def _ask_all(
        self, due: list[UnconfirmedEnd], now: datetime
    ) -> dict[UnconfirmedEnd, CarrierReported]:
        """Ask for each of these ends. Returns the ends that Twilio reports."""
        slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
        reports: dict[UnconfirmedEnd, CarrierReported] = {}

        async def ask(end: UnconfirmedEnd) -> None:
            async with slots:
                attempts = self._attempts[end]
                try:
                    if end.vendor == VAPI:
                        is_over = await ask_vapi(end)
                    else:
                        is_over = False
                        if report := await ask_twilio(end, now):
                            reports[end] = report
                            return
                    attempts.problem = f"the call still runs at {end.vendor}"
                except VendorError as error:
                    is_over = error.status == 404  # the vendor does not know the call: nothing runs
                    attempts.problem = str(error).rstrip(".")
                if is_over:
                    self._remember(end)
                elif attempts.count < len(PAUSES_SECONDS):
                    attempts.due_at = self._clock() + PAUSES_SECONDS[attempts.count]
                attempts.count += 1

        async with asyncio.TaskGroup() as tasks:
            for end in due:
                tasks.create_task(ask(end))
        return reports

    def _give_up(self, asked: list[UnconfirmedEnd]) -> None:
        for end in asked:
            attempts = self._attempts[end]
            if end in self._done or attempts.count <= len(PAUSES_SECONDS):
                continue
            logger.error(
                "call %s: its end at %s is not confirmed: %s",
                short_sid(end.call_sid), end.vendor, attempts.problem,
            )  # fmt: skip
            mark_unconfirmed(end, attempts.problem)
            self._on_change({end.call_sid})
            self._remember(end)

    def _remember(self, end: UnconfirmedEnd) -> None:
        self._done[end] = None
        if len(self._done) > MAX_REMEMBERED:
            self._done.popitem(last=False)

    def _on_error(self, error: Exception) -> None:
        """Logged once for each class of error, not each time."""
        name = type(error).__name__
        if name != self._last_error:
            self._last_error = name
            logger.warning("ends of calls cannot be confirmed, retrying (%s)", name, exc_info=True)
        with suppress(Exception):  # closing a dead connection may fail, too
            connection.close()


async def ask_twilio(end: UnconfirmedEnd, now: datetime) -> CarrierReported | None:
    """The status of a call that is over at Twilio, whose callback was lost. None if it is not over.

    Then it is hung up, and the next attempt confirms it. Raises `VendorError`.
    """
    call = await twilio_client.fetch_call(end.call_sid)
    status = str(call.status or "").lower()
    if status in TERMINAL_STATUSES:  # prices come with `sync_calls`
        return CarrierReported(end.call_sid, (call.end_time or now).timestamp(), status=status, asked=True)
    logger.warning("call %s has ended here and not at Twilio: hanging up", short_sid(end.call_sid))
    await twilio_client.hang_up(end.call_sid)
    return None


async def ask_vapi(end: UnconfirmedEnd) -> bool:
    """Whether the call is over at Vapi. If not, it is told to end, and the next attempt confirms that.

    Raises `VendorError`.
    """
    call = await vapi_client.fetch_call(end.vapi_call_id)
    if call.get("status") == vapi_client.CALL_ENDED:
        return True
    logger.warning("call %s has ended here and not at Vapi: ending it", short_sid(end.call_sid))
    await vapi_client.end_call(call)
    return False


def mark_unconfirmed(end: UnconfirmedEnd, problem: str) -> None:
    """Have staff look at the call: it may still be running, and billed."""
    with bounded_transaction():
        call = Call.objects.select_for_update().filter(call_sid=end.call_sid).first()
        if call is None:
            return
        CallEvent.objects.get_or_create(
            call=call, source="server", index=VENDORS.index(end.vendor),
            defaults={"kind": END_UNCONFIRMED, "data": {"vendor": end.vendor, "problem": problem}},
        )  # fmt: skip
        call.needs_review = True
        call.save(update_fields=["needs_review"])
