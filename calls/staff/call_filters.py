"""The filters of the list of calls: one table for the list, its export and the admin's list.

A filter has one value, kept in the URL. Choices come from the code, from small tables, or from an index that
is read from one value to the next, never from a scan of all calls. A value that is not valid matches no call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.conf import settings
from django.db import connection
from django.db.models import Model, Q

from calls import end_reasons
from calls.models import Call, CallOutput, PhoneNumber
from calls.querysets import CallQuerySet
from calls.stats.flags import FAILED, FLAGS, SLOW_TURN_MS
from calls.statuses import NEVER_CONNECTED_STATUSES
from calls.templatetags.call_format import seconds
from calls.viewer import Viewer

Choices = list[tuple[str, str]]  # value, label

LIVE = "live"
NOT_CONNECTED = "not-connected"  # Twilio's status `failed`; the value `failed` is any failure
MAX_NUMBERS = 200
MAX_VALUES = 50  # that a choice offers
MAX_ID_DIGITS = 18

# The values of a column, from one index entry to the next: `DISTINCT` would read all rows.
_VALUES = """
    WITH RECURSIVE found (value) AS (
        SELECT min({column}) FROM {table} WHERE {column} > ''
        UNION ALL
        SELECT (SELECT min({column}) FROM {table} WHERE {column} > found.value)
        FROM found WHERE value IS NOT NULL
    ) SELECT value FROM found WHERE value IS NOT NULL LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """One filter. `name` is its URL parameter; `value_label` names a value that is none of the choices."""

    name: str
    title: str
    choices: Callable[[], Choices]
    apply: Callable[[CallQuerySet, str], CallQuerySet]
    value_label: Callable[[str, Viewer], str] = lambda value, viewer: value[:40]

    def label(self, value: str, viewer: Viewer) -> str:
        return dict(self.choices()).get(value) or self.value_label(value, viewer)


def _status_choices() -> Choices:
    reasons = [(name, reason.label) for name, reason in end_reasons.END_REASONS.items()]
    statuses = [(name, end_reasons.STATUS_LABELS[name]) for name in NEVER_CONNECTED_STATUSES]
    not_connected = (NOT_CONNECTED, end_reasons.STATUS_LABELS["failed"])
    return [(FAILED, "Failed (any reason)"), (LIVE, "In progress"), *reasons, not_connected, *statuses]


def _filter_status(calls: CallQuerySet, value: str) -> CallQuerySet:
    if value == FAILED:
        return calls.flagged(FAILED)
    if value == LIVE:
        return calls.live()
    if value == NOT_CONNECTED:
        return calls.matching(Q(status="failed", end_reason=""))
    if value in NEVER_CONNECTED_STATUSES:
        return calls.matching(Q(status=value, end_reason=""))
    return calls.filter(end_reason=value)


def _flag_choices() -> Choices:
    return [(name, flag.label[:1].upper() + flag.label[1:]) for name, flag in FLAGS.items()]


def _filter_flag(calls: CallQuerySet, value: str) -> CallQuerySet:
    return calls.flagged(value) if value in FLAGS else calls.none()


def _filter_direction(calls: CallQuerySet, value: str) -> CallQuerySet:
    if value not in ("inbound", "outbound"):
        return calls.none()
    is_outbound = Q(direction__startswith="outbound")
    return calls.matching(is_outbound if value == "outbound" else ~is_outbound)


def _number_choices() -> Choices:
    numbers = PhoneNumber.objects.order_by("label", "number")[:MAX_NUMBERS]
    return [(str(number.pk), str(number)) for number in numbers]


def _filter_number(calls: CallQuerySet, value: str) -> CallQuerySet:
    number = PhoneNumber.objects.filter(pk=_parse_int(value) or 0).values_list("number", flat=True).first()
    return calls.of_our_number(number) if number else calls.none()


def _filter_same_caller(calls: CallQuerySet, value: str) -> CallQuerySet:
    """Calls with the caller or callee of this call: the URL needs no phone number, which may be masked."""
    call = Call.objects.filter(pk=_parse_int(value) or 0).first()
    return calls.of_their_number(call.their_number) if call and call.their_number else calls.none()


def _caller_label(value: str, viewer: Viewer) -> str:
    call = Call.objects.filter(pk=_parse_int(value) or 0).first()
    return (viewer.display_number(call.their_number) if call else "") or "Unknown"


def _latency_choices() -> Choices:
    limits = sorted({settings.LATENCY_TARGET_MS, 2_000, SLOW_TURN_MS})
    return [(str(limit), f"Over {seconds(limit)}") for limit in limits]


def _filter_slower(calls: CallQuerySet, value: str) -> CallQuerySet:
    limit_ms = _parse_int(value)
    return calls.none() if limit_ms is None else calls.matching(Q(worst_latency_ms__gt=limit_ms))


def _latency_label(value: str, viewer: Viewer) -> str:
    limit_ms = _parse_int(value)
    return value[:40] if limit_ms is None else f"Over {seconds(limit_ms)}"


def _list_values(model: type[Model], column: str) -> list[str]:
    """The first values, in order, that the column of any row has. One query."""
    query = _VALUES.format(table=model._meta.db_table, column=column)
    with connection.cursor() as cursor:
        cursor.execute(query, [MAX_VALUES])
        return [value for (value,) in cursor.fetchall()]


def _outcome_choices() -> Choices:
    return [(outcome, outcome) for outcome in _list_values(Call, "outcome")]


def _assistant_choices() -> Choices:
    """Assistants by id, with the labels of the numbers that they answer."""
    if not (assistant_ids := _list_values(Call, "assistant_id")):
        return []
    numbers: dict[str, list[str]] = defaultdict(list)
    for number in PhoneNumber.objects.exclude(assistant_id="").order_by("label", "number")[:MAX_NUMBERS]:
        numbers[number.assistant_id].append(number.label or str(number))
    numbers[settings.VAPI_ASSISTANT_ID].append("default")
    choices = []
    for assistant_id in assistant_ids:
        used_by = f" ({', '.join(numbers[assistant_id])})" if assistant_id in numbers else ""
        choices.append((assistant_id, assistant_id + used_by))
    return choices


def _output_choices() -> Choices:
    return [(pair, pair) for pair in _list_values(CallOutput, "pair")]


def _filter_review(calls: CallQuerySet, value: str) -> CallQuerySet:
    return calls.filter(needs_review=True) if value == "yes" else calls.none()


def _filter_simulated(calls: CallQuerySet, value: str) -> CallQuerySet:
    match value:
        case "yes":
            return calls.filter(simulated=True)
        case "no":
            return calls.real()
        case "all":
            return calls
        case _:
            return calls.none()


def _parse_int(value: str) -> int | None:
    """A decimal number that fits a database column, or None."""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= MAX_ID_DIGITS else None


STATUS = CallFilter("ended", "Status", _status_choices, _filter_status)
FLAG = CallFilter("flag", "Needs attention", _flag_choices, _filter_flag)
DIRECTION = CallFilter(
    "direction", "Direction", lambda: [("inbound", "Inbound"), ("outbound", "Outbound")], _filter_direction
)
NUMBER = CallFilter("number", "Number", _number_choices, _filter_number)
SAME_CALLER = CallFilter("caller", "Caller or callee", list, _filter_same_caller, _caller_label)
LATENCY = CallFilter("slower", "Slowest response", _latency_choices, _filter_slower, _latency_label)
OUTCOME = CallFilter(
    "outcome", "Outcome", _outcome_choices, lambda calls, value: calls.matching(Q(outcome=value))
)
ASSISTANT = CallFilter(
    "assistant",
    "Assistant",
    _assistant_choices,
    lambda calls, value: calls.matching(Q(assistant_id=value)),
)
OUTPUT = CallFilter(
    "output", "Structured output", _output_choices, lambda calls, value: calls.filter(outputs__pair=value)
)
REVIEW = CallFilter("review", "Needs review", lambda: [("yes", "Yes")], _filter_review)
SIMULATED = CallFilter(
    "simulated",
    "Simulated calls",
    lambda: [("no", "Exclude"), ("yes", "Only"), ("all", "Include")],
    _filter_simulated,
)

FILTERS = (
    STATUS,
    FLAG,
    DIRECTION,
    NUMBER,
    SAME_CALLER,
    LATENCY,
    ASSISTANT,
    OUTCOME,
    OUTPUT,
    REVIEW,
    SIMULATED,
)


def apply_filters(calls: CallQuerySet, values: Mapping[str, str]) -> CallQuerySet:
    """The calls that match all values. Simulated calls are left out by default once there is a real call."""
    for call_filter in FILTERS:
        if value := values.get(call_filter.name):
            calls = call_filter.apply(calls, value)
    return calls if values.get(SIMULATED.name) else calls.real_or_simulated()
