"""Journal entries and their spool lines: round trip, damaged lines, lines of other versions."""

from __future__ import annotations

import json
from binascii import crc32

import pytest

from bridge.journal import (
    AssistantAnswered,
    AssistantReported,
    CallOffered,
    CarrierReported,
    Entry,
    MalformedLine,
    StreamEnded,
    StreamRefused,
    StreamStarted,
    TimelineEvent,
    TurnTaken,
    UtteranceSpoken,
    from_line,
    to_line,
)

ENTRIES: list[Entry] = [
    CallOffered("CA1", 1.5, "+15551230000", "+15559870000", simulated=True),
    StreamStarted("CA1", 2.0, "MZ1", "worker-1"),
    StreamRefused("CA1", 2.0, "ticket-refused"),
    AssistantAnswered("CA1", 2.4, 412, "vapi-1", 20),
    UtteranceSpoken("CA1", 0, "caller", 'Grüße, "Zoë" 👋\n', 100, None, True),
    TurnTaken("CA1", 1, 900, 1200, 1800, 1801, None, 900, 250),
    TimelineEvent("CA1", 3, "dtmf", 2000, {"digit": "5"}),
    StreamEnded("CA1", 60.0, 58_000, "caller-hung-up", "caller", counters={"hangs": 1}),
    CarrierReported("CA1", 61.0, "completed", 3, 58),
    CarrierReported("CA1", 361.0, "completed", duration_seconds=58, asked=True, price="-0.00850"),
    AssistantReported("CA1", 62.0, "end-of-call-report", kept={"success": "true", "costs": [{"cost": 0.19}]}),
    AssistantReported("CA1", 62.0, "end-of-call-report", cost=0.19, turn_latencies=({"turnLatency": 1200},)),
]


def line_of(values: object) -> bytes:
    body = json.dumps(values).encode()
    return b"%08x %s\n" % (crc32(body), body)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_every_entry_is_read_back_from_its_line(entry: Entry) -> None:
    assert from_line(to_line(entry)) == entry


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_an_entry_is_one_line(entry: Entry) -> None:
    assert to_line(entry).count(b"\n") == 1


def test_a_lone_surrogate_is_read_back() -> None:
    entry = UtteranceSpoken("CA1", 0, "caller", "a\ud800b\x00")
    assert from_line(to_line(entry)) == entry


def test_a_torn_line_is_rejected() -> None:
    line = to_line(ENTRIES[0])
    for length in range(len(line)):
        with pytest.raises(MalformedLine):
            from_line(line[:length])


def test_a_line_with_a_flipped_bit_is_rejected() -> None:
    line = to_line(ENTRIES[1])
    for at in range(len(line) - 1):
        with pytest.raises(MalformedLine):
            from_line(line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :])


@pytest.mark.parametrize(
    "values",
    [[], 5, {}, {"kind_": "Weather"}, {"kind_": ["StreamStarted"]}, {"kind_": "StreamStarted"},
     {"kind_": "AssistantReported", "call_sid": "", "at": 1, "kind": "x", "turn_latencies": 5}],
)  # fmt: skip
def test_a_valid_line_without_an_entry_is_rejected(values: object) -> None:
    with pytest.raises(MalformedLine):
        from_line(line_of(values))


def test_fields_of_a_later_version_are_ignored() -> None:
    values = {"kind_": "StreamStarted", "call_sid": "CA1", "at": 2.0, "stream_sid": "MZ1", "mood": "good"}
    assert from_line(line_of(values)) == StreamStarted("CA1", 2.0, "MZ1")


def test_an_entry_with_the_class_name_of_an_earlier_version_is_read() -> None:
    values = {"kind_": "Happened", "call_sid": "CA1", "index": 3, "kind": "dtmf", "at_ms": 2000}
    assert from_line(line_of(values)) == TimelineEvent("CA1", 3, "dtmf", 2000)
