"""The bridge's configuration, built once from Django's settings when the server starts.

Nothing in `bridge/` reads settings or the environment. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

# The messages that Vapi is to send. They are part of every `POST /call`: otherwise the assistant's own lists
# would apply. On the websocket ...
CLIENT_MESSAGES = (
    "status-update", "transcript", "speech-update", "user-interrupted", "hang", "tool-calls",
)  # fmt: skip
# ... and to the webhook.
SERVER_MESSAGES = ("status-update", "end-of-call-report", "hang", "tool-calls")


class AudioFormat(StrEnum):
    """The audio format of the assistant leg. The caller leg is always mu-law at 8 kHz."""

    PCM_16K = "pcm_s16le"
    MULAW = "mulaw"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig:
    """All settings of the bridge. `repr` leaves secrets out, so that they cannot reach a log."""

    public_url: str = "http://127.0.0.1:8000"  # the origin that Twilio uses, without trailing slash
    # The same origin in other spellings, such as with a capital letter or `:443`. Twilio signs the spelling
    # that its console has.
    public_url_spellings: tuple[str, ...] = ()

    twilio_account_sid: str = ""  # empty: any account is accepted
    twilio_auth_tokens: tuple[str, ...] = ()  # empty: signatures are not checked (debug only)
    ticket_secret: str = "insecure"  # signs tickets; the same for all workers
    allow_unsigned: bool = False  # debug without a token: signatures are skipped, with a warning

    vapi_api_key: str = ""
    vapi_assistant_id: str = ""
    vapi_base_url: str = "https://api.vapi.ai"
    vapi_socket_url: str = ""  # if set, the socket dialect is used
    vapi_webhook_secret: str = ""
    vapi_audio_format: AudioFormat = AudioFormat.PCM_16K
    vapi_allowed_hosts: tuple[str, ...] = ("api.vapi.ai", "*.vapi.ai")
    vapi_ping_seconds: float = 10.0
    vapi_endpointing_ms: int = 300

    release: str = ""  # of this software, kept with each call

    max_concurrent_calls: int = 50
    max_call_seconds: int = 1800
    hold_buffer_ms: int = 7000
    record_calls: bool = False
    ai_disclosure: str = ""
    fallback_number: str = ""
    say_language: str = ""
    say_voice: str = ""

    def __repr__(self) -> str:
        return f"BridgeConfig(public_url={self.public_url!r}, dialect={self.dialect!r})"

    @property
    def dialect(self) -> str:
        return "socket" if self.vapi_socket_url else "call"

    @property
    def public_origins(self) -> tuple[str, ...]:
        """Every spelling of the public origin for which a signature is valid."""
        return tuple(dict.fromkeys((self.public_url, *self.public_url_spellings)))

    @property
    def stream_url(self) -> str:
        """The media socket's URL in TwiML: `wss` when `public_url` is https."""
        return websocket_origin(self.public_url) + "/media-stream"


def websocket_origin(origin: str) -> str:
    """The same origin for websockets: `wss` in place of `https`, `ws` in place of `http`."""
    parts = urlsplit(origin)
    return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}"
