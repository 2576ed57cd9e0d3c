"""JSON responses of the Vapi simulator's REST API, and lookup of a call by its secret URL.

URLs are built from the request's own Host header, so that they lead back to the simulator under the name by
which it was reached.
"""

import hmac
from typing import Any

from aiohttp import web

from sandbox.vapi import reports
from sandbox.vapi.call_manager import CallManager
from sandbox.vapi.record import VapiCallRecord


def call_json(request: web.Request, call: VapiCallRecord) -> dict[str, Any]:
    """The call object; after the end of the call with the facts of its report."""
    address = f"{request.host}/{call.id}"
    body = {
        **reports.call_summary(call),
        "cost": 0,
        "transport": {
            **call.body["transport"],
            "websocketCallUrl": f"ws://{address}/transport?token={call.url_token}",
        },
        "monitor": {
            "listenUrl": f"ws://{address}/listen?token={call.url_token}",
            "controlUrl": f"http://{address}/control?token={call.url_token}",
        },
    }
    if call.ended_at is not None:
        body |= reports.end_of_call_report(call)
    return body


def error_response(status: int, message: str | list[str]) -> web.Response:
    reason = web.Response(status=status).reason
    return web.json_response({"message": message, "error": reason, "statusCode": status}, status=status)


def find_by_url_token(manager: CallManager, request: web.Request) -> VapiCallRecord | None:
    """The call whose secret URL was requested."""
    call = manager.find(request.match_info["id"])
    token = request.query.get("token", "").encode()
    return call if call is not None and hmac.compare_digest(token, call.url_token.encode()) else None
