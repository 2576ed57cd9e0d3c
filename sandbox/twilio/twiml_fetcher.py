"""Fetches the TwiML documents of one call, and records what Twilio would log about them.

Relative URLs are resolved against the document that was fetched last.
"""

from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from sandbox.twilio import twiml
from sandbox.twilio.callbacks import XML_TYPES, Callbacks
from sandbox.twilio.caller import OnCallerEvent
from sandbox.twilio.record import TwilioCallRecord
from sandbox.twilio.webhook_client import WebhookClient, WebhookResponse

MAX_DOCUMENTS = 10


class TwimlFetcher:
    def __init__(
        self,
        webhooks: WebhookClient,
        callbacks: Callbacks,
        record: TwilioCallRecord,
        voice_url: str,
        on_event: OnCallerEvent,
    ) -> None:
        self._webhooks = webhooks
        self._callbacks = callbacks
        self._record = record
        self._on_event = on_event
        self.url = voice_url  # of the current document

    async def fetch(self, url: str, method: str, params: Mapping[str, str]) -> list[twiml.Verb] | None:
        """The document's verbs, or None if the call cannot continue; the reason is in the record."""
        record = self._record
        if len(record.twiml) >= MAX_DOCUMENTS:
            record.add_error(11215, "too many documents in one call")
            return None
        self.url = urljoin(self.url, url)
        response = await self._request(self.url, self._callbacks.request_params(params), method)
        if record.webhook_ms is None:
            record.webhook_status, record.webhook_ms = response.status, response.elapsed_ms
        path = urlsplit(self.url).path
        self._on_event("webhook", {"path": path, "status": response.status, "ms": round(response.elapsed_ms)})
        return self._read(response, path)

    async def fetch_for_child_call(self, url: str, params: Mapping[str, str]) -> list[twiml.Verb]:
        """A document for a dialed leg. Its errors do not affect this call."""
        response = await self._request(urljoin(self.url, url), params, "POST")
        try:
            return _parse(response, urlsplit(url).path)[0]
        except twiml.TwimlError as error:
            self._record.add_error(error.code, str(error))
            return []

    def parse(self, text: str, source: str) -> list[twiml.Verb] | None:
        """TwiML from a REST request, with the same result as `fetch`."""
        return self._read(WebhookResponse(200, text, "text/xml", 0.0), source)

    def _read(self, response: WebhookResponse, source: str) -> list[twiml.Verb] | None:
        record = self._record
        try:
            verbs, warnings = _parse(response, source)
        except twiml.TwimlError as error:
            record.add_error(error.code, str(error))
            return None
        record.twiml.append(response.text)
        for warning in warnings:
            record.add_error(warning.code, str(warning))
        return verbs

    async def _request(self, url: str, params: Mapping[str, str], method: str) -> WebhookResponse:
        try:
            token = self._callbacks.signing_token("webhooks")
            return await self._webhooks.send(url, params, method=method, token=token)
        except (PermissionError, ValueError) as error:
            return WebhookResponse(None, "", "", 0.0, str(error))


def _parse(response: WebhookResponse, source: str) -> tuple[list[twiml.Verb], list[twiml.TwimlError]]:
    if response.status is None:
        raise twiml.TwimlError(11205, f"no response from {source}: {response.problem}")
    if response.status != 200:
        raise twiml.TwimlError(11200, f"{source} responded with {response.status}")
    if response.content_type not in XML_TYPES:
        raise twiml.TwimlError(12300, f"{source} responded with {response.content_type}")
    return twiml.parse(response.text)
