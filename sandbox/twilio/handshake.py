"""Opens the media stream's websocket as Twilio does: signed, uncompressed, no redirects, no proxy."""

import ssl
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from sandbox.twilio.webhook_client import UrlResolver

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 2.0
# A slow server may leave this much unread; beyond it Twilio drops caller audio (31930).
MAX_UNSENT_BYTES = 262_144


class HandshakeFailed(Exception):
    """The socket could not be opened; `code` is Twilio's error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def check_stream_url(url: str, url_resolver: UrlResolver) -> None:
    """Raises `HandshakeFailed` for a `<Stream url>` that Twilio does not accept."""
    try:
        parts = urlsplit(url)
        is_usable = bool(parts.hostname and parts.port != 0)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise HandshakeFailed(31923, "the stream's url is malformed")
    if parts.scheme != "wss" and not (parts.scheme == "ws" and url_resolver.allows_plaintext(url)):
        raise HandshakeFailed(31922, f"the stream's scheme is {parts.scheme}, not wss")
    if parts.query:
        raise HandshakeFailed(31920, "the stream's url has a query string")


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        # Treat a redirect as any other status that is not 101.
        return exc


async def open_socket(url: str, real_url: str, signature: str) -> ClientConnection:
    """Connect to `real_url` with the Host header of `url`. Raises `HandshakeFailed`."""
    real, public = urlsplit(real_url), urlsplit(url)
    secure = real.scheme in ("wss", "https")
    try:
        return await _Connect(
            # The URI keeps the public name, for the Host header; `host` and `port` say where to connect.
            urlunsplit(public._replace(scheme="wss" if secure else "ws")),
            host=real.hostname,
            port=real.port or (443 if secure else 80),
            ssl=ssl.create_default_context() if secure else None,
            additional_headers={"X-Twilio-Signature": signature} if signature else {},
            user_agent_header="Twilio.TmeWs/1.0",
            compression=None,
            proxy=None,
            open_timeout=OPEN_SECONDS,
            close_timeout=CLOSE_SECONDS,
            ping_interval=None,
            # Never wait for the server to read: the media clock continues, and counts what it drops.
            write_limit=4 * MAX_UNSENT_BYTES,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        raise HandshakeFailed(31920, f"the handshake failed with status {status}") from error
    except (InvalidHandshake, ValueError) as error:
        raise HandshakeFailed(31920, f"the handshake failed: {error}") from error
    except TimeoutError as error:
        raise HandshakeFailed(31901, f"the handshake timed out after {OPEN_SECONDS:g} s") from error
    except OSError as error:
        raise HandshakeFailed(31902, f"connection failed: {error}") from error
