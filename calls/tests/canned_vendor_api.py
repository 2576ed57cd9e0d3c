"""The REST APIs of Twilio and Vapi with canned responses over real HTTP.

The simulators of the sandbox behave as the vendors do. This server returns what a test sets, including what
no simulator would return: a truncated body, a wrong status, no response.
"""

from __future__ import annotations

import base64
import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple

ACCOUNT = "AC" + "1" * 32
TOKEN = "a-token"
KEY = "a-vapi-key"
HANG_SECONDS = 30.0

# A status, a body, or both. A body is bytes or JSON; an object gets the fields that every resource has.
Response = Any


class ApiRequest(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class CannedVendorApi(HTTPServer):
    """Both APIs on one port, with credentials checked and requests recorded.

    It handles one request at a time: coverage fails, rarely, when two threads start at the same moment.
    """

    def __init__(self, response: Response = 404) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.response = response  # to requests for which `responses` has none
        self.responses: dict[
            str, list[Response]
        ] = {}  # by CallSid or Vapi's id, in order; the last one repeats
        self.control_url = ""  # empty: a URL of this server
        self.control_status = 200
        self.cuts_off = False  # close each connection in the middle of the response
        self.requests: list[ApiRequest] = []
        self.token, self.key = TOKEN, KEY  # that are accepted
        self._resumed = threading.Event()
        self._resumed.set()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def control_messages(self) -> list[tuple[str, Any]]:
        """Path and JSON of each message that was posted to a control URL."""
        return [(each.path, json.loads(each.body)) for each in self.requests if "/control" in each.path]

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Django settings that direct both clients here."""
        return {
            "TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKENS": [TOKEN], "TWILIO_BASE_URL": self.url,
            "VAPI_BASE_URL": self.url, "VAPI_API_KEY": KEY, "VAPI_SOCKET_URL": "",
            "VAPI_ALLOWED_HOSTS": ["127.0.0.1"], **changes,
        }  # fmt: skip

    def hang(self) -> None:
        """Respond to no further request until the server is stopped."""
        self._resumed.clear()

    def stop(self) -> None:
        self._resumed.set()
        self.shutdown()
        self.server_close()

    def respond(self, request: ApiRequest) -> tuple[int, Any]:
        """Record a request. Returns status and body."""
        self.requests.append(request)
        self._resumed.wait(HANG_SECONDS)
        if "/control" in request.path:
            return self.control_status, {"success": True}
        name = request.path.rpartition("/")[2].removesuffix(".json")
        if request.path.startswith("/2010-04-01/"):
            credentials = "Basic " + base64.b64encode(f"{ACCOUNT}:{self.token}".encode()).decode()
            resource: dict[str, Any] = {"sid": name, "account_sid": ACCOUNT}
        else:
            credentials = f"Bearer {self.key}"
            control_url = self.control_url or f"{self.url}/{name}/control?secret=s"
            resource = {"id": name, "monitor": {"controlUrl": control_url}}
        is_authorized = request.headers.get("Authorization") == credentials
        response = self._next_response(name) if is_authorized else 401
        if isinstance(response, tuple):
            return response
        if isinstance(response, int):
            return response, {"code": 20000 + response, "message": "no", "status": response}
        return 200, {**resource, **response} if isinstance(response, dict) else response

    def _next_response(self, name: str) -> Response:
        queue = self.responses.get(name)
        if not queue:
            return self.response
        return queue.pop(0) if len(queue) > 1 else queue[0]


class _Handler(BaseHTTPRequestHandler):
    server: CannedVendorApi

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output clean."""

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_PATCH(self) -> None:
        self._respond()

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content = self.server.respond(ApiRequest(self.command, self.path, dict(self.headers), body))
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        with suppress(ConnectionError):  # the client has timed out
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Location", f"{self.server.url}/elsewhere")  # for a status that redirects
            self.send_header("Content-Length", str(len(raw) + self.server.cuts_off))
            self.end_headers()
            self.wfile.write(raw)
