"""Fault settings of the simulators.

With the defaults there are no faults. A test that needs one fault changes one setting.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class VapiFaults:
    """Faults and timing of the Vapi simulator."""

    # REST. `rest_status` applies to /assistant, too, the others to POST /call only.
    rest_status: int = 0  # respond with this error, such as 401, 429 or 503; 0: no error
    rest_failures: int | None = None  # only the first n requests fail; None: all of them
    rest_delay_seconds: float = 0.0  # wait before responding
    rest_html: bool = False  # a proxy's HTML page with status 200
    rest_no_url: bool = False  # 201 without websocketCallUrl
    rest_huge: bool = False  # a 201 whose body is 8 MiB
    concurrency_blocked: bool = False  # 201, but the concurrency limit is reached
    concurrency_limit: int = 1000

    # WebSocket handshake
    ws_refuse: bool = False  # HTTP 403
    ws_accept_delay_seconds: float = 0.0  # accept after this delay
    connect_timeout_seconds: float = 20.0  # a call without a connection ends after this time

    # Speech
    first_audio_delay_seconds: float = 0.3  # socket open -> greeting
    greets: bool = True
    greeting_interruptible: bool = True  # Vapi's own default is False; the bridge must cope with both
    delay_ms: tuple[int, int] = (200, 2500)  # true end of the caller's speech -> first audible byte
    user_stopped_late_ms: int = 700
    burst: bool = False  # each reply leaves at once instead of in real time
    flood: bool = False  # a minute of audio every second, without end
    odd_chunks: bool = True  # PCM samples are split over chunks
    stall_after_turns: int | None = None  # after n answers: open, answering pings, silent
    no_interrupted: bool = False  # barge-in without user-interrupted
    socket_events: bool = True  # socket dialect: final transcripts; off: audio only
    junk_events: bool = False  # unknown types, broken JSON, NUL and lone surrogates in transcripts

    # End of the call; times count from the open socket
    end_after_seconds: float | None = None  # status-update ended with `ended_reason`, close 1000
    ended_reason: str = "call.in-progress.error-vapifault-worker-died"
    close_after_seconds: float | None = None  # close without status-update; 1005 sends no code, 1006 aborts
    close_code: int = 1011
    abort_after_seconds: float | None = None  # the connection drops without a close frame

    # Server messages
    no_reports: bool = False
    report_delay_seconds: float = 0.3  # end of the call -> end-of-call report

    # Recording
    keep_audio_seconds: float = 300.0  # of received audio per call; what exceeds it is counted


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioRestFaults:
    """Faults of the simulated Twilio REST API, and the behavior of the people that it calls."""

    # Every request, or only those whose path contains `rest_path_contains`
    rest_path_contains: str = ""
    rest_status: int = 0  # respond with this error, such as 401, 429 or 500; 0: no error
    rest_failures: int | None = None  # only the first n requests fail; None: all of them
    rest_delay_seconds: float = 0.0  # wait before responding
    rest_hang: bool = False  # never respond
    rest_html: bool = False  # a proxy's HTML page with status 200
    rest_truncate: bool = False  # process the request, then cut the response in the middle

    # Outbound calls
    ring_seconds: float = 0.2
    outcome: str = "answered"  # or busy, no-answer, failed
    answered_by: str = "human"  # result of answering machine detection
    detection_seconds: float = 0.3  # how long detection takes
    never_rings: bool = False  # the call stays queued

    # Price
    price_delay_seconds: float | None = None  # end of a call -> its price; None: only by `set_price`


@dataclass(frozen=True, slots=True)
class TwilioFaults:
    """Faults of one simulated call. Seconds count from the `start` message."""

    no_stop: bool = False  # the caller hangs up and the socket closes without `stop`
    vanish_after_seconds: float | None = None  # stop sending and reading, but leave the socket open
    drop_after_seconds: float | None = None  # TCP reset, no close frame
    bad_ticket: bool = False  # the parameter whose name contains "ticket" has a forged value
    no_start: bool = False  # `connected`, then no further message
    double_start: bool = False
    wrong_stream_sid_after_seconds: float | None = None  # caller frames then name another stream
    skip_signature: bool = False
    bad_signature: bool = False
    # Where the two settings above apply.
    signature_faults: Literal["everywhere", "webhooks", "stream"] = "everywhere"
    dial_status: str = "completed"  # DialCallStatus
    dial_talk_seconds: float = 0.0  # how long the dialed party talks
