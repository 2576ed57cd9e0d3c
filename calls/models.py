"""What outlives a call: rows.

One `Call` for each CallSid, and below it what was said (`Utterance`), how fast (`Turn`) and what
happened (`CallEvent`). Rows are written by one writer thread and by callbacks that arrive late,
twice and in any order, so two promises hold everywhere:

- a status never moves back, and never out of a terminal one (`CallQuerySet.advance`);
- whoever writes twice writes the same row twice: every child is unique by its index.

Lists that grow (end reasons, event kinds) are plain strings; `words.py` explains them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import connections, models
from django.db.models import F, Q
from django.db.models.functions import Substr
from django.urls import reverse
from django.utils import timezone

from calls import costs as bills
from calls import end_reasons
from calls.masking import mask_number, short_sid

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

TERMINAL_STATUSES = ("completed", "busy", "failed", "no-answer", "canceled")
OPEN_STATUSES = ("queued", "initiated", "ringing", "in-progress")
CALLER, ASSISTANT = "caller", "assistant"
MANY = 5_000  # calls


def later_status(old: str, new: str) -> str:
    """Of two statuses of one call the one that holds, whichever was heard first."""
    if old in TERMINAL_STATUSES:
        return old
    if new in TERMINAL_STATUSES or old not in OPEN_STATUSES:
        return new
    if new not in OPEN_STATUSES:
        return old
    return max(old, new, key=OPEN_STATUSES.index)


def _any(names: Iterable[str], asked: Callable[[str], dict[str, str]]) -> Q:
    """What is asked of each column holds for one of them."""
    return reduce(or_, (Q(**asked(name)) for name in names))


class CallQuerySet(models.QuerySet["Call"]):
    def live(self) -> Self:
        """Someone is on the line now."""
        return self.filter(status="in-progress")

    def open(self) -> Self:
        """Not over yet, or nobody told us that it is."""
        return self.filter(status__in=OPEN_STATUSES)

    def terminal(self) -> Self:
        return self.filter(status__in=TERMINAL_STATUSES)

    def answered(self) -> Self:
        """The assistant picked up."""
        return self.filter(answered_at__isnull=False)

    def failed(self) -> Self:
        """The caller did not get what they called for, through no wish of theirs."""
        return self.filter(Q(end_reason__in=end_reasons.FAILED_REASONS) | Q(status="failed", end_reason=""))

    def real(self) -> Self:
        """Calls of the telephone network, without the simulated ones."""
        return self.filter(simulated=False)

    def shown(self) -> Self:
        """What pages count: real calls, or the simulated ones as long as no real one exists. One query."""
        return self.real() if self.model._default_manager.filter(simulated=False).exists() else self

    def flagged(self, name: str) -> Self:
        """Calls with this reason to look at them, from the index of flags."""
        return self.filter(flags__name=name)

    def since(self, moment: datetime) -> Self:
        return self.filter(started_at__gte=moment)

    def newest_first(self) -> Self:
        return self.order_by("-started_at", "-id")

    def found_by(self, beginning: str, *, numbers_too: bool = True) -> Self:
        """Calls whose sid or one of whose numbers begins so; from an index, however many calls there are."""
        names = ("call_sid", "vapi_call_id", *(("from_number", "to_number") if numbers_too else ()))
        # SQLite's LIKE ignores case and therefore the index; PostgreSQL's ranges follow the locale
        # and therefore miss it. Each gets the question that its index answers.
        if connections[self.db].vendor != "sqlite":
            return self.filter(_any(names, lambda name: {f"{name}__startswith": beginning}))
        in_range = _any(
            names, lambda name: {f"{name}__gte": beginning, f"{name}__lt": f"{beginning}\U0010ffff"}
        )
        if self.model._default_manager.filter(in_range).order_by()[:MANY].count() < MANY:
            return self.filter(in_range)
        # SQLite would sort them all to find the newest: walking along these is faster, where many fit.
        begins = {f"begins_{name}": Substr(name, 1, len(beginning)) for name in names}
        return self.alias(**begins).filter(_any(begins, lambda name: {name: beginning}))

    def advance(self, call_sid: str, status: str) -> bool:
        """Move one call on to `status`; a step back, or out of a terminal status, changes nothing.

        One UPDATE that carries its own condition, so two writers cannot undo each other.
        """
        before = tuple(old for old in OPEN_STATUSES if later_status(old, status) == status and old != status)
        return bool(self.filter(call_sid=call_sid, status__in=before).update(status=status))


class Call(models.Model):
    """One phone call."""

    call_sid = models.CharField(max_length=64, unique=True)
    stream_sid = models.CharField(max_length=64, blank=True)
    vapi_call_id = models.CharField(max_length=64, blank=True)
    direction = models.CharField(max_length=16, default="inbound")
    from_number = models.CharField(max_length=64, blank=True)
    to_number = models.CharField(max_length=64, blank=True)
    caller_name = models.CharField(max_length=255, blank=True)  # as the carrier announced it

    status = models.CharField(max_length=16, default="ringing")  # Twilio's words
    end_reason = models.CharField(max_length=64, blank=True)
    ended_by = models.CharField(max_length=16, blank=True)
    vapi_ended_reason = models.CharField(max_length=255, blank=True)
    vapi_close_code = models.PositiveIntegerField(null=True, blank=True)
    # What staff or a tool asked for: it outranks what the stream then says of its end (`merge.py`).
    end_requested = models.CharField(max_length=64, blank=True)
    end_requested_at = models.DateTimeField(null=True, blank=True)

    started_at = models.DateTimeField(default=timezone.now)  # Twilio asked what to do
    answered_at = models.DateTimeField(null=True, blank=True)  # the assistant's line was open
    ended_at = models.DateTimeField(null=True, blank=True)
    duration_seconds = models.PositiveIntegerField(null=True, blank=True)

    connect_ms = models.PositiveIntegerField(null=True, blank=True)
    time_to_first_audio_ms = models.PositiveIntegerField(null=True, blank=True)
    frames_to_assistant = models.PositiveBigIntegerField(default=0)
    frames_to_caller = models.PositiveBigIntegerField(default=0)
    frames_held = models.PositiveBigIntegerField(default=0)
    frames_dropped = models.PositiveBigIntegerField(default=0)
    barge_ins = models.PositiveIntegerField(default=0)
    counters = models.JSONField(default=dict, blank=True)  # further counts, by name

    # Read off the call's own rows whenever these change (`derived.py`), so that lists need not.
    turn_count = models.PositiveIntegerField(default=0)
    p50_latency_ms = models.PositiveIntegerField(null=True, blank=True)
    worst_latency_ms = models.PositiveIntegerField(null=True, blank=True)
    longest_silence_ms = models.PositiveIntegerField(null=True, blank=True)

    twilio_price = models.DecimalField(max_digits=10, decimal_places=5, null=True, blank=True)
    vapi_cost = models.DecimalField(max_digits=10, decimal_places=5, null=True, blank=True)
    # Twilio bills media streams apart from the call, by the started minute, and names no price for one call.
    stream_price = models.DecimalField(max_digits=10, decimal_places=5, null=True, blank=True)
    reported_at = models.DateTimeField(null=True, blank=True)  # Vapi's end-of-call report came
    summary = models.TextField(blank=True)
    vapi_report = models.JSONField(default=dict, blank=True)  # parts of the vendor's report, as sent

    answered_by = models.CharField(max_length=32, blank=True)  # Twilio's word, on calls that we placed

    simulated = models.BooleanField(default=False)
    outcome = models.CharField(max_length=64, blank=True)
    note = models.TextField(blank=True)
    needs_review = models.BooleanField(default=False)

    worker = models.CharField(
        max_length=128, blank=True
    )  # who carries the call, and until when we believe it
    lease_until = models.DateTimeField(null=True, blank=True)

    objects = CallQuerySet.as_manager()

    if TYPE_CHECKING:
        flags: RelatedManager[CallFlag]
        turns: RelatedManager[Turn]
        utterances: RelatedManager[Utterance]
        events: RelatedManager[CallEvent]

    class Meta:
        ordering = ("-started_at", "-id")
        indexes = [
            models.Index(F("started_at").desc(), F("id").desc(), name="call_newest_first"),
            models.Index("end_reason", F("started_at").desc(), name="call_by_end"),
            models.Index(F("started_at").desc(), condition=Q(needs_review=True), name="call_needs_review"),
            models.Index(fields=["lease_until"], condition=Q(status__in=OPEN_STATUSES), name="call_open"),
            # These operator classes let PostgreSQL answer "begins with" from the index.
            models.Index(fields=["vapi_call_id"], opclasses=["varchar_pattern_ops"], name="call_vapi_id"),
            models.Index(fields=["from_number"], opclasses=["varchar_pattern_ops"], name="call_from"),
            models.Index(fields=["to_number"], opclasses=["varchar_pattern_ops"], name="call_to"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=OPEN_STATUSES + TERMINAL_STATUSES), name="call_status_is_known"
            ),
        ]
        permissions = [
            ("view_numbers", "Can see whole phone numbers"),
            ("export_call", "Can export calls"),
            ("act_on_call", "Can hang up, speak into and transfer live calls"),
            ("place_test_call", "Can place a test call"),
            ("place_call", "Can have the assistant call somebody"),
        ]

    def __str__(self) -> str:
        return f"{mask_number(self.from_number) or 'unknown caller'}, {short_sid(self.call_sid)}"

    def get_absolute_url(self) -> str:
        return reverse("call_detail", args=[self.pk])

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL_STATUSES

    @property
    def is_live(self) -> bool:
        return self.status == "in-progress"

    @property
    def is_failed(self) -> bool:
        return end_reasons.ending(self.end_reason).failed or (self.status == "failed" and not self.end_reason)

    @property
    def ending(self) -> end_reasons.Ending:
        return end_reasons.ending(self.end_reason)

    def ended_in_words(self) -> str:
        """How it ended, or what it is doing, in one sentence."""
        if self.end_reason in end_reasons.ENDINGS:
            return self.ending.sentence
        if self.end_reason:
            return f"It ended for a reason this version has no words for: {self.end_reason}."
        return end_reasons.STATUS_SENTENCES.get(self.status, "")

    def vendor_reason(self) -> end_reasons.VendorReason | None:
        return end_reasons.vendor_reason(self.vapi_ended_reason)

    def cost(self) -> Decimal | None:
        """What the call cost in dollars, as far as the bills have come. Twilio's are negative."""
        found = (self.twilio_price, self.stream_price, self.vapi_cost)
        come = [abs(bill) for bill in found if bill is not None]
        return sum(come, Decimal()) if come else None

    def bills_to_come(self) -> list[str]:
        """Whose are missing: then `cost` is what it came to so far."""
        return bills.to_come(self)

    def success(self) -> str:
        """Whether it reached its aim by the assistant's own rubric: a word of the vendor's, or empty."""
        found = self.vapi_report.get("success", "") if isinstance(self.vapi_report, dict) else ""
        return found if isinstance(found, str) else ""

    def length(self) -> timedelta | None:
        """How long it lasted: Twilio's word, else our own clock, else None."""
        if self.duration_seconds is not None:
            return timedelta(seconds=self.duration_seconds)
        if self.ended_at is not None:
            return max(self.ended_at - self.started_at, timedelta())
        return None


class Utterance(models.Model):
    """One final piece of speech by one speaker; all of them in order are the transcript."""

    call = models.ForeignKey(Call, models.CASCADE, related_name="utterances", db_index=False)
    index = models.PositiveIntegerField()
    speaker = models.CharField(max_length=16)
    text = models.TextField(blank=True)
    started_ms = models.IntegerField(null=True, blank=True)
    ended_ms = models.IntegerField(null=True, blank=True)
    interrupted = models.BooleanField(default=False)
    unheard_ms = models.PositiveIntegerField(null=True, blank=True)  # audio of it that a clear threw away

    class Meta:
        ordering = ("call_id", "index")
        constraints = [
            # Its index also serves the foreign key, which therefore has none of its own.
            models.UniqueConstraint(fields=["call", "index"], name="utterance_once"),
            models.CheckConstraint(condition=Q(speaker__in=(CALLER, ASSISTANT)), name="utterance_speaker"),
        ]

    def __str__(self) -> str:
        return f"{self.speaker}: {self.text[:60]}"


class TurnQuerySet(models.QuerySet["Turn"]):
    def answered(self) -> Self:
        return self.filter(response_latency_ms__isnull=False)


class Turn(models.Model):
    """The caller speaks, the assistant answers. A turn that was never answered is a row with nulls.

    Milliseconds from the stream's start, as measured at our door.
    """

    call = models.ForeignKey(Call, models.CASCADE, related_name="turns", db_index=False)
    number = models.PositiveIntegerField()
    end_of_speech_ms = models.IntegerField()  # T0
    endpointed_ms = models.IntegerField(null=True, blank=True)  # Vapi's word that the caller stopped
    first_audio_ms = models.IntegerField(null=True, blank=True)  # T1
    sent_ms = models.IntegerField(null=True, blank=True)  # T2
    heard_ms = models.IntegerField(null=True, blank=True)  # T3
    response_latency_ms = models.IntegerField(null=True, blank=True)  # T1 - T0
    bridge_overhead_us = models.IntegerField(null=True, blank=True)  # T2 - T1
    interrupted = models.BooleanField(default=False)

    # The vendor's own split, when its report brings it.
    model_ms = models.IntegerField(null=True, blank=True)
    voice_ms = models.IntegerField(null=True, blank=True)
    transcriber_ms = models.IntegerField(null=True, blank=True)
    endpointing_ms = models.IntegerField(null=True, blank=True)

    objects = TurnQuerySet.as_manager()

    class Meta:
        ordering = ("call_id", "number")
        constraints = [
            models.UniqueConstraint(fields=["call", "number"], name="turn_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="turn_numbers_from_one"),
            models.CheckConstraint(
                condition=Q(response_latency_ms__isnull=True) | Q(response_latency_ms__gte=0),
                name="turn_latency_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"turn {self.number}"

    @property
    def was_answered(self) -> bool:
        return self.response_latency_ms is not None


class CallEvent(models.Model):
    """One line of the timeline, as it happened. Each source has its own numbering."""

    call = models.ForeignKey(Call, models.CASCADE, related_name="events", db_index=False)
    source = models.CharField(max_length=16, default="stream")  # stream, carrier, vapi
    index = models.PositiveIntegerField()
    kind = models.CharField(max_length=64)
    at_ms = models.IntegerField(null=True, blank=True)
    data = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ("call_id", "source", "index")
        constraints = [
            models.UniqueConstraint(fields=["call", "source", "index"], name="event_once"),
        ]

    def __str__(self) -> str:
        return self.kind


class CallFlag(models.Model):
    """One reason to look at a call (`flags.py`). A table of its own, so that rare reasons are found fast."""

    call = models.ForeignKey(Call, models.CASCADE, related_name="flags", db_index=False)
    name = models.CharField(max_length=32)
    started_at = models.DateTimeField()  # the call's: lists are by time

    class Meta:
        ordering = ("call_id", "name")
        constraints = [models.UniqueConstraint(fields=["call", "name"], name="flag_once")]
        indexes = [models.Index("name", F("started_at").desc(), F("call").desc(), name="flag_by_time")]

    def __str__(self) -> str:
        return self.name


class CallHour(models.Model):
    """One hour's calls summed up, so that thirty days are 720 rows. `figures.py` writes and reads it.

    A dirty hour has changed since it was summed up: it is read from the calls themselves until it is
    summed up again. Real and simulated calls are summed apart.
    """

    hour = models.DateTimeField()
    simulated = models.BooleanField(default=False)
    dirty = models.BooleanField(default=True)
    figures = models.JSONField(default=dict)

    class Meta:
        ordering = ("hour", "simulated")
        constraints = [models.UniqueConstraint(fields=["hour", "simulated"], name="hour_once")]
        indexes = [models.Index(fields=["hour"], condition=Q(dirty=True), name="hour_dirty")]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}h{' simulated' if self.simulated else ''}"


class AuditEntry(models.Model):
    """Who of the staff looked at a call or acted on it. Written by pages, never changed."""

    call = models.ForeignKey(Call, models.SET_NULL, null=True, related_name="audit", db_index=False)
    call_sid = models.CharField(max_length=64)  # stays when the call is purged
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    username = models.CharField(max_length=150)  # stays when the user is deleted
    action = models.CharField(max_length=32)  # opened, hang-up, say, transfer, note, export, test-call
    detail = models.CharField(max_length=255, blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-at", "-id")
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index("call", F("at").desc(), name="audit_of_call"),
            models.Index(F("at").desc(), F("id").desc(), name="audit_newest_first"),
        ]

    def __str__(self) -> str:
        return f"{self.username}: {self.action}"


class PhoneNumber(models.Model):
    """One of our numbers and how it is answered. A number without a row is answered as the settings say."""

    number = models.CharField(max_length=64, unique=True)
    label = models.CharField(max_length=128, blank=True)
    assistant_id = models.CharField(max_length=64, blank=True, help_text="Blank: the one of the settings.")
    overrides = models.JSONField(default=dict, blank=True, help_text="Sent to Vapi as assistantOverrides.")
    endpointing_ms = models.PositiveIntegerField(null=True, blank=True)
    discloses_ai = models.BooleanField(
        "says that it is an AI", default=True, help_text="The first thing that a caller hears."
    )
    disclosure = models.TextField(blank=True, help_text="In other words than those of the settings.")
    greeting = models.TextField(
        blank=True, help_text="Spoken before the assistant is connected, such as a consent text."
    )
    hours = models.TextField(
        blank=True,
        help_text="When the assistant answers, such as Mon-Fri 08:00-18:00, Sat 09:00-12:00. Blank: always.",
    )
    time_zone = models.CharField(
        max_length=64, blank=True, help_text="Of the hours, such as Europe/Berlin. Blank: UTC."
    )
    closed_message = models.TextField(blank=True, help_text="Spoken outside the hours, where no person is.")
    fallback_number = models.CharField(
        max_length=64, blank=True, help_text="A person's number, dialled when the assistant fails."
    )
    record_calls = models.BooleanField(default=False)
    max_concurrent_calls = models.PositiveIntegerField(null=True, blank=True)
    max_call_seconds = models.PositiveIntegerField(null=True, blank=True)
    active = models.BooleanField(default=True)

    class Meta:
        ordering = ("number",)

    def __str__(self) -> str:
        return f"{self.label} ({mask_number(self.number)})" if self.label else mask_number(self.number)
