"""Ask Twilio and Vapi for what they never told us: prices, lengths, ends, reports.

A callback gets lost, Vapi sends its report once, and Twilio names a price only when it is asked, minutes
after the call. So whatever is missing of the last days is asked for, the newest calls first, a bounded
number in a bounded time; run it every few minutes. What is still not there is asked for the next time.

Answers become rows by the way that webhooks go (journal entries, `merge.py`), so it does no harm to ask
twice, or while a callback is on its way. It also ends what nobody else ends: a call that is open here and
over at Twilio gets its status, and a call that still runs at Vapi, billed by the minute, though nobody is
on the telephone any more, is told to end.
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
from django.db.models import BooleanField, Case, Q, When

from bridge.journal import CarrierReported, Entry, to_line
from calls import costs as bills
from calls.ingest.batch import RowWriter
from calls.models import OPEN_STATUSES, TERMINAL_STATUSES, Call
from calls.twilio import client as twilio_client
from calls.vapi import client as vapi_client
from calls.vapi.webhooks import END_OF_CALL, read_report
from calls.vendor_errors import VendorError

SETTLED = timedelta(minutes=1)  # so long after a call, callbacks and reports may be on their way
AT_ONCE = 8
BATCH = 50  # calls whose answers are written together
REFUSED = (401, 403)
OVER_AT_VAPI = "ended"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to ask again where a far end is busy or away: after pauses that grow, up to a deadline."""

    first_s: float = 0.5
    longest_s: float = 8.0
    in_all_s: float = 20.0


@dataclass(frozen=True, slots=True)
class MissingFacts:
    """One call of which something is missing."""

    call_sid: str
    vapi_call_id: str
    status: str
    started_at: datetime
    has_ended: bool  # here: its media stream, or the call itself
    knows_length: bool
    knows_price: bool
    knows_stream_price: bool
    knows_report: bool
    ask_twilio: bool
    ask_vapi: bool


@dataclass(slots=True)
class SyncResult:
    """What came of it."""

    calls: int = 0
    asked: Counter[str] = field(default_factory=Counter)  # by far end
    filled: Counter[str] = field(default_factory=Counter)  # by what
    still_open: Counter[str] = field(default_factory=Counter)  # not there yet, by what
    failed: Counter[str] = field(default_factory=Counter)  # by reason
    refused: dict[str, str] = field(default_factory=dict)  # far ends that told us nothing at all, and why
    not_asked: int = 0  # for want of time

    def line(self) -> str:
        parts = [
            f"{self.calls} call{'' if self.calls == 1 else 's'} with something missing",
            f"asked {_counted(self.asked)}",
            f"filled {_counted(self.filled)}",
            f"still open {_counted(self.still_open)}",
            f"failed {_counted(self.failed)}",
        ]
        if self.not_asked:
            parts.append(f"not asked for want of time {self.not_asked}")
        return "; ".join(parts if self.calls else parts[:1])

    def facts(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "asked": dict(self.asked),
            "filled": dict(self.filled),
            "still_open": dict(self.still_open),
            "failed": dict(self.failed),
            "refused": self.refused,
            "not_asked": self.not_asked,
        }


def _counted(counter: Counter[str]) -> str:
    """`3 (prices 2, reports 1)`; 0 where there is nothing."""
    found = ", ".join(f"{name} {count}" for name, count in counter.most_common())
    return f"{counter.total()} ({found})" if found else "0"


def missing(
    now: datetime, days: int = 3, limit: int = 1000, after: timedelta = SETTLED
) -> list[MissingFacts]:
    """The calls of the last days of which something is missing that can be asked for. One query."""
    settled = now - after
    # While a process carries a call, its lease is young, and its end will be told.
    deserted = Q(lease_until__lt=settled) | Q(lease_until=None, started_at__lt=settled)
    opened = Q(status__in=OPEN_STATUSES) & (Q(ended_at__lt=settled) | Q(ended_at=None) & deserted)
    over = Q(status__in=TERMINAL_STATUSES) & (Q(ended_at__lt=settled) | Q(ended_at=None))
    connected = ~Q(status__in=bills.NEVER_CONNECTED) & ~Q(duration_seconds=0)
    unbilled = connected & (Q(twilio_price=None) | Q(duration_seconds=None))
    unbilled_stream = ~Q(stream_sid="") & Q(stream_price=None)
    of_twilio = opened | over & (unbilled | unbilled_stream)
    if settings.TWILIO_BASE_URL == twilio_client.TWILIO:  # knows no simulated call
        of_twilio &= Q(simulated=False)
    of_vapi = (opened | over) & ~Q(vapi_call_id="") & (Q(reported_at=None) | Q(vapi_cost=None))
    calls: Any = (
        Call.objects.since(now - timedelta(days=days))
        .filter(of_twilio | of_vapi)
        .annotate(
            ask_twilio=Case(When(of_twilio, then=True), default=False, output_field=BooleanField()),
            ask_vapi=Case(When(of_vapi, then=True), default=False, output_field=BooleanField()),
        )
        .newest_first()
    )
    return [
        MissingFacts(
            call_sid=call.call_sid,
            vapi_call_id=call.vapi_call_id,
            status=call.status,
            started_at=call.started_at,
            has_ended=call.ended_at is not None or call.is_over,
            knows_length=call.duration_seconds is not None,
            knows_price=call.twilio_price is not None,
            knows_stream_price=call.stream_price is not None or not call.stream_sid,
            knows_report=call.reported_at is not None,
            ask_twilio=call.ask_twilio,
            ask_vapi=call.ask_vapi,
        )
        for call in calls[:limit]
    ]


def sync(
    *,
    now: datetime,
    days: int = 3,
    limit: int = 1000,
    after: timedelta = SETTLED,
    seconds: float = 240,
    on_done: Callable[[int], object] = lambda done: None,
    on_total: Callable[[int], object] = lambda total: None,
    patience: Patience | None = None,
) -> SyncResult:
    """Ask for what is missing, and write down what came. Raises what the database raises."""
    jobs = missing(now, days, limit, after)
    on_total(len(jobs))
    round_ = SyncRun(SyncResult(calls=len(jobs)), now, time.monotonic() + seconds, patience or Patience())
    placer = RowWriter(list, None)
    for begin in range(0, len(jobs), BATCH):
        batch = jobs[begin : begin + BATCH]
        entries = async_to_sync(round_.ask_all)(batch)
        _, bad = placer.place([to_line(entry) for entry in entries])
        if bad:
            round_.tally.failed["the database refused an answer"] += len(bad)
        on_done(len(batch))
    for peer, wanted in (
        (round_.twilio, any(job.ask_twilio for job in jobs)),
        (round_.vapi, any(job.ask_vapi for job in jobs)),
    ):
        if peer.closed and wanted:
            round_.tally.refused[peer.name] = peer.closed
    return round_.tally


class VendorClient:
    """Twilio or Vapi in one run: asked patiently, and no more once it refuses us or is away."""

    def __init__(self, name: str, deadline: float, patience: Patience) -> None:
        self.name = name
        self.closed = ""  # why it is asked no more
        self._deadline = deadline  # of the run, monotonic
        self._patience = patience

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Raises `VendorError`: at once where asking again is of no use, else when patience is at its end."""
        give_up_at = min(time.monotonic() + self._patience.in_all_s, self._deadline)
        pause = self._patience.first_s
        while True:
            if self.closed:
                raise VendorError(self.closed)
            try:
                return await question()
            except VendorError as failure:
                if failure.status in REFUSED:
                    self.closed = str(failure)
                    raise
                passing = failure.status is None or failure.status == 429 or failure.status >= 500
                if not passing:
                    raise
                if time.monotonic() + pause >= give_up_at:
                    if failure.status is None:  # not one answer in all that time
                        self.closed = str(failure)
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._patience.longest_s)


class SyncRun:
    """One run's questions."""

    def __init__(self, tally: SyncResult, now: datetime, deadline: float, patience: Patience) -> None:
        self.tally = tally
        self._now = now
        self.twilio = VendorClient("Twilio", deadline, patience)
        if not settings.TWILIO_ACCOUNT_SID or not settings.TWILIO_AUTH_TOKENS:
            self.twilio.closed = "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not both set."
        self.vapi = VendorClient("Vapi", deadline, patience)
        if not settings.VAPI_API_KEY:
            self.vapi.closed = "VAPI_API_KEY is not set."
        self._deadline = deadline

    async def ask_all(self, jobs: Sequence[MissingFacts]) -> list[Entry]:
        """The news of these calls, a few asked for at a time."""
        waiting = list(reversed(jobs))
        found: list[Entry] = []

        async def ask_some() -> None:
            while waiting:
                if time.monotonic() >= self._deadline:
                    self.tally.not_asked += len(waiting)
                    waiting.clear()
                    return
                found.extend(await self._ask(waiting.pop()))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(AT_ONCE, len(jobs))):
                tasks.create_task(ask_some())
        return found

    async def _ask(self, job: MissingFacts) -> list[Entry]:
        found: list[Entry] = []
        over = job.has_ended
        if job.ask_twilio and not self.twilio.closed:
            try:
                entry = await self._ask_twilio(job)
            except VendorError as failure:
                self._failed(self.twilio, failure)
            else:
                found += [entry] if entry is not None else []
                over = over or (entry is not None and entry.status in TERMINAL_STATUSES)
        if job.ask_vapi and over and not self.vapi.closed:
            try:
                found += await self._ask_vapi(job)
            except VendorError as failure:
                self._failed(self.vapi, failure)
        return found

    def _failed(self, peer: VendorClient, failure: VendorError) -> None:
        why = "it knows no such call" if failure.status == 404 else str(failure).rstrip(".")
        self.tally.failed[f"{peer.name}: {why}"] += 1

    async def _ask_twilio(self, job: MissingFacts) -> CarrierReported | None:
        """What Twilio knows of the call that we do not; None where that is nothing."""
        self.tally.asked["Twilio"] += 1
        told = await self.twilio.ask(lambda: twilio_client.fetch_call(job.call_sid))
        status = str(told.status or "").lower()
        if status not in TERMINAL_STATUSES:
            self.tally.still_open["calls"] += 1
            return None
        length = _whole(told.duration)
        if length is None and status != "completed":
            length = 0  # nobody was connected: there is nothing to bill
        price, unit = bills.amount(told.price), str(told.price_unit or "USD").upper()
        if price is not None and unit != "USD":
            self.tally.failed[f"Twilio bills in {unit[:3]}, which cannot be added to dollars"] += 1
            price = None
        news = {
            "ends": job.status in OPEN_STATUSES,
            "lengths": length is not None and not job.knows_length,
            "prices": price is not None and not job.knows_price,
            "stream prices": not job.knows_stream_price and bool(length),
        }
        self.tally.filled.update(name for name, is_new in news.items() if is_new)
        if price is None and not job.knows_price and length != 0 and unit == "USD":
            self.tally.still_open["prices"] += 1
        if not any(news.values()):
            return None
        return CarrierReported(
            call_sid=job.call_sid,
            at=max(told.end_time or self._now, job.started_at).timestamp(),
            status=status,
            duration_seconds=length,
            answered_by=str(told.answered_by or ""),
            asked=True,
            price="" if price is None else str(told.price),
        )

    async def _ask_vapi(self, job: MissingFacts) -> list[Entry]:
        """The report of the call, once it is over at Vapi; until then it is told to end."""
        self.tally.asked["Vapi"] += 1
        told = await self.vapi.ask(lambda: vapi_client.fetch_call(job.vapi_call_id))
        if not isinstance(told.get("status"), str):
            raise VendorError("The answer was cut off or unreadable.")
        if told["status"] != OVER_AT_VAPI:
            await vapi_client.end_call(told)
            self.tally.filled["ends at Vapi"] += 1
            self.tally.still_open["reports"] += 1
            return []
        # The call object holds what the report would have held, in the same places.
        message = {name: value for name, value in told.items() if name != "status"} | {"call": told}
        report = read_report(message, END_OF_CALL, job.call_sid, self._now.timestamp())
        if report.cost is None:
            self.tally.still_open["costs at Vapi"] += 1
            if job.knows_report:
                return []
        self.tally.filled["costs at Vapi" if job.knows_report else "reports"] += 1
        return [report]


def _whole(text: Any) -> int | None:
    try:
        return max(0, int(text))
    except (TypeError, ValueError):
        return None
