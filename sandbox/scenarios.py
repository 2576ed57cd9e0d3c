"""Named faults for one simulated call, such as `vapi-drops-mid-call`.

`./manage.py simulate_call --fault NAME` and `python -m bench.faults` use the same names. The Vapi simulator
takes a name at `POST /sandbox/fault`, so that a caller in another process can set it for the calls that
follow.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.faults import TwilioFaults, VapiFaults


@dataclass(frozen=True, slots=True)
class FaultScenario:
    """One fault: what happens, and the settings of both simulators that make it happen."""

    name: str
    description: str
    twilio: TwilioFaults = TwilioFaults()  # noqa: RUF009 - frozen
    vapi: VapiFaults = VapiFaults()  # noqa: RUF009 - frozen


NO_FAULT = FaultScenario("none", "Nothing goes wrong.")

_REST_ERRORS = {
    400: "bad request", 401: "wrong key", 402: "no credit", 403: "forbidden", 404: "no such assistant",
    409: "conflict", 422: "not valid", 429: "too many calls", 500: "internal error", 502: "bad gateway",
    503: "unavailable",
}  # fmt: skip
_CLOSE_CODES = (1000, 1001, 1005, 1006, 1011, 1012, 4000)

SCENARIOS: dict[str, FaultScenario] = {
    scenario.name: scenario
    for scenario in (
        NO_FAULT,
        # Vapi's REST API
        *(
            FaultScenario(
                f"vapi-answers-{status}",
                f"Vapi answers {status} ({meaning}) to POST /call.",
                vapi=VapiFaults(rest_status=status),
            )
            for status, meaning in _REST_ERRORS.items()
        ),
        FaultScenario(
            "vapi-fails-once",
            "Vapi answers 503 to the first POST /call, and 201 to the next.",
            vapi=VapiFaults(rest_status=503, rest_failures=1),
        ),
        FaultScenario("vapi-answers-html", "A proxy answers with a page.", vapi=VapiFaults(rest_html=True)),
        FaultScenario("vapi-names-no-socket", "201 without a URL.", vapi=VapiFaults(rest_no_url=True)),
        FaultScenario("vapi-answers-8-mb", "201 with 8 MB.", vapi=VapiFaults(rest_huge=True)),
        FaultScenario("vapi-is-slow", "POST /call takes 1 s.", vapi=VapiFaults(rest_delay_seconds=1.0)),
        FaultScenario("vapi-is-very-slow", "POST /call takes 5 s.", vapi=VapiFaults(rest_delay_seconds=5.0)),
        FaultScenario(
            "vapi-never-answers", "POST /call has no answer.", vapi=VapiFaults(rest_delay_seconds=600.0)
        ),
        # Vapi's websocket
        FaultScenario("vapi-socket-refuses", "The socket answers 403.", vapi=VapiFaults(ws_refuse=True)),
        FaultScenario(
            "vapi-socket-hangs",
            "The socket's handshake has no answer.",
            vapi=VapiFaults(ws_accept_delay_seconds=600.0),
        ),
        *(
            FaultScenario(
                f"vapi-closes-{code}",
                f"The socket closes with {code} in mid-call.",
                vapi=VapiFaults(close_after_seconds=3.0, close_code=code),
            )
            for code in _CLOSE_CODES
        ),
        FaultScenario(
            "vapi-drops-mid-call",
            "The connection to Vapi breaks in mid-call.",
            vapi=VapiFaults(abort_after_seconds=3.0),
        ),
        FaultScenario(
            "vapi-ends-with-an-error",
            "Vapi reports an error and ends the call.",
            vapi=VapiFaults(end_after_seconds=3.0),
        ),
        FaultScenario(
            "vapi-stalls",
            "After one answer Vapi says nothing more, but answers pings.",
            vapi=VapiFaults(stall_after_turns=1, delay_ms=(200, 400)),
        ),
        FaultScenario(
            "vapi-sends-bursts",
            "Each reply arrives at once.",
            vapi=VapiFaults(burst=True, delay_ms=(200, 400)),
        ),
        FaultScenario(
            "vapi-floods",
            "Vapi sends audio a hundred times faster than it can be heard.",
            vapi=VapiFaults(flood=True),
        ),
        FaultScenario("vapi-sends-no-report", "There is no report.", vapi=VapiFaults(no_reports=True)),
        FaultScenario("vapi-sends-junk", "Events are malformed.", vapi=VapiFaults(junk_events=True)),
        # The phone line
        FaultScenario(
            "caller-vanishes",
            "Twilio sends and reads nothing more, and leaves the socket open.",
            twilio=TwilioFaults(vanish_after_seconds=3.0),
        ),
        FaultScenario(
            "twilio-drops-mid-call",
            "The connection from Twilio breaks in mid-call.",
            twilio=TwilioFaults(drop_after_seconds=3.0),
        ),
        FaultScenario(
            "caller-hangs-up-without-stop",
            "The socket closes without stop.",
            twilio=TwilioFaults(no_stop=True),
        ),
        FaultScenario("stream-never-starts", "There is no start.", twilio=TwilioFaults(no_start=True)),
        FaultScenario("forged-ticket", "The ticket is forged.", twilio=TwilioFaults(bad_ticket=True)),
        FaultScenario(
            "wrong-stream",
            "Frames name another stream.",
            twilio=TwilioFaults(wrong_stream_sid_after_seconds=1.0),
        ),
        FaultScenario(
            "unsigned-stream",
            "The stream has no signature.",
            twilio=TwilioFaults(skip_signature=True, signature_faults="stream"),
        ),
    )
}
