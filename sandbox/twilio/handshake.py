"""Opens the media stream's socket as Twilio does: signed, uncompressed, no redirects, no proxy."""

import ssl
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 2.0
# What a slow server may leave unread before the carrier throws caller audio away (31930).
MAX_UNSENT_BYTES = 262_144


class HandshakeFailed(Exception):
    """The server would not have the socket; with Twilio's error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        # A redirect is just an answer other than 101.
        return exc


async def open_socket(url: str, real_url: str, signature: str) -> ClientConnection:
    """The socket for a `<Stream url>`, opened where that really is. Raises `HandshakeFailed`."""
    real, named = urlsplit(real_url), urlsplit(url)
    secure = real.scheme in ("wss", "https")
    try:
        return await _Connect(
            # The URI keeps the public name, for the Host header; `host` and `port` say where to connect.
            urlunsplit(named._replace(scheme="wss" if secure else "ws")),
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
            # Never wait for the server to read: the media clock goes on, and counts what it throws away.
            write_limit=4 * MAX_UNSENT_BYTES,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        raise HandshakeFailed(31920, f"the handshake was answered with {status}") from error
    except (InvalidHandshake, ValueError) as error:
        raise HandshakeFailed(31920, f"the handshake failed: {error}") from error
    except TimeoutError as error:
        raise HandshakeFailed(31901, f"no answer to the handshake in {OPEN_SECONDS:g} s") from error
    except OSError as error:
        raise HandshakeFailed(31902, f"no connection: {error}") from error
