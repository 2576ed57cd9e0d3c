"""The TwiML that this server answers Twilio with.

`voice` is how the number speaks. A sentence of `sentences.py` without a translation is spoken in English.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import urlencode

from twilio.twiml.voice_response import VoiceResponse

from calls.twilio.sentences import SENTENCES, UNAVAILABLE, WHISPER, translate
from calls.twilio.voices import DEFAULT_LANGUAGE, Voice

DIAL_TIMEOUT_SECONDS = 20  # how long a person's telephone rings

TWILIO_DEFAULT = Voice()

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def connect_stream(
    public_url: str,
    stream_url: str,
    *,
    ticket: str,
    route_id: str,
    disclosure: str = "",
    greeting: str = "",
    voice: Voice = TWILIO_DEFAULT,
) -> VoiceResponse:
    """Speak the disclosure and the greeting, then connect the call to the media stream."""
    response = VoiceResponse()
    for sentence in (disclosure, greeting):
        if _xml_text(sentence).strip():  # an empty <Say> is an error (13520)
            _say(response, sentence, voice)
    connect = response.connect(action=f"{public_url}/twilio/after")
    stream = connect.stream(url=stream_url, status_callback=f"{public_url}/twilio/stream")
    stream.parameter(name="ticket", value=ticket)
    stream.parameter(name="route", value=route_id)
    # Heard only when the stream never opened and `/twilio/after` could not be requested.
    _say(response, UNAVAILABLE, voice)
    return response


def hang_up() -> VoiceResponse:
    response = VoiceResponse()
    response.hangup()
    return response


def say_and_hang_up(sentence: str, voice: Voice = TWILIO_DEFAULT) -> VoiceResponse:
    response = VoiceResponse()
    _say(response, sentence, voice)
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
        timeout=DIAL_TIMEOUT_SECONDS,
        caller_id=caller_id or None,
    )
    return response


def dial_with_whisper(
    public_url: str, number: str, reason: str, caller_id: str = "", voice: Voice = TWILIO_DEFAULT
) -> VoiceResponse:
    """Dial a person, as `dial` does, who hears first that the call was transferred, and the `reason`."""
    response = VoiceResponse()
    dialing = response.dial(
        action=_after_dial_url(public_url), timeout=DIAL_TIMEOUT_SECONDS, caller_id=caller_id or None
    )
    # The reason holds the caller's words. URLs are written into access logs, so it is encoded.
    query = {"about": encode_text(reason)}
    query |= {"language": voice.language} if voice.language else {}
    query |= {"voice": voice.name} if voice.name else {}
    dialing.number(number, url=f"{public_url}/twilio/whisper?{urlencode(query)}")
    return response


def whisper(encoded_reason: str, voice: Voice = TWILIO_DEFAULT) -> VoiceResponse:
    response = VoiceResponse()
    reason = decode_text(encoded_reason)
    sentence, sentence_voice = _localize(WHISPER, voice)
    if sentence_voice == voice:
        _say(response, f"{sentence} {reason}".strip(), voice)
    else:
        _say(response, WHISPER, voice)
        if reason.strip():
            _say(response, reason, voice)
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


def _say(response: VoiceResponse, sentence: str, voice: Voice) -> None:
    text, voice = _localize(sentence, voice)
    response.say(_xml_text(text), language=voice.language or None, voice=voice.name or None)


def _localize(sentence: str, voice: Voice) -> tuple[str, Voice]:
    """One of our own sentences in the voice's language, else in English. Other texts stay as they are."""
    if sentence not in SENTENCES:
        return sentence, voice
    translation = translate(sentence, voice.language or DEFAULT_LANGUAGE)
    # Another language's voice would make English unintelligible.
    return (sentence, Voice(DEFAULT_LANGUAGE)) if translation is None else (translation, voice)


def _after_dial_url(public_url: str) -> str:
    return f"{public_url}/twilio/after?dialed=1"


def _xml_text(text: str) -> str:
    """Replace what XML forbids by spaces: one such character makes the whole response invalid."""
    return _NOT_XML.sub(" ", text)
