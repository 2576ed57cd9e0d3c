"""What each end reason means: one table for pages, statistics and the TwiML after the stream.

The constants and the side that ended the call come from `bridge.end_reasons`. This table adds a sentence,
the next step for staff, and what `/twilio/after` does with the caller. An end reason that is not in
the table (from an older row or a newer worker) is `UNKNOWN`.

A second table explains Vapi's `endedReason`. Vapi has hundreds of them, so it matches prefixes. Which of them
are failures is decided by `bridge.wire.vapi.is_failure`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from bridge.end_reasons import (
    ASSISTANT_ENDED,
    ASSISTANT_FAILED,
    ASSISTANT_STALLED,
    ASSISTANT_UNREACHABLE,
    AT_CAPACITY,
    CALLER_HUNG_UP,
    DRAINING,
    ENDED_BY,
    FLOOD,
    HUNG_UP_BY_STAFF,
    LIMIT_REACHED,
    MACHINE_ANSWERED,
    NO_START,
    OUT_OF_HOURS,
    PROTOCOL_ABUSE,
    SERVER_STOPPED,
    STREAM_LOST,
    TICKET_REFUSED,
    TRANSFERRED,
    WORKER_LOST,
)


class FollowUp(StrEnum):
    """What `/twilio/after` does with the caller once the stream is over."""

    HANG_UP = "hangup"
    FALLBACK_OR_APOLOGY = "fallback_or_apology"  # dial the fallback number; without one, apologize
    FALLBACK_OR_NOTICE = "fallback_or_notice"  # the same, but with the reason (full, closed, time limit)


@dataclass(frozen=True, slots=True)
class EndReason:
    """One end reason. `is_failure`: the caller was not served, and did not choose to end the call."""

    name: str
    label: str  # at most four words, for lists
    sentence: str
    next_step: str
    follow_up: FollowUp
    is_failure: bool = False

    @property
    def side(self) -> str:
        """Who ended the call: caller, assistant, network, us or staff."""
        return ENDED_BY.get(self.name, "us")


END_REASONS: dict[str, EndReason] = {
    reason.name: reason
    for reason in (
        EndReason(
            CALLER_HUNG_UP, "Caller hung up", "The caller hung up.", "Nothing to do.", FollowUp.HANG_UP
        ),
        EndReason(
            ASSISTANT_ENDED,
            "Assistant hung up",
            "The assistant said goodbye and ended the call.",
            "Nothing to do.",
            FollowUp.HANG_UP,
        ),
        EndReason(
            ASSISTANT_FAILED,
            "Assistant failed",
            "The assistant failed in the middle of the call.",
            "See Vapi's reason on the call's page. If it happens again, contact Vapi with its call id.",
            FollowUp.FALLBACK_OR_APOLOGY,
            is_failure=True,
        ),
        EndReason(
            ASSISTANT_UNREACHABLE,
            "Assistant unreachable",
            "The assistant could not be reached.",
            "See Vapi's answer in the timeline. 401: check VAPI_API_KEY. 404: check VAPI_ASSISTANT_ID.",
            FollowUp.FALLBACK_OR_APOLOGY,
            is_failure=True,
        ),
        EndReason(
            ASSISTANT_STALLED,
            "Assistant stopped responding",
            "The assistant stopped answering the caller.",
            "Check the last turn. The usual causes are a slow model and a tool that does not return.",
            FollowUp.FALLBACK_OR_APOLOGY,
            is_failure=True,
        ),
        EndReason(
            STREAM_LOST,
            "Audio connection lost",
            "The audio connection was lost.",
            "Nothing to do for a single call. If it happens to several calls at once, check the proxies and "
            "the network between Twilio and the server.",
            FollowUp.FALLBACK_OR_APOLOGY,
            is_failure=True,
        ),
        EndReason(
            TICKET_REFUSED,
            "Media stream rejected",
            "A media stream without a valid ticket was rejected.",
            "Check that all workers use the same DJANGO_SECRET_KEY and that their clocks are right. "
            "Otherwise the connection did not come from Twilio.",
            FollowUp.HANG_UP,
            is_failure=True,
        ),
        EndReason(
            NO_START,
            "Media stream never started",
            "A media stream was opened, but it never started a call.",
            "Nothing to do for a single call. Many of them point to a scanner, or to a proxy that opens "
            "connections by itself.",
            FollowUp.HANG_UP,
            is_failure=True,
        ),
        EndReason(
            AT_CAPACITY,
            "All lines busy",
            "All lines were busy.",
            "If this happens at normal load, raise MAX_CONCURRENT_CALLS or start another worker.",
            FollowUp.FALLBACK_OR_NOTICE,
            is_failure=True,
        ),
        EndReason(
            DRAINING,
            "Server restarting",
            "The server was restarting and did not take new calls.",
            "Start the new version before you stop the old one, so that a worker is always available.",
            FollowUp.FALLBACK_OR_NOTICE,
            is_failure=True,
        ),
        EndReason(
            MACHINE_ANSWERED,
            "Answering machine",
            "An answering machine picked up the outbound call, so it was ended.",
            "Call again at another time, or let the assistant leave a message.",
            FollowUp.HANG_UP,
        ),
        EndReason(
            OUT_OF_HOURS,
            "Outside opening hours",
            "The call came outside the number's opening hours.",
            "Nothing to do. The opening hours are in the number's settings.",
            FollowUp.FALLBACK_OR_NOTICE,
        ),
        EndReason(
            LIMIT_REACHED,
            "Maximum duration reached",
            "The call reached the maximum duration.",
            "If calls may take this long, raise MAX_CALL_SECONDS.",
            FollowUp.FALLBACK_OR_NOTICE,
        ),
        EndReason(
            PROTOCOL_ABUSE,
            "Media stream invalid",
            "The media stream broke Twilio's protocol, so the server closed it.",
            "Check the call's counters. If this was a real caller, report it to the developers.",
            FollowUp.FALLBACK_OR_APOLOGY,
            is_failure=True,
        ),
        EndReason(
            FLOOD,
            "Too much audio",
            "One side sent audio faster than it can be heard, so the server ended the call.",
            "If the assistant sent it, have it send long answers in parts. Otherwise the stream did not come "
            "from Twilio.",
            FollowUp.FALLBACK_OR_APOLOGY,
            is_failure=True,
        ),
        EndReason(
            WORKER_LOST,
            "Server failed",
            "The server that handled the call stopped in the middle of it.",
            "Check that server's log at the time of the call for a crash or lack of memory.",
            FollowUp.FALLBACK_OR_APOLOGY,
            is_failure=True,
        ),
        EndReason(
            SERVER_STOPPED,
            "Server stopped",
            "The server was stopped before the call was over.",
            "Give calls more time when you stop a server: raise DRAIN_SECONDS.",
            FollowUp.FALLBACK_OR_APOLOGY,
            is_failure=True,
        ),
        EndReason(
            HUNG_UP_BY_STAFF, "Ended by staff", "Staff ended the call.", "Nothing to do.", FollowUp.HANG_UP
        ),
        EndReason(
            TRANSFERRED,
            "Transferred",
            "The caller was transferred to a person, as requested.",
            "Nothing to do.",
            FollowUp.FALLBACK_OR_APOLOGY,
        ),
    )
}

UNKNOWN = EndReason(
    "",
    "Unknown",
    "It is not known how this call ended.",
    "See this call in Twilio's console.",
    FollowUp.FALLBACK_OR_APOLOGY,
)

FAILURE_REASONS = tuple(name for name, reason in END_REASONS.items() if reason.is_failure)


def explain(end_reason: str | None) -> EndReason:
    """The table's entry for an end reason, or `UNKNOWN`. Never raises."""
    return END_REASONS.get(end_reason or "", UNKNOWN)


_CALLER = re.compile(r"(?<![-\w])([Cc])aller(?![-\w])")  # not within an id


def name_party(sentence: str, party: str) -> str:
    """A sentence about the caller, for a call whose other party is a `callee`."""
    return sentence if party == "caller" else _CALLER.sub(rf"\1{party[1:]}", sentence)


# By Twilio's status, for a call that has no end reason because it never had a stream, or has not ended.
STATUS_LABELS = {
    "queued": "Queued",
    "initiated": "Dialing",
    "ringing": "Ringing",
    "in-progress": "In progress",
    "completed": "Completed",
    "busy": "Busy",
    "failed": "Not connected",
    "no-answer": "No answer",
    "canceled": "Canceled",
}
STATUS_SENTENCES = {name: f"{label}." for name, label in STATUS_LABELS.items()} | {
    "busy": "The line was busy.",
    "failed": "The call could not be connected.",
    "canceled": "Canceled before it was answered.",
}


@dataclass(frozen=True, slots=True)
class VapiReason:
    """What a prefix of Vapi's `endedReason` means."""

    prefix: str
    sentence: str
    side: str
    next_step: str = ""


_CHECK_ACCOUNT = "Check the Vapi account."
_CHECK_ASSISTANT = "Check VAPI_ASSISTANT_ID."
_NO_MODEL = "No language model was available."
_CHECK_MODEL = "Check the assistant's model at Vapi, and add a fallback model."

# The first prefix that matches wins, so a special prefix comes before a general one.
VAPI_REASONS: tuple[VapiReason, ...] = (
    VapiReason("customer-did-not-give-microphone", "No audio came from the caller.", "caller"),
    VapiReason("customer-ended-call", "The caller ended the call.", "caller"),
    VapiReason("customer-busy", "The line was busy.", "caller"),
    VapiReason("customer-did-not-answer", "Nobody answered.", "caller"),
    VapiReason("assistant-ended-call", "The assistant ended the call, as it was told to.", "assistant"),
    VapiReason("assistant-said-", "The assistant said its closing phrase and ended the call.", "assistant"),
    VapiReason("assistant-forwarded-call", "The assistant transferred the call.", "assistant"),
    VapiReason("assistant-not-found", "Vapi did not find the assistant.", "us", _CHECK_ASSISTANT),
    VapiReason("assistant-not-valid", "The assistant's configuration is not valid.", "us", _CHECK_ASSISTANT),
    VapiReason("assistant-not-provided", "The call named no assistant.", "us", _CHECK_ASSISTANT),
    VapiReason("assistant-join-timed-out", "The assistant did not join the call in time.", "assistant"),
    VapiReason(
        "assistant-request-", "Vapi requested an assistant from a server and got none that it can use.", "us"
    ),
    VapiReason("assistant-", "The assistant failed.", "assistant"),
    VapiReason("call-deleted", "The call was deleted at Vapi.", "staff"),
    VapiReason("scheduled-call-deleted", "The call was deleted at Vapi.", "staff"),
    VapiReason("silence-timed-out", "Nobody spoke for too long.", "caller"),
    VapiReason(
        "exceeded-max-duration", "The call reached the maximum duration.", "us", "See MAX_CALL_SECONDS."
    ),
    VapiReason("manually-canceled", "The call was ended by staff or through Vapi's API.", "staff"),
    VapiReason(
        "call-start-error-neither-assistant-nor-server-set",
        "The call named no assistant.",
        "us",
        _CHECK_ASSISTANT,
    ),
    VapiReason("call.ending.hook-", "A hook of the assistant ended the call.", "assistant"),
    VapiReason("call.ringing.hook-", "A hook of the assistant ended the call.", "assistant"),
    VapiReason("call.forwarding.operator-busy", "The person to be transferred to was busy.", "assistant"),
    VapiReason("call.ringing.", "The call was not connected at Vapi.", "network"),
    VapiReason("call.in-progress.sip-completed-call", "Vapi's carrier ended the call.", "network"),
    VapiReason("call.in-progress.twilio-completed-call", "Vapi's carrier ended the call.", "network"),
    VapiReason("twilio-reported-customer-misdialed", "The number that was called does not exist.", "us"),
    VapiReason("twilio-", "Vapi's carrier could not connect the call.", "network"),
    VapiReason("vonage-completed", "Vapi's carrier ended the call.", "network"),
    VapiReason("vonage-", "Vapi's carrier could not connect the call.", "network"),
    VapiReason("voicemail", "An answering machine picked up.", "caller"),
    VapiReason(
        "call.start.error-subscription", "The Vapi account cannot pay for calls.", "billing", _CHECK_ACCOUNT
    ),
    VapiReason(
        "call.start.error-get-subscription", "Vapi could not read the account.", "billing", _CHECK_ACCOUNT
    ),
    VapiReason("call.start.error-get-assistant", "Vapi did not find the assistant.", "us", _CHECK_ASSISTANT),
    VapiReason("call.start.error-", "Vapi could not start the call.", "assistant", _CHECK_ACCOUNT),
    VapiReason(
        "call.in-progress.error-vapifault-",
        "Vapi had an internal error.",
        "assistant",
        "Vapi usually does not charge for such a call. Contact Vapi with the id of the Vapi call.",
    ),
    VapiReason(
        "call.in-progress.error-providerfault-",
        "A provider that Vapi uses (transcriber, model or voice) failed.",
        "assistant",
        "If it happens again, choose another provider for that part.",
    ),
    VapiReason(
        "call.in-progress.error-assistant-did-not-receive-customer-audio",
        "Vapi received no audio from the caller.",
        "us",
        "Check this call's frame counters.",
    ),
    VapiReason(
        "call.in-progress.error-pipeline-no-available-llm-model", _NO_MODEL, "assistant", _CHECK_MODEL
    ),
    VapiReason("call.in-progress.error-transfer-", "The assistant could not transfer the call.", "assistant"),
    VapiReason(
        "call.in-progress.error-warm-transfer-", "The assistant could not transfer the call.", "assistant"
    ),
    VapiReason("call.in-progress.error-", "The assistant failed.", "assistant"),
    VapiReason("pipeline-no-available-llm-model", _NO_MODEL, "assistant", _CHECK_MODEL),
    VapiReason("pipeline-error-", "A provider that Vapi uses failed.", "assistant"),
    VapiReason(
        "phone-call-provider-closed-websocket",
        "The connection to Vapi was closed by this server or by the network.",
        "network",
        "Check this call's timeline.",
    ),
    VapiReason(
        "phone-call-provider-bypass-enabled-but-no-call-received",
        "Vapi expected a call that never came.",
        "us",
    ),
    VapiReason("worker-shutdown", "Vapi's server was restarted.", "assistant"),
    VapiReason("unknown-error", "Vapi reports an unknown error.", "assistant", "Contact Vapi."),
)

# It follows different prefixes, so it is matched anywhere in the reason.
_NEVER_CONNECTED = "transport-never-connected"


def explain_vapi_reason(ended_reason: str) -> VapiReason | None:
    """What Vapi's `endedReason` means; for an unknown one, an entry that says so. None without a reason."""
    if not ended_reason:
        return None
    if _NEVER_CONNECTED in ended_reason:
        return VapiReason(
            ended_reason,
            "This server never connected to the socket that Vapi offered.",
            "us",
            "Check this call's timeline.",
        )
    for reason in VAPI_REASONS:
        if ended_reason.startswith(reason.prefix):
            return reason
    return VapiReason(
        ended_reason,
        "Vapi gave a reason that is not known here. It counts as a failure.",
        "assistant",
        "Look it up in Vapi's documentation.",
    )
