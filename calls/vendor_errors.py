"""Errors of requests to Twilio and Vapi, and the bounded read of a response, for both clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

logger = logging.getLogger(__name__)


class VendorError(Exception):
    """A request to a vendor failed, or cannot be sent. Pages and commands show the message unchanged."""

    def __init__(self, sentence: str, *, may_have_happened: bool = False, status: int | None = None) -> None:
        super().__init__(sentence)
        # The response was lost or late, so the vendor may have carried out the request.
        self.may_have_happened = may_have_happened
        self.status = status  # the vendor's HTTP status; None without a response


class UnreadableResponse(VendorError):
    """The response was cut off, or is not JSON. The request may have been carried out."""

    def __init__(self, vendor: str) -> None:
        super().__init__(f"The response of {vendor} was cut off or is not JSON.", may_have_happened=True)


@asynccontextmanager
async def translate_errors(vendor: str, timeout_seconds: float, subject: str = "") -> AsyncIterator[None]:
    """Apply a deadline to a request, and turn the errors of the HTTP client into a `VendorError`.

    `subject` says in the log what the request was about.
    """
    subject = subject or vendor.lower()
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except TimeoutError:
        raise VendorError(
            f"{vendor} did not respond within {timeout_seconds:.0f} seconds."
            " The request may have been carried out.",
            may_have_happened=True,
        ) from None
    # Caught first: it is both a ClientError and an OSError, and is raised before the request is sent.
    except aiohttp.ClientConnectorError as error:
        logger.warning("%s: no connection to %s: %s", subject, vendor, type(error).__name__)
        raise VendorError(f"Cannot connect to {vendor}.") from None
    except (aiohttp.ClientError, ValueError) as error:
        logger.warning("%s: no readable response from %s: %s", subject, vendor, type(error).__name__)
        raise UnreadableResponse(vendor) from None
    except OSError as error:  # the host name has no address
        logger.warning("%s: no connection to %s: %s", subject, vendor, type(error).__name__)
        raise VendorError(f"Cannot connect to {vendor}.") from None


def describe_status(vendor: str, status: int) -> str:
    """A sentence about an HTTP status that says nothing about the request."""
    if status == 429:
        return f"{vendor} is rate limiting our requests. Try again in a few seconds."
    if status >= 500:
        return f"{vendor} failed with status {status}. Try again later."
    return f"{vendor} rejected the request with status {status}."


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body of a response. Reading stops after `max_bytes`, so a larger body is not valid JSON."""
    body = b""
    while len(body) <= max_bytes and (chunk := await response.content.read(max_bytes)):
        body += chunk
    return body
