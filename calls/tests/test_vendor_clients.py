"""Errors of both REST clients: each function says what happened, and whether the request may have worked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from calls.tests.canned_vendor_api import CannedVendorApi
from calls.twilio import client as twilio_client
from calls.vapi import client as vapi_client
from calls.vendor_errors import VendorError

Send = Callable[[], Awaitable[Any]]

# The functions of both clients, ready to be called.
UPDATE = partial(twilio_client.hang_up, "CA1")
FETCH = partial(twilio_client.fetch_call, "CA1")
CREATE = partial(twilio_client.create_call, to="+15550100134", from_="+15559870000", url="http://x.example")
FIND_NUMBER = partial(twilio_client.find_number, "+15559870000")
ACCOUNT = twilio_client.fetch_account
VAPI_CALL = partial(vapi_client.fetch_call, "v1")
ASSISTANT = partial(vapi_client.fetch_assistant, "a1")
ASSISTANTS = vapi_client.list_assistants
PATCH = partial(vapi_client.update_assistant, "a1", {"name": "x"})
SAY = partial(vapi_client.say, "v1", "Hello.")


@pytest.fixture
def vendor(settings: Any) -> Iterator[CannedVendorApi]:
    server = CannedVendorApi()
    for name, value in server.settings().items():
        setattr(settings, name, value)
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("send", "status", "sentence"),
    [
        (UPDATE, 404, "The call is already over."),
        (FETCH, 404, "Twilio has no such call."),
        (CREATE, 404, "Twilio rejected the request (20404)."),
        (FIND_NUMBER, 404, "Twilio rejected the request (404)."),
        (ACCOUNT, 404, "Twilio has no such account. Check TWILIO_ACCOUNT_SID."),
        (CREATE, 429, "Twilio is rate limiting our requests. Try again in a few seconds."),
        (CREATE, 503, "Twilio failed with status 503. Try again later."),
        (VAPI_CALL, 404, "The call is already over at Vapi."),
        (VAPI_CALL, 400, "Vapi rejected the request: no"),
        (ASSISTANT, 404, "Vapi has no such assistant. Check VAPI_ASSISTANT_ID."),
        (ASSISTANT, 400, "Vapi rejected the request: no"),
        (ASSISTANTS, 404, "Vapi rejected the request with status 404."),
        (ASSISTANTS, 409, "Vapi rejected the request with status 409."),
        (PATCH, 404, "Vapi has no such assistant. Check VAPI_ASSISTANT_ID."),
        (PATCH, 422, "Vapi rejected the request: no"),
        (PATCH, 402, "Vapi rejected the request with status 402."),
        (PATCH, 413, "Vapi rejected the request with status 413."),
        (PATCH, 302, "Vapi rejected the request with status 302."),
        (PATCH, 429, "Vapi is rate limiting our requests. Try again in a few seconds."),
        (PATCH, 503, "Vapi failed with status 503. Try again later."),
    ],
)
async def test_each_status_has_its_sentence(
    vendor: CannedVendorApi, send: Send, status: int, sentence: str
) -> None:
    vendor.response = status
    with pytest.raises(VendorError) as error:
        await send()
    assert (str(error.value), error.value.status, error.value.may_have_happened) == (sentence, status, False)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (400, "The call is already over at Vapi."),
        (404, "The call is already over at Vapi."),
        (409, "The call is already over at Vapi."),
        (410, "The call is already over at Vapi."),
        (402, "Vapi rejected the request with status 402."),
        (500, "Vapi failed with status 500. Try again later."),
    ],
)
async def test_a_control_url_of_a_call_that_is_over_rejects_messages(
    vendor: CannedVendorApi, status: int, sentence: str
) -> None:
    vendor.response, vendor.control_status = {}, status
    with pytest.raises(VendorError) as error:
        await SAY()
    assert (str(error.value), error.value.status) == (sentence, status)


@pytest.mark.parametrize("send", [UPDATE, FETCH, CREATE, FIND_NUMBER, VAPI_CALL, ASSISTANTS, PATCH])
async def test_a_response_that_is_cut_off_may_have_been_carried_out(
    vendor: CannedVendorApi, send: Send
) -> None:
    vendor.response, vendor.cuts_off = {"name": "x"}, True
    with pytest.raises(VendorError, match="was cut off") as error:
        await send()
    assert error.value.may_have_happened


@pytest.mark.parametrize("send", [VAPI_CALL, ASSISTANT, PATCH])
@pytest.mark.parametrize("response", [[], b"<html>", b'{"id": "a1", "na', b"null", b""])
async def test_a_response_that_is_no_object_is_no_empty_object(
    vendor: CannedVendorApi, send: Send, response: Any
) -> None:
    """An assistant that looks empty would be overwritten with the defaults."""
    vendor.response = response
    with pytest.raises(VendorError, match="was cut off or is not JSON"):
        await send()


@pytest.mark.parametrize("send", [UPDATE, CREATE, VAPI_CALL, PATCH])
async def test_without_a_connection_nothing_was_carried_out(settings: Any, send: Send) -> None:
    server = CannedVendorApi()
    for name, value in server.settings().items():
        setattr(settings, name, value)
    server.stop()
    with pytest.raises(VendorError, match="Cannot connect to (Twilio|Vapi)") as error:
        await send()
    assert not error.value.may_have_happened
