"""How a call ended, in words that a dispatcher would use, and what the caller hears then.

One row for each end reason: a sentence, whose side it was, the next step, and the answer that
`/twilio/after` gives. A reason that is not in the table (an older row, a newer worker) reads as
`UNKNOWN`, whose answer is the careful one. A second table reads the assistant vendor's own
reasons, which are hundreds, by their beginnings.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What `/twilio/after` does with the caller."""

    HANG_UP = "hangup"
    HUMAN_OR_APOLOGY = "human_or_apology"
    POLITE = "polite"  # a human where there is one, else a polite line: nothing broke


@dataclass(frozen=True, slots=True)
class Ending:
    """One way for a call to end."""

    sentence: str
    side: str  # caller, assistant, network, us, staff, billing
    next_step: str
    answer: Answer
    failed: bool = False  # the caller did not get what they called for, through no wish of theirs


ENDINGS: dict[str, Ending] = {
    "caller-hung-up": Ending("The caller hung up.", "caller", "Nothing to do.", Answer.HANG_UP),
    "assistant-ended": Ending(
        "The assistant said goodbye and ended the call.", "assistant", "Nothing to do.", Answer.HANG_UP
    ),
    "assistant-failed": Ending(
        "The assistant broke off in the middle of the call.",
        "assistant",
        "Read the assistant's own reason below; if it comes back, ask Vapi with the call's id.",
        Answer.HUMAN_OR_APOLOGY,
        failed=True,
    ),
    "assistant-unreachable": Ending(
        "The assistant could not be reached.",
        "assistant",
        "The timeline has the answer we got. 401 means the key: check VAPI_API_KEY. "
        "404 means the assistant: check VAPI_ASSISTANT_ID.",
        Answer.HUMAN_OR_APOLOGY,
        failed=True,
    ),
    "assistant-stalled": Ending(
        "The assistant fell silent and did not answer the caller.",
        "assistant",
        "Look at the last turn; a slow model or a tool that never returns is the usual cause.",
        Answer.HUMAN_OR_APOLOGY,
        failed=True,
    ),
    "stream-lost": Ending(
        "The connection that carries the sound broke.",
        "network",
        "One such call is bad luck; several at once mean a proxy or a network between Twilio and us.",
        Answer.HUMAN_OR_APOLOGY,
        failed=True,
    ),
    "ticket-refused": Ending(
        "A connection without a valid ticket was turned away.",
        "us",
        "Check that every worker has the same DJANGO_SECRET_KEY and that the clock is right; "
        "otherwise somebody else knocked at the door.",
        Answer.HANG_UP,
        failed=True,
    ),
    "no-start": Ending(
        "A connection was opened, and no call came over it.",
        "us",
        "Nothing to do for one; many mean a proxy that opens connections by itself, or a scanner.",
        Answer.HANG_UP,
        failed=True,
    ),
    "at-capacity": Ending(
        "All lines were in use, so the caller was told that we are busy.",
        "us",
        "Raise MAX_CONCURRENT_CALLS or start another worker if this happens in normal hours.",
        Answer.POLITE,
        failed=True,
    ),
    "draining": Ending(
        "We were being restarted and took no new calls.",
        "us",
        "Start the new version before the old one stops, so that callers never meet a closed door.",
        Answer.POLITE,
        failed=True,
    ),
    "machine-answered": Ending(
        "An answering machine took the call that we placed, so we hung up.",
        "caller",
        "Call again at another time, or let the assistant leave a message.",
        Answer.HANG_UP,
    ),
    "out-of-hours": Ending(
        "The call came outside the number's opening hours.",
        "us",
        "Nothing to do; the hours stand in the number's settings.",
        Answer.POLITE,
    ),
    "limit-reached": Ending(
        "The call reached our time limit and was ended by us.",
        "us",
        "Raise MAX_CALL_SECONDS if calls of this length are meant to happen.",
        Answer.POLITE,
    ),
    "protocol-abuse": Ending(
        "The connection sent what no phone call sends, so we closed it.",
        "us",
        "Look at the counters of the call; if this was a real caller, keep the call for the developers.",
        Answer.HUMAN_OR_APOLOGY,
        failed=True,
    ),
    "worker-lost": Ending(
        "The server that carried the call stopped in the middle of it.",
        "us",
        "Look into that server's log at the time of the call: a crash, or not enough memory.",
        Answer.HUMAN_OR_APOLOGY,
        failed=True,
    ),
    "hung-up-by-staff": Ending("Staff ended the call.", "staff", "Nothing to do.", Answer.HANG_UP),
    "transferred": Ending(
        "The caller was handed over to a person, as asked.",
        "staff",
        "Nothing to do.",
        Answer.HUMAN_OR_APOLOGY,
    ),
}

UNKNOWN = Ending(
    "Nobody noted how this call ended.",
    "us",
    "Twilio's page of this call says more.",
    Answer.HUMAN_OR_APOLOGY,
)

FAILED_REASONS = tuple(reason for reason, ending in ENDINGS.items() if ending.failed)


def ending(end_reason: str | None) -> Ending:
    """The row of the table for a reason, or `UNKNOWN`. Never raises."""
    return ENDINGS.get(end_reason or "", UNKNOWN)


# Twilio's word for a call that ended before there was a stream whose end could be named.
STATUS_SENTENCES = {
    "queued": "Waiting to be dialled.",
    "initiated": "Being dialled.",
    "ringing": "Ringing.",
    "in-progress": "The call is going on.",
    "completed": "The call is over.",
    "busy": "The line was busy.",
    "failed": "The call could not be connected.",
    "no-answer": "Nobody picked up.",
    "canceled": "The call was given up before it was answered.",
}


@dataclass(frozen=True, slots=True)
class VendorReason:
    """What the beginning of Vapi's `endedReason` tells."""

    prefix: str
    sentence: str
    side: str
    next_step: str = ""


ACCOUNT = "Check the Vapi account."
ASSISTANT = "Check VAPI_ASSISTANT_ID."

# Read from the top; the first beginning that fits wins, so the special ones stand above the general.
VENDOR_REASONS: tuple[VendorReason, ...] = (
    VendorReason("customer-did-not-give-microphone", "No sound came from the caller.", "caller"),
    VendorReason("customer-", "The caller ended the call.", "caller"),
    VendorReason("assistant-ended-call", "The assistant ended the call as it was told to.", "assistant"),
    VendorReason("assistant-said-", "The assistant said its last sentence and ended the call.", "assistant"),
    VendorReason("assistant-forwarded-call", "The assistant passed the caller on.", "assistant"),
    VendorReason("assistant-not-found", "Vapi knows no such assistant.", "us", ASSISTANT),
    VendorReason("assistant-", "The assistant could not go on.", "assistant"),
    VendorReason("silence-timed-out", "Nobody said anything for too long.", "caller"),
    VendorReason("exceeded-max-duration", "The call reached its time limit.", "us", "See MAX_CALL_SECONDS."),
    VendorReason("manually-canceled", "The call was ended by hand or by our request.", "staff"),
    VendorReason("voicemail", "An answering machine picked up.", "caller"),
    VendorReason("call.start.error-subscription", "Vapi's account cannot pay for calls.", "billing", ACCOUNT),
    VendorReason("call.start.error-get-subscription", "Vapi could not read the account.", "billing", ACCOUNT),
    VendorReason("call.start.error-get-assistant", "Vapi knows no such assistant.", "us", ASSISTANT),
    VendorReason("call.start.error-", "Vapi could not begin the call.", "assistant", ACCOUNT),
    VendorReason(
        "call.in-progress.error-vapifault-",
        "Something broke at Vapi.",
        "assistant",
        "Usually not charged; ask Vapi with the call's id.",
    ),
    VendorReason(
        "call.in-progress.error-providerfault-",
        "A service behind Vapi (speech, model or voice) failed.",
        "assistant",
        "If it comes back, choose another provider for that part.",
    ),
    VendorReason(
        "call.in-progress.error-assistant-did-not-receive-customer-audio",
        "Vapi heard nothing from the caller.",
        "us",
        "Look at the frame counters of this call first.",
    ),
    VendorReason("call.in-progress.error-", "The assistant broke off.", "assistant"),
    VendorReason("pipeline-error-", "A service behind Vapi failed.", "assistant"),
    VendorReason(
        "phone-call-provider-closed-websocket",
        "Our connection to Vapi was closed from our side or by the network.",
        "network",
        "Look at the timeline of this call first.",
    ),
    VendorReason("worker-shutdown", "Vapi's server was restarted.", "assistant"),
    VendorReason("unknown-error", "Vapi does not know what happened.", "assistant", "Ask Vapi."),
)


def vendor_reason(vapi_ended_reason: str) -> VendorReason | None:
    """What Vapi's own reason means, or None for one that the table does not know."""
    if "transport-never-connected" in vapi_ended_reason:
        return VendorReason(
            vapi_ended_reason, "We never connected to the line that Vapi offered.", "us", "See the timeline."
        )
    for reason in VENDOR_REASONS:
        if vapi_ended_reason.startswith(reason.prefix):
            return reason
    return None
