"""Fetch from Twilio and Vapi what never arrived: prices, durations, ends and reports of calls.

Callbacks get lost, Vapi sends its report once, and Twilio has a price only minutes after the call, and only
on request. So this asks for whatever the calls of the last days are missing, newest first: a bounded number
of calls in a bounded time. Run it every few minutes; the next run asks for what is still missing.

Responses become rows in the same way as webhooks do (journal entries, `merge.py`), so it is safe to ask
twice, or while a callback is under way. It also ends calls that nothing else ends: a call that is open here
and over at Twilio gets its status, and an assistant that still runs at Vapi after the call, billed by the
minute, is told to end.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from asgiref.sync import async_to_sync
from django.conf import settings

from bridge.journal import CarrierReported, Entry, to_line
from calls import costs
from calls.incomplete_calls import GRACE_PERIOD, IncompleteCall, find_incomplete_calls
from calls.ingest.batch import RowWriter
from calls.statuses import OPEN_STATUSES, TERMINAL_STATUSES
from calls.twilio import client as twilio_client
from calls.vapi import client as vapi_client
from calls.vapi.webhooks import END_OF_CALL, read_report
from calls.vendor_errors import UnreadableResponse, VendorError

CONCURRENT_REQUESTS = 8
BATCH_SIZE = 50  # calls whose responses are written together

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How to retry while a vendor is busy or unreachable: after growing pauses, up to a total."""

    first_seconds: float = 0.5
    longest_seconds: float = 8.0
    total_seconds: float = 20.0


@dataclass(slots=True)
class SyncResult:
    """What one run did."""

    calls: int = 0  # with something missing
    requests: Counter[str] = field(default_factory=Counter)  # by vendor
    filled: Counter[str] = field(default_factory=Counter)  # by kind of fact
    still_open: Counter[str] = field(default_factory=Counter)  # not available yet, by kind of fact
    failed: Counter[str] = field(default_factory=Counter)  # by reason
    unavailable: dict[str, str] = field(default_factory=dict)  # vendors that were given up, and why
    skipped: int = 0  # calls for which the time ran out

    def summary(self) -> str:
        """One line for the console."""
        text = f"{self.calls} incomplete call{'' if self.calls == 1 else 's'}"
        if not self.calls:
            return text
        parts = [
            text,
            f"requests {_counted(self.requests)}",
            f"filled {_counted(self.filled)}",
            f"still open {_counted(self.still_open)}",
            f"failed {_counted(self.failed)}",
        ]
        if self.skipped:
            parts.append(f"skipped (out of time) {self.skipped}")
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "requests": dict(self.requests),
            "filled": dict(self.filled),
            "still_open": dict(self.still_open),
            "failed": dict(self.failed),
            "unavailable": self.unavailable,
            "skipped": self.skipped,
        }


def _counted(counter: Counter[str]) -> str:
    """`3 (prices 2, reports 1)`, or `0`."""
    items = ", ".join(f"{name} {count}" for name, count in counter.most_common())
    return f"{counter.total()} ({items})" if items else "0"


def sync(
    *,
    now: datetime,
    days: int = 3,
    limit: int = 1000,
    grace: timedelta = GRACE_PERIOD,
    timeout_seconds: float = 240,
    on_progress: Callable[[int], object] = lambda done: None,
    on_total: Callable[[int], object] = lambda total: None,
    backoff: Backoff | None = None,
) -> SyncResult:
    """Fetch what is missing and write it to the database, in at most about `timeout_seconds`.

    Raises what the database raises.
    """
    calls = find_incomplete_calls(now, days, limit, grace)
    on_total(len(calls))
    run = SyncRun(SyncResult(calls=len(calls)), now, time.monotonic() + timeout_seconds, backoff or Backoff())
    row_writer = RowWriter(list, None)
    for begin in range(0, len(calls), BATCH_SIZE):
        batch = calls[begin : begin + BATCH_SIZE]
        entries = async_to_sync(run.fetch_all)(batch)
        _, rejected = row_writer.apply_lines([to_line(entry) for entry in entries])
        if rejected:
            run.result.failed["the database rejected a response"] += len(rejected)
        on_progress(len(batch))
    for vendor, was_needed in (
        (run.twilio, any(call.ask_twilio for call in calls)),
        (run.vapi, any(call.ask_vapi for call in calls)),
    ):
        if vendor.given_up and was_needed:
            run.result.unavailable[vendor.name] = vendor.given_up
    return run.result


class VendorClient:
    """Requests to one vendor, with retries. It gives up once the vendor rejects us or cannot be reached."""

    def __init__(self, name: str, deadline: float, backoff: Backoff) -> None:
        self.name = name
        self.given_up = ""  # why no more requests are sent; empty while they are
        self._deadline = deadline  # of the run, monotonic
        self._backoff = backoff

    async def request(self, send: Callable[[], Awaitable[T]]) -> T:
        """Raises `VendorError`: at once when a retry cannot help, otherwise after the last retry."""
        give_up_at = min(time.monotonic() + self._backoff.total_seconds, self._deadline)
        pause = self._backoff.first_seconds
        while True:
            if self.given_up:
                raise VendorError(self.given_up)
            try:
                return await send()
            except VendorError as error:
                if error.status in (401, 403):
                    self.given_up = str(error)
                    raise
                is_temporary = error.status is None or error.status == 429 or error.status >= 500
                if not is_temporary:
                    raise
                if time.monotonic() + pause >= give_up_at:
                    if error.status is None and not isinstance(error, UnreadableResponse):
                        self.given_up = str(error)  # there was no response at all
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._backoff.longest_seconds)


class SyncRun:
    """The requests of one run, and their result."""

    def __init__(self, result: SyncResult, now: datetime, deadline: float, backoff: Backoff) -> None:
        self.result = result
        self._now = now
        self._deadline = deadline
        self.twilio = VendorClient("Twilio", deadline, backoff)
        if not settings.TWILIO_ACCOUNT_SID or not settings.TWILIO_AUTH_TOKENS:
            self.twilio.given_up = "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not both set."
        self.vapi = VendorClient("Vapi", deadline, backoff)
        if not settings.VAPI_API_KEY:
            self.vapi.given_up = "VAPI_API_KEY is not set."

    async def fetch_all(self, calls: Sequence[IncompleteCall]) -> list[Entry]:
        """The entries for these calls, with a few requests at a time."""
        queue = list(reversed(calls))
        entries: list[Entry] = []

        async def fetch_some() -> None:
            while queue:
                if time.monotonic() >= self._deadline:
                    self.result.skipped += len(queue)
                    queue.clear()
                    return
                entries.extend(await self._fetch(queue.pop()))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(CONCURRENT_REQUESTS, len(calls))):
                tasks.create_task(fetch_some())
        return entries

    async def _fetch(self, call: IncompleteCall) -> list[Entry]:
        entries: list[Entry] = []
        is_over = call.has_ended
        if call.ask_twilio and not self.twilio.given_up:
            try:
                if (entry := await self._fetch_from_twilio(call)) is not None:
                    entries.append(entry)
                    is_over = is_over or entry.status in TERMINAL_STATUSES
            except VendorError as error:
                self._count_failure(self.twilio, error)
        if call.ask_vapi and is_over and not self.vapi.given_up:
            try:
                entries += await self._fetch_from_vapi(call)
            except VendorError as error:
                self._count_failure(self.vapi, error)
        return entries

    def _count_failure(self, vendor: VendorClient, error: VendorError) -> None:
        reason = "call not found" if error.status == 404 else str(error).rstrip(".")
        self.result.failed[f"{vendor.name}: {reason}"] += 1

    async def _fetch_from_twilio(self, call: IncompleteCall) -> CarrierReported | None:
        """What Twilio knows of the call and we do not; None when that is nothing."""
        self.result.requests[self.twilio.name] += 1
        twilio_call = await self.twilio.request(lambda: twilio_client.fetch_call(call.call_sid))
        status = str(twilio_call.status or "").lower()
        if status not in TERMINAL_STATUSES:
            self.result.still_open["calls"] += 1
            return None
        duration = _whole_number(twilio_call.duration)
        if duration is None and status != "completed":
            duration = 0  # nobody was connected, so nothing is billed
        price = costs.parse_bill(twilio_call.price)
        currency = costs.parse_currency(twilio_call.price_unit)
        if price is not None and currency is None:
            self.result.failed["Twilio sent a price without a valid currency"] += 1
            price = None
        is_new = {
            "ends": call.status in OPEN_STATUSES,
            "durations": duration is not None and not call.has_duration,
            "prices": price is not None and not call.has_price,
            "stream prices": not call.has_stream_price and bool(duration),
        }
        self.result.filled.update(name for name in is_new if is_new[name])
        if price is None and not call.has_price and duration != 0 and currency is not None:
            self.result.still_open["prices"] += 1
        if not any(is_new.values()):
            return None
        return CarrierReported(
            call_sid=call.call_sid,
            at=max(twilio_call.end_time or self._now, call.started_at).timestamp(),
            status=status,
            duration_seconds=duration,
            answered_by=str(twilio_call.answered_by or ""),
            asked=True,
            price="" if price is None else str(twilio_call.price),
            price_unit="" if currency in (None, costs.DOLLARS) else str(currency),
            from_number=str(twilio_call._from or ""),
            to_number=str(twilio_call.to or ""),
            direction=str(twilio_call.direction or ""),
        )

    async def _fetch_from_vapi(self, call: IncompleteCall) -> list[Entry]:
        """The report of a call that is over at Vapi. A call that is not over is told to end."""
        self.result.requests[self.vapi.name] += 1
        vapi_call = await self.vapi.request(lambda: vapi_client.fetch_call(call.vapi_call_id))
        if not isinstance(vapi_call.get("status"), str):
            raise UnreadableResponse(self.vapi.name)
        if vapi_call["status"] != vapi_client.CALL_ENDED:
            await vapi_client.end_call(vapi_call)
            self.result.filled["ends at Vapi"] += 1
            self.result.still_open["reports"] += 1
            return []
        # The call object holds the same fields as the report, in the same places.
        message = {name: value for name, value in vapi_call.items() if name != "status"} | {"call": vapi_call}
        report = read_report(message, END_OF_CALL, call.call_sid, self._now.timestamp())
        if report.cost is None:
            self.result.still_open["costs at Vapi"] += 1
            if call.has_report:
                return []
        self.result.filled["costs at Vapi" if call.has_report else "reports"] += 1
        return [report]


def _whole_number(text: Any) -> int | None:
    try:
        return max(0, int(text))
    except (TypeError, ValueError):
        return None
