"""The dials: every way in which the far ends can misbehave, chosen before a call.

All defaults together are a well-behaved Vapi. A test that wants one fault turns one dial.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantDials:
    """What the stand-in for Vapi does wrong, late or strangely. `_s` seconds, `_ms` milliseconds."""

    # POST /call
    rest_status: int = 0  # answer with this error, such as 401, 429 or 503; 0: none
    rest_failures: int | None = None  # only the first so many requests fail; None: all of them
    rest_delay_s: float = 0.0  # think so long before answering
    rest_html: bool = False  # a proxy's HTML page with status 200
    rest_no_url: bool = False  # 201 without websocketCallUrl
    rest_huge: bool = False  # a 201 whose body is 8 MiB
    concurrency_blocked: bool = False  # 201, but all slots are taken
    concurrency_limit: int = 1000

    # The socket's handshake
    ws_refuse: bool = False  # HTTP 403
    ws_hang_s: float = 0.0  # say nothing for so long, then accept
    connect_within_s: float = 20.0  # a call nobody connects to dies

    # Speaking
    first_audio_delay_s: float = 0.3  # socket open -> greeting
    greets: bool = True
    greeting_interruptible: bool = True  # Vapi's own default is False; the bridge must cope with both
    delay_ms: tuple[int, int] = (200, 2500)  # true end of the caller's speech -> first audible byte
    user_stopped_late_ms: int = 700
    burst: bool = False  # each reply leaves at once instead of in real time
    odd_chunks: bool = True  # PCM samples are split over chunks
    stall_after_turns: int | None = None  # after so many answers: open, answering pings, silent
    no_interrupted: bool = False  # barge-in without user-interrupted
    socket_events: bool = True  # socket dialect: transcript finals; off: audio and nothing else
    junk_events: bool = False  # unknown types, broken JSON, NUL and lone surrogates in transcripts

    # The end; times count from the open socket
    end_at_s: float | None = None  # status-update ended with `ended_reason`, close 1000
    ended_reason: str = "call.in-progress.error-vapifault-worker-died"
    close_at_s: float | None = None  # close without a word; 1005 sends no code, 1006 aborts
    close_code: int = 1011
    abort_at_s: float | None = None  # the connection is gone: no close frame

    # Server messages
    no_reports: bool = False
    report_after_s: float = 0.3  # end of the call -> end-of-call report

    # What is kept for inspection
    keep_audio_s: float = 300.0  # of received audio per call; what is beyond is counted


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierApiDials:
    """What the stand-in for Twilio's REST API does wrong, and how the people behave whom it calls."""

    # Every request, or those alone whose path contains `rest_only`
    rest_only: str = ""
    rest_status: int = 0  # answer with this error, such as 401, 429 or 500; 0: none
    rest_failures: int | None = None  # only the first so many requests fail; None: all of them
    rest_delay_s: float = 0.0  # think so long before answering
    rest_hang: bool = False  # no answer at all
    rest_garbage: bool = False  # a proxy's HTML page with status 200
    rest_cut: bool = False  # the request is obeyed, and the answer ends in the middle

    # Calls that it places
    ring_s: float = 0.2
    outcome: str = "answered"  # or busy, no-answer, failed
    answered_by: str = "human"  # what machine detection says
    detection_s: float = 0.3  # how long it takes
    api_never_rings: bool = False  # the call stays queued

    # The bill
    price_after_s: float | None = None  # end of a call -> its price; None: when told
