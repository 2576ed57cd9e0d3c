"""The TwiML that this server answers Twilio with, and the sentences that callers hear in it."""

from __future__ import annotations

import base64
import re
from urllib.parse import urlencode

from twilio.twiml.voice_response import VoiceResponse

UNAVAILABLE = "We are sorry, our assistant is not available at the moment. Please call again later."
BUSY = "All our lines are busy at the moment. Please call again in a few minutes."
GOODBYE = "We have to end this call here. Thank you for calling. Goodbye."
CLOSED = "We are closed at the moment. Please call again during our opening hours."
WHISPER = "This is a call that was handed over to you."
NOBODY_THERE = "We are sorry, nobody can take your call right now. Please call again later."

DIAL_SECONDS = 20  # how long a person's telephone rings

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def connect_stream(
    public_url: str, stream_url: str, *, ticket: str, route_id: str, disclosure: str = "", greeting: str = ""
) -> VoiceResponse:
    """Speak the disclosure and the greeting, then connect the call to the media stream."""
    response = VoiceResponse()
    for sentence in (disclosure, greeting):
        if sentence:
            response.say(_xml_text(sentence))
    connect = response.connect(action=f"{public_url}/twilio/after")
    stream = connect.stream(url=stream_url, status_callback=f"{public_url}/twilio/stream")
    stream.parameter(name="ticket", value=ticket)
    stream.parameter(name="route", value=route_id)
    # Heard only when the stream never opened and `/twilio/after` could not be requested.
    response.say(UNAVAILABLE)
    return response


def hang_up() -> VoiceResponse:
    response = VoiceResponse()
    response.hangup()
    return response


def say_and_hang_up(sentence: str) -> VoiceResponse:
    response = VoiceResponse()
    response.say(_xml_text(sentence))
    response.hangup()
    return response


def dial(public_url: str, number: str, caller_id: str = "") -> VoiceResponse:
    """Dial a person. `/twilio/after?dialed=1` is requested when that call is over.

    `caller_id` is what the person's telephone shows; empty: the caller's number.
    """
    response = VoiceResponse()
    response.dial(
        _xml_text(number),
        action=_after_dial_url(public_url),
        timeout=DIAL_SECONDS,
        caller_id=caller_id or None,
    )
    return response


def dial_with_whisper(public_url: str, number: str, reason: str, caller_id: str = "") -> VoiceResponse:
    """Dial a person, as `dial` does, who hears first that the call was handed over, and the `reason`."""
    response = VoiceResponse()
    dialing = response.dial(
        action=_after_dial_url(public_url), timeout=DIAL_SECONDS, caller_id=caller_id or None
    )
    # The reason holds the caller's words. URLs are written into access logs, so it is encoded.
    dialing.number(number, url=f"{public_url}/twilio/whisper?{urlencode({'about': encode_text(reason)})}")
    return response


def whisper(encoded_reason: str) -> VoiceResponse:
    response = VoiceResponse()
    response.say(f"{WHISPER} {_xml_text(decode_text(encoded_reason))}".strip())
    return response


def encode_text(text: str) -> str:
    """Base64url, so that nobody reads the text in passing. It is not encryption."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_text(encoded: str) -> str:
    """The reverse of `encode_text`; empty for anything else."""
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        return ""


def _after_dial_url(public_url: str) -> str:
    return f"{public_url}/twilio/after?dialed=1"


def _xml_text(text: str) -> str:
    """Replace what XML forbids by spaces: one such character makes the whole response invalid."""
    return _NOT_XML.sub(" ", text)
