"""The tables of calls: one `Call` for each CallSid, and what belongs to it.

What was said is in `Utterance`, how fast the assistant answered in `Turn`, what happened in `CallEvent`.
The writer thread writes the rows, from the journal and from callbacks that arrive late, twice and in any
order. So two rules hold everywhere:

- A status never moves back, and never leaves a terminal status (`later_status`).
- Writing the same entry twice gives the same rows: every child has a unique index within its call.

Lists that grow (end reasons, event kinds) are plain strings. `end_reasons.py` explains the end reasons.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import models
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from calls import costs, end_reasons
from calls.masking import mask_number, short_sid
from calls.querysets import CallQuerySet, TurnQuerySet
from calls.search_text import ReversedDigitsField, SearchTextField
from calls.statuses import OPEN_STATUSES, TERMINAL_STATUSES

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

CALLER, CALLEE, ASSISTANT = "caller", "callee", "assistant"
MAX_CALL_AGE = timedelta(hours=4)  # Twilio ends every call by then, whatever its `TimeLimit`


class Call(models.Model):
    """One phone call."""

    call_sid = models.CharField(max_length=64, unique=True)
    stream_sid = models.CharField(max_length=64, blank=True)
    vapi_call_id = models.CharField(max_length=64, blank=True)
    direction = models.CharField(max_length=16, default="inbound")
    from_number = models.CharField(max_length=64, blank=True)
    to_number = models.CharField(max_length=64, blank=True)
    caller_name = models.CharField(max_length=255, blank=True)  # from the carrier's caller id (CNAM)
    # For the search by a number's end. Null in rows of an older version.
    from_reversed = ReversedDigitsField(source="from_number", max_length=64, null=True, editable=False)
    to_reversed = ReversedDigitsField(source="to_number", max_length=64, null=True, editable=False)

    status = models.CharField(max_length=16, default="ringing")  # Twilio's `CallStatus`
    end_reason = models.CharField(max_length=64, blank=True)
    ended_by = models.CharField(max_length=16, blank=True)
    vapi_ended_reason = models.CharField(max_length=255, blank=True)
    vapi_close_code = models.PositiveIntegerField(null=True, blank=True)
    # The end that staff or a tool requested. It outranks the end reason that the stream reports afterwards
    # (`ingest/merge.py`).
    end_requested = models.CharField(max_length=64, blank=True)
    end_requested_at = models.DateTimeField(null=True, blank=True)

    started_at = models.DateTimeField(default=timezone.now)  # Twilio's first webhook
    answered_at = models.DateTimeField(null=True, blank=True)  # the assistant's socket was open
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

    # Computed from the call's turns and utterances whenever these change (`stats/call_summary.py`), so that
    # lists do not have to read them.
    turn_count = models.PositiveIntegerField(default=0)
    p50_latency_ms = models.PositiveIntegerField(null=True, blank=True)
    worst_latency_ms = models.PositiveIntegerField(null=True, blank=True)
    longest_silence_ms = models.PositiveIntegerField(null=True, blank=True)

    twilio_price = models.DecimalField(max_digits=12, decimal_places=5, null=True, blank=True)
    price_unit = models.CharField(max_length=3, blank=True)  # the currency of `twilio_price`; blank: USD
    vapi_cost = models.DecimalField(max_digits=12, decimal_places=5, null=True, blank=True)
    # Twilio bills media streams separately, by the started minute, and reports no price for a single stream.
    stream_price = models.DecimalField(max_digits=12, decimal_places=5, null=True, blank=True)
    reported_at = models.DateTimeField(null=True, blank=True)  # when Vapi's end-of-call report arrived
    summary = models.TextField(blank=True)
    assistant_id = models.CharField(max_length=64, blank=True)  # Vapi's id of the assistant that answered
    release = models.CharField(max_length=64, blank=True)  # of this software, as it was then
    recording_urls = models.JSONField(default=dict, blank=True)  # Vapi's recordings, by kind
    vapi_report = models.JSONField(default=dict, blank=True)  # parts of Vapi's report, as sent

    answered_by = models.CharField(max_length=32, blank=True)  # Twilio's `AnsweredBy`, outbound calls only

    simulated = models.BooleanField(default=False)
    outcome = models.CharField(max_length=64, blank=True)
    note = models.TextField(blank=True)
    needs_review = models.BooleanField(default=False)

    # The server process that handles the call. When the lease runs out, the call is ended as `worker-lost`.
    worker = models.CharField(max_length=128, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)

    objects = CallQuerySet.as_manager()

    if TYPE_CHECKING:
        flags: RelatedManager[CallFlag]
        outputs: RelatedManager[CallOutput]
        turns: RelatedManager[Turn]
        utterances: RelatedManager[Utterance]
        events: RelatedManager[CallEvent]

    class Meta:
        ordering = ("-started_at", "-id")
        indexes = [
            models.Index(F("started_at").desc(), F("id").desc(), name="call_newest_first"),
            models.Index("end_reason", F("started_at").desc(), name="call_by_end"),
            models.Index(F("started_at").desc(), condition=Q(needs_review=True), name="call_needs_review"),
            models.Index("direction", F("started_at").desc(), name="call_by_direction"),
            models.Index("status", F("started_at").desc(), name="call_by_status"),
            models.Index(fields=["outcome"], name="call_by_outcome"),
            models.Index("assistant_id", F("started_at").desc(), name="call_by_assistant"),
            # `search.py` has the same condition, word for word: SQLite matches it literally.
            models.Index(fields=["id"], condition=Q(note__gt="") | Q(outcome__gt=""), name="call_noted"),
            models.Index("duration_seconds", "id", name="call_by_duration"),
            models.Index("worst_latency_ms", "id", name="call_by_slowest"),
            models.Index(fields=["lease_until"], condition=Q(status__in=OPEN_STATUSES), name="call_open"),
            # These operator classes let PostgreSQL use the index for LIKE 'prefix%'.
            models.Index(fields=["vapi_call_id"], opclasses=["varchar_pattern_ops"], name="call_vapi_id"),
            models.Index(fields=["from_number"], opclasses=["varchar_pattern_ops"], name="call_from"),
            models.Index(fields=["to_number"], opclasses=["varchar_pattern_ops"], name="call_to"),
            models.Index(fields=["from_reversed"], opclasses=["varchar_pattern_ops"], name="call_from_end"),
            models.Index(fields=["to_reversed"], opclasses=["varchar_pattern_ops"], name="call_to_end"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=OPEN_STATUSES + TERMINAL_STATUSES), name="call_status_is_known"
            ),
        ]
        permissions = [
            ("view_numbers", "Can view full phone numbers"),
            ("view_recording", "Can open recordings of calls"),
            ("export_call", "Can export calls"),
            ("act_on_call", "Can hang up, speak in and transfer live calls"),
            ("place_test_call", "Can place a test call"),
            ("place_call", "Can place outbound calls"),
        ]

    def __str__(self) -> str:
        return f"{mask_number(self.their_number) or f'unknown {self.party}'}, {short_sid(self.call_sid)}"

    def get_absolute_url(self) -> str:
        return reverse("call_detail", args=[self.pk])

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL_STATUSES

    @property
    def is_live(self) -> bool:
        return self.status == "in-progress"

    @property
    def is_ongoing(self) -> bool:
        """Whether the call goes on or is about to: its page is updated."""
        return not self.is_over and not self.end_reason

    @property
    def is_failed(self) -> bool:
        """The caller was not served, and did not choose to end the call. See `CallQuerySet.failed`."""
        if not self.end_reason:
            return self.status == "failed"
        return end_reasons.explain(self.end_reason).is_failure

    @property
    def is_outbound(self) -> bool:
        """Whether we placed the call."""
        return self.direction.startswith("outbound")

    @property
    def our_number(self) -> str:
        return self.from_number if self.is_outbound else self.to_number

    @property
    def their_number(self) -> str:
        return self.to_number if self.is_outbound else self.from_number

    @property
    def party(self) -> str:
        """What pages call the person at the other end. Rows and the bridge say `caller` for both."""
        return CALLEE if self.is_outbound else CALLER

    def status_label(self) -> str:
        """How the call ended, or its current status, in at most four words."""
        if not self.end_reason:
            return end_reasons.STATUS_LABELS.get(self.status, self.status)
        if self.end_reason not in end_reasons.END_REASONS:
            return self.end_reason
        return end_reasons.name_party(end_reasons.explain(self.end_reason).label, self.party)

    def status_sentence(self) -> str:
        """How the call ended, or its current status, as one sentence."""
        if not self.end_reason:
            return end_reasons.STATUS_SENTENCES.get(self.status, "")
        if self.end_reason not in end_reasons.END_REASONS:
            return f"Unknown end reason: {self.end_reason}."
        return end_reasons.name_party(end_reasons.explain(self.end_reason).sentence, self.party)

    def ended_by_label(self) -> str:
        """Who ended the call, as pages say it; empty while nobody has."""
        side = self.ended_by or (end_reasons.explain(self.end_reason).side if self.end_reason else "")
        return "this server" if side == "us" else end_reasons.name_party(side, self.party)

    def vapi_reason(self) -> end_reasons.VapiReason | None:
        """What Vapi's `endedReason` means; None without one."""
        return end_reasons.explain_vapi_reason(self.vapi_ended_reason)

    @property
    def currency(self) -> str:
        """The currency of Twilio's price."""
        return self.price_unit or costs.DOLLARS

    def costs(self) -> dict[str, Decimal]:
        """What the call cost in each currency, by the bills that have arrived."""
        vapi, stream = (self.vapi_cost, costs.DOLLARS), (self.stream_price, costs.DOLLARS)
        return costs.add_bills([(self.twilio_price, self.currency), stream, vapi])

    def cost(self) -> Decimal | None:
        """What the call cost in dollars. None: no bill has arrived, or one is in another currency."""
        by_currency = self.costs()
        return by_currency.get(costs.DOLLARS) if len(by_currency) == 1 else None

    def missing_bills(self) -> list[str]:
        """Names of the bills that have not arrived yet. Until they have, `costs` is the cost so far."""
        return costs.find_missing_bills(self)

    def success(self) -> str:
        """Vapi's success evaluation, by the assistant's own rubric; empty where there is none."""
        evaluation = self.vapi_report.get("success", "") if isinstance(self.vapi_report, dict) else ""
        return evaluation if isinstance(evaluation, str) else ""

    def duration(self) -> timedelta | None:
        """How long the call took: Twilio's `CallDuration`, else by our own clock, else None."""
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
    search_text = SearchTextField(null=True, editable=False)  # indexed in addition to `text`
    started_ms = models.IntegerField(null=True, blank=True)
    ended_ms = models.IntegerField(null=True, blank=True)
    interrupted = models.BooleanField(default=False)
    unheard_ms = models.PositiveIntegerField(null=True, blank=True)  # audio of it that a `clear` discarded

    class Meta:
        ordering = ("call_id", "index")
        constraints = [
            # This index also serves the foreign key, which therefore has db_index=False.
            models.UniqueConstraint(fields=["call", "index"], name="utterance_once"),
            models.CheckConstraint(condition=Q(speaker__in=(CALLER, ASSISTANT)), name="utterance_speaker"),
        ]

    def __str__(self) -> str:
        return f"{self.speaker}: {self.text[:60]}"


class Turn(models.Model):
    """The caller speaks, the assistant answers. Without an answer the later columns stay null.

    Times (T0 to T3 and `endpointed_ms`) are milliseconds since the stream's start, measured by the bridge.
    Latencies are durations; those of model, voice, transcriber and endpointing are Vapi's.
    """

    call = models.ForeignKey(Call, models.CASCADE, related_name="turns", db_index=False)
    number = models.PositiveIntegerField()
    end_of_speech_ms = models.IntegerField()  # T0
    endpointed_ms = models.IntegerField(null=True, blank=True)  # Vapi reported that the caller stopped
    first_audio_ms = models.IntegerField(null=True, blank=True)  # T1
    sent_ms = models.IntegerField(null=True, blank=True)  # T2
    heard_ms = models.IntegerField(null=True, blank=True)  # T3
    response_latency_ms = models.IntegerField(null=True, blank=True)  # T1 - T0
    bridge_overhead_us = models.IntegerField(null=True, blank=True)  # T2 - T1
    interrupted = models.BooleanField(default=False)

    # Vapi's breakdown of the latency, where its report has one for each turn.
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
    """One line of the timeline. Each source numbers its events itself."""

    call = models.ForeignKey(Call, models.CASCADE, related_name="events", db_index=False)
    source = models.CharField(max_length=16, default="stream")  # stream, carrier, vapi, server
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
    """One reason why a call needs attention (`stats/flags.py`).

    A separate table, so that rare flags are found fast.
    """

    call = models.ForeignKey(Call, models.CASCADE, related_name="flags", db_index=False)
    name = models.CharField(max_length=32)
    started_at = models.DateTimeField()  # copied from the call: lists are sorted by it

    class Meta:
        ordering = ("call_id", "name")
        constraints = [models.UniqueConstraint(fields=["call", "name"], name="flag_once")]
        indexes = [models.Index("name", F("started_at").desc(), F("call").desc(), name="flag_by_time")]

    def __str__(self) -> str:
        return self.name


class CallOutput(models.Model):
    """One of Vapi's structured outputs that is a single value, as `name: value`: calls filter by it."""

    call = models.ForeignKey(Call, models.CASCADE, related_name="outputs", db_index=False)
    pair = models.CharField(max_length=200)
    started_at = models.DateTimeField()  # copied from the call: lists are sorted by it

    class Meta:
        ordering = ("call_id", "pair")
        constraints = [models.UniqueConstraint(fields=["call", "pair"], name="output_once")]
        indexes = [models.Index("pair", F("started_at").desc(), F("call").desc(), name="output_by_time")]

    def __str__(self) -> str:
        return self.pair


class CallHour(models.Model):
    """The aggregate of one hour's calls, so that thirty days are 720 rows (`stats/hourly.py`).

    A dirty hour has changed since its rollup. Until the next rollup its aggregate is computed from the calls
    themselves. Real and simulated calls have separate rows.
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
