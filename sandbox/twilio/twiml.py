"""TwiML parser, as strict as Twilio's: text to a list of verbs, and the warnings that Twilio would log.

Names are case-sensitive. A document that is not XML, or whose root is not `<Response>`, is rejected
(12100); an unknown verb or attribute is a warning (12200) and is skipped.
"""

from dataclasses import dataclass, field
from typing import TypeAlias
from xml.etree import ElementTree

from sandbox.twilio.voices import voice_problems

MAX_PARAMETER_CHARACTERS = 500


class TwimlError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Stream:
    url: str
    name: str = ""
    status_callback: str = ""
    status_callback_method: str = "POST"
    params: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConnectVerb:
    stream: Stream
    action: str = ""
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class SayVerb:
    text: str
    language: str = ""
    voice: str = ""


@dataclass(frozen=True, slots=True)
class DialVerb:
    number: str
    action: str = ""
    method: str = "POST"
    whisper_url: str = ""  # `<Number url>`: TwiML that the dialed party hears first
    caller_id: str = ""  # empty: the caller's number


@dataclass(frozen=True, slots=True)
class PauseVerb:
    seconds: float


@dataclass(frozen=True, slots=True)
class RedirectVerb:
    url: str
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class HangupVerb:
    pass


@dataclass(frozen=True, slots=True)
class RejectVerb:
    reason: str = "rejected"


Verb: TypeAlias = ConnectVerb | SayVerb | DialVerb | PauseVerb | RedirectVerb | HangupVerb | RejectVerb

ATTRIBUTES = {
    "Connect": {"action", "method"},
    "Stream": {"url", "name", "track", "statusCallback", "statusCallbackMethod"},
    "Parameter": {"name", "value"},
    "Say": {"voice", "language", "loop"},
    "Pause": {"length"},
    "Redirect": {"method"},
    "Hangup": set(),
    "Reject": {"reason"},
    "Start": set(),
    "Dial": {
        "action", "method", "timeout", "timeLimit", "callerId", "record", "answerOnBridge", "hangupOnStar",
        "ringTone", "trim", "recordingStatusCallback", "recordingStatusCallbackMethod",
        "recordingStatusCallbackEvent", "sequential",
    },
    "Number": {
        "url", "method", "sendDigits", "statusCallback", "statusCallbackEvent", "statusCallbackMethod",
    },
}  # fmt: skip


def parse(text: str) -> tuple[list[Verb], list[TwimlError]]:
    """The verbs in order, and the warnings. Raises `TwimlError` if the document cannot be executed."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise TwimlError(12100, f"the response is not XML: {error}") from error
    if root.tag != "Response":
        raise TwimlError(12100, f"the root element is <{root.tag}>, not <Response>")
    warnings: list[TwimlError] = []
    verbs = [verb for element in root if (verb := _verb(element, warnings)) is not None]
    return verbs, warnings


def _verb(element: ElementTree.Element, warnings: list[TwimlError]) -> Verb | None:
    _check_attributes(element, warnings)
    text = "".join(element.itertext()).strip()
    method = element.get("method", "POST").upper()
    match element.tag:
        case "Connect":
            return ConnectVerb(_stream(element, warnings), element.get("action", ""), method)
        case "Say":
            if not text:
                warnings.append(TwimlError(13520, "<Say> has no text"))
            language, voice = element.get("language", ""), element.get("voice", "")
            warnings += [TwimlError(code, text) for code, text in voice_problems(language, voice)]
            return SayVerb(text, language, voice)
        case "Dial":
            noun = element.find("Number")
            if noun is not None:
                _check_attributes(noun, warnings)
            whisper_url = "" if noun is None else noun.get("url", "")
            return DialVerb(text, element.get("action", ""), method, whisper_url, element.get("callerId", ""))
        case "Pause":
            try:
                return PauseVerb(float(element.get("length", "1")))
            except ValueError:
                warnings.append(TwimlError(12200, "the length of <Pause> is not a number"))
                return PauseVerb(1.0)
        case "Redirect":
            return RedirectVerb(text, method)
        case "Hangup":
            return HangupVerb()
        case "Reject":
            return RejectVerb(element.get("reason", "rejected"))
        case "Start":
            return None  # a recording or a one-way stream in the background: not simulated
        case _:
            warnings.append(TwimlError(12200, f"unknown verb <{element.tag}>"))
            return None


def _stream(connect: ElementTree.Element, warnings: list[TwimlError]) -> Stream:
    nouns = [noun for noun in connect if noun.tag == "Stream"]
    warnings += [
        TwimlError(12200, f"<{noun.tag}> in <Connect> is not simulated")
        for noun in connect
        if noun not in nouns
    ]
    if len(nouns) != 1:
        raise TwimlError(12100, f"<Connect> has {len(nouns)} <Stream> nouns, expected 1")
    stream = nouns[0]
    _check_attributes(stream, warnings)
    if stream.get("track", "inbound_track") != "inbound_track":
        raise TwimlError(31941, f"track {stream.get('track')!r} is invalid in <Connect>")
    params = {}
    for parameter in stream:
        _check_attributes(parameter, warnings)
        name, value = parameter.get("name", ""), parameter.get("value", "")
        if parameter.tag != "Parameter" or not name:
            warnings.append(TwimlError(12200, f"<{parameter.tag}> in <Stream> is not a named <Parameter>"))
        elif len(name) + len(value) >= MAX_PARAMETER_CHARACTERS:
            warnings.append(TwimlError(12200, f"<Parameter> {name} is too long"))
        else:
            params[name] = value
    return Stream(
        url=stream.get("url", ""),
        name=stream.get("name", ""),
        status_callback=stream.get("statusCallback", ""),
        status_callback_method=stream.get("statusCallbackMethod", "POST").upper(),
        params=params,
    )


def _check_attributes(element: ElementTree.Element, warnings: list[TwimlError]) -> None:
    allowed = ATTRIBUTES.get(element.tag)
    for name in element.keys() if allowed is not None else ():
        if allowed is not None and name not in allowed:
            warnings.append(TwimlError(12200, f"unknown attribute {name} of <{element.tag}>"))
