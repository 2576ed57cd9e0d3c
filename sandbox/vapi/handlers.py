"""HTTP handlers of the Vapi simulator: calls, assistants, control URLs.

Each handler is one documented endpoint, with the faults that apply to it.
"""

import asyncio
import hmac
import time
from datetime import UTC, datetime

from aiohttp import web

from sandbox.scenarios import SCENARIOS
from sandbox.vapi import assistants
from sandbox.vapi.call_manager import CallManager
from sandbox.vapi.request_schema import validation_errors
from sandbox.vapi.responses import call_json, error_response, find_by_url_token

HUGE_BYTES = 8 << 20
LIST_FILTERS = frozenset({"id", "assistantId", "limit", "createdAtGt", "createdAtLt"})
INVALID_KEY = "Invalid key. It may be the public key where the private one is needed, or the other way round."
SIMULATED_FAULT = "simulated fault"


def add_rest_routes(application: web.Application, manager: CallManager) -> None:
    handlers = RestHandlers(manager)
    application.router.add_post("/call", handlers.create_call)
    application.router.add_get("/call", handlers.list_calls)
    application.router.add_get("/call/{id}", handlers.get_call)
    application.router.add_post("/assistant", handlers.create_assistant)
    application.router.add_get("/assistant", handlers.list_assistants)
    application.router.add_get("/assistant/{id}", handlers.get_assistant)
    application.router.add_patch("/assistant/{id}", handlers.update_assistant)
    application.router.add_post("/{id}/control", handlers.control)
    application.router.add_post("/sandbox/fault", handlers.set_fault)


class RestHandlers:
    def __init__(self, manager: CallManager) -> None:
        self._manager = manager
        self._create_count = 0  # requests to create a call

    async def set_fault(self, request: web.Request) -> web.Response:
        """Not Vapi's: `{"name": ...}` of a scenario, which applies to the calls that follow."""
        if (error := self._authentication_error(request)) is not None:
            return error
        try:
            name = (await request.json())["name"]
        except (ValueError, TypeError, KeyError):
            return error_response(400, "name is missing")
        scenario = SCENARIOS.get(name) if isinstance(name, str) else None
        if scenario is None:
            return error_response(404, "no such fault")
        self._manager.faults = scenario.vapi
        self._create_count = 0
        return web.json_response({"name": name, "description": scenario.description})

    # Calls

    async def create_call(self, request: web.Request) -> web.Response:
        response = await self._create_call(request)
        if response.status != 201:
            rejected = (time.monotonic(), response.status, (response.text or "")[:500])
            self._manager.rejected_requests.append(rejected)
        return response

    async def _create_call(self, request: web.Request) -> web.Response:
        faults = self._manager.faults
        self._create_count += 1
        await asyncio.sleep(faults.rest_delay_seconds)
        if (error := self._authentication_error(request)) is not None:
            return error
        is_faulty = faults.rest_failures is None or self._create_count <= faults.rest_failures
        if faults.rest_status and is_faulty:
            return error_response(faults.rest_status, SIMULATED_FAULT)
        if faults.rest_html:
            return web.Response(text="<html><body>Bad gateway</body></html>", content_type="text/html")
        try:
            body = await request.json()
        except ValueError:
            return error_response(400, "body is not JSON")
        if errors := validation_errors(body):
            return error_response(400, errors)
        metadata = (body.get("assistantOverrides") or {}).get("metadata")
        call = self._manager.create("call", body, metadata)
        created = call_json(request, call)
        active_count = len(self._manager.active_calls())
        is_blocked = faults.concurrency_blocked or active_count >= faults.concurrency_limit
        created["subscriptionLimits"] = {
            "concurrencyBlocked": is_blocked,
            "concurrencyLimit": faults.concurrency_limit,
            "remainingConcurrentCalls": 0 if is_blocked else faults.concurrency_limit - active_count - 1,
        }
        if faults.rest_no_url:
            del created["transport"]["websocketCallUrl"]
        if faults.rest_huge:
            created["padding"] = "x" * HUGE_BYTES
        return web.json_response(created, status=201)

    async def get_call(self, request: web.Request) -> web.Response:
        if (error := self._authentication_error(request)) is not None:
            return error
        call = self._manager.find(request.match_info["id"])
        if call is None or call.dialect != "call":
            return error_response(404, "no such call")
        return web.json_response(call_json(request, call))

    async def list_calls(self, request: web.Request) -> web.Response:
        if (error := self._authentication_error(request)) is not None:
            return error
        query = request.query
        if unknown_filters := query.keys() - LIST_FILTERS:
            return error_response(
                400, [f"property {name} should not exist" for name in sorted(unknown_filters)]
            )
        try:
            after, before = _parse_time(query.get("createdAtGt")), _parse_time(query.get("createdAtLt"))
        except ValueError:
            return error_response(400, ["createdAtGt and createdAtLt must be valid ISO 8601 date strings"])
        calls = [
            body
            for call in reversed(self._manager.calls)
            if call.dialect == "call"
            and (body := call_json(request, call))
            and all(body[name] == query[name] for name in ("id", "assistantId") if name in query)
            and (after is None or after < datetime.fromisoformat(body["createdAt"]))
            and (before is None or datetime.fromisoformat(body["createdAt"]) < before)
        ]
        return web.json_response(calls[: _limit(request)])

    async def control(self, request: web.Request) -> web.Response:
        call = find_by_url_token(self._manager, request)
        if call is None:
            return error_response(404, "no such call")
        if call.ended_at is not None:
            return error_response(400, "the call has ended")
        try:
            message = await request.json()
        except ValueError:
            return error_response(400, "body is not JSON")
        if not self._manager.handle_control(call, message):
            return error_response(400, ["type must be one of say, add-message, control, end-call"])
        return web.json_response({"success": True})

    # Assistants

    async def create_assistant(self, request: web.Request) -> web.Response:
        return await self._save_assistant(request, "")

    async def update_assistant(self, request: web.Request) -> web.Response:
        return await self._save_assistant(request, request.match_info["id"])

    async def _save_assistant(self, request: web.Request, assistant_id: str) -> web.Response:
        if (error := self._error(request)) is not None:
            return error
        store = self._manager.assistant_store
        if assistant_id and store.get(assistant_id) is None:
            return error_response(404, f"assistant {assistant_id} not found")
        try:
            body = await request.json()
        except ValueError:
            return error_response(400, "body is not JSON")
        if errors := assistants.validation_errors(body):
            return error_response(400, errors)
        return web.json_response(store.put(body, assistant_id), status=200 if assistant_id else 201)

    async def list_assistants(self, request: web.Request) -> web.Response:
        if (error := self._error(request)) is not None:
            return error
        return web.json_response(self._manager.assistant_store.newest(_limit(request)))

    async def get_assistant(self, request: web.Request) -> web.Response:
        if (error := self._error(request)) is not None:
            return error
        assistant = self._manager.assistant_store.get(request.match_info["id"])
        return error_response(404, "no such assistant") if assistant is None else web.json_response(assistant)

    # Errors

    def _error(self, request: web.Request) -> web.Response | None:
        """The response if authentication fails or a fault is set."""
        if (error := self._authentication_error(request)) is not None:
            return error
        status = self._manager.faults.rest_status
        return error_response(status, SIMULATED_FAULT) if status else None

    def _authentication_error(self, request: web.Request) -> web.Response | None:
        if not request.headers.get("User-Agent"):
            return web.Response(status=403, text="error code: 1010")  # from Vapi's CDN, not from its API
        expected = f"Bearer {self._manager.api_key}".encode()
        authorization = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return None if hmac.compare_digest(authorization, expected) else error_response(401, INVALID_KEY)


def _parse_time(text: str | None) -> datetime | None:
    """Raises `ValueError` if the text is not an ISO 8601 time."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _limit(request: web.Request) -> int:
    limit = request.query.get("limit", "")
    return min(int(limit), 1000) if limit.isdecimal() else 100
