"""What the bridge is told once, when the server starts.

`voiceai/asgi.py` builds the one `BridgeConfig` from Django's settings; nothing below reads settings,
the environment or the clock for itself. Pure: no imports beyond the standard library's data types.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

# What we ask Vapi to tell us, explicitly: an assistant's own list would replace it. On the socket ...
CLIENT_MESSAGES = (
    "status-update", "transcript", "speech-update", "user-interrupted", "hang", "assistant.started",
    "tool-calls",
)  # fmt: skip
# ... and by its webhook.
SERVER_MESSAGES = ("status-update", "end-of-call-report", "hang", "tool-calls")


class AudioFormat(StrEnum):
    """How audio crosses the assistant leg. The caller leg is always mu-law at 8 kHz."""

    PCM_16K = "pcm_s16le"
    MULAW = "mulaw"


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig:
    """Settings of design and their units. Secrets are kept out of `repr`, so that no log shows them."""

    public_url: str = "http://127.0.0.1:8000"  # origin as Twilio sees it, no trailing slash

    twilio_account_sid: str = ""  # empty: any account is accepted
    twilio_auth_tokens: tuple[str, ...] = ()  # empty: signatures are not checked (debug only)
    ticket_secret: str = "insecure"  # signs tickets; shared by all workers
    allow_unsigned: bool = False  # debug without a token: skip signatures, with one loud warning

    vapi_api_key: str = ""
    vapi_assistant_id: str = ""
    vapi_base_url: str = "https://api.vapi.ai"
    vapi_socket_url: str = ""  # set: the socket dialect
    vapi_webhook_secret: str = ""
    vapi_audio_format: AudioFormat = AudioFormat.PCM_16K
    vapi_allowed_hosts: tuple[str, ...] = ("api.vapi.ai", "*.vapi.ai")
    vapi_ping_seconds: float = 10.0
    vapi_endpointing_ms: int = 300

    max_concurrent_calls: int = 50
    max_call_seconds: int = 1800
    hold_buffer_ms: int = 7000
    record_calls: bool = False
    ai_disclosure: str = ""
    fallback_number: str = ""

    def __repr__(self) -> str:
        return f"BridgeConfig(public_url={self.public_url!r}, dialect={self.dialect!r})"

    @property
    def dialect(self) -> str:
        return "socket" if self.vapi_socket_url else "call"

    @property
    def stream_url(self) -> str:
        """The media socket's address in TwiML: wss wherever `public_url` is https."""
        scheme = "wss" if urlsplit(self.public_url).scheme == "https" else "ws"
        return f"{scheme}://{urlsplit(self.public_url).netloc}/media-stream"
