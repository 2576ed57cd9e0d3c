"""End reasons of calls, and who ended the call. The side that ends a call first sets the reason.

Reasons are plain strings in rows, so that the list can grow without a migration. `calls/end_reasons.py` has
their descriptions and what the caller hears afterwards. Pure.
"""

from __future__ import annotations

from types import MappingProxyType

CALLER_HUNG_UP = "caller-hung-up"
ASSISTANT_ENDED = "assistant-ended"
ASSISTANT_FAILED = "assistant-failed"
ASSISTANT_UNREACHABLE = "assistant-unreachable"
ASSISTANT_STALLED = "assistant-stalled"
STREAM_LOST = "stream-lost"
TICKET_REFUSED = "ticket-refused"
NO_START = "no-start"
AT_CAPACITY = "at-capacity"
DRAINING = "draining"
OUT_OF_HOURS = "out-of-hours"
MACHINE_ANSWERED = "machine-answered"
LIMIT_REACHED = "limit-reached"
PROTOCOL_ABUSE = "protocol-abuse"
FLOOD = "flood"
WORKER_LOST = "worker-lost"
SERVER_STOPPED = "server-stopped"
HUNG_UP_BY_STAFF = "hung-up-by-staff"
TRANSFERRED = "transferred"

ENDED_BY = MappingProxyType({
    CALLER_HUNG_UP: "caller",
    ASSISTANT_ENDED: "assistant",
    ASSISTANT_FAILED: "assistant",
    ASSISTANT_UNREACHABLE: "assistant",
    ASSISTANT_STALLED: "assistant",
    STREAM_LOST: "network",
    TICKET_REFUSED: "us",
    NO_START: "us",
    AT_CAPACITY: "us",
    DRAINING: "us",
    OUT_OF_HOURS: "us",
    MACHINE_ANSWERED: "caller",
    LIMIT_REACHED: "us",
    PROTOCOL_ABUSE: "us",
    FLOOD: "us",
    WORKER_LOST: "us",
    SERVER_STOPPED: "us",
    HUNG_UP_BY_STAFF: "staff",
    TRANSFERRED: "staff",
})  # fmt: skip

# Close codes for Twilio's socket, by end reason; all others close with 1000.
CLOSE_CODES = MappingProxyType({TICKET_REFUSED: 4003, NO_START: 4008})
CLOSE_OVERSIZE = 4009  # for a message over 64 KiB
