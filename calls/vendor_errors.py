"""Errors of requests to Twilio and Vapi, and the bounded read of a response, for both clients."""

from __future__ import annotations

import aiohttp


class VendorError(Exception):
    """A request to a vendor failed. The message is a sentence that pages and commands show unchanged."""

    def __init__(self, sentence: str, *, may_have_happened: bool = False, status: int | None = None) -> None:
        super().__init__(sentence)
        # The response was lost or late, so the vendor may have carried out the request.
        self.may_have_happened = may_have_happened
        self.status = status  # the vendor's HTTP status; None without a response


def timed_out(vendor: str, seconds: float) -> VendorError:
    return VendorError(
        f"{vendor} did not respond within {seconds:.0f} seconds. The request may have been carried out.",
        may_have_happened=True,
    )


def unreachable(vendor: str) -> VendorError:
    return VendorError(f"Cannot connect to {vendor}.")


def unreadable(vendor: str) -> VendorError:
    return VendorError(f"The response of {vendor} was cut off or is not JSON.", may_have_happened=True)


def rate_limited(vendor: str) -> str:
    """The sentence for status 429."""
    return f"{vendor} is rate limiting our requests. Try again in a few seconds."


def server_error(vendor: str, status: int) -> str:
    """The sentence for a status that is not our fault."""
    return f"{vendor} failed with status {status}. Try again later."


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body of a response. Reading stops after `max_bytes`, so a larger body is not valid JSON."""
    body = b""
    while len(body) <= max_bytes and (chunk := await response.content.read(max_bytes)):
        body += chunk
    return body
