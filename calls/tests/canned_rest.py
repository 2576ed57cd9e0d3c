"""The REST APIs of Twilio and Vapi with canned responses over real HTTP.

The simulators of the sandbox behave as the vendors do. This server returns what a test sets, one response
after the other, including what no simulator would return: a truncated body, a wrong status, no response.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

ACCOUNT = "AC" + "1" * 32
TOKEN = "a-token"
KEY = "a-vapi-key"
BASIC = "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()


class CannedRestApi(HTTPServer):
    """Both APIs on one port. Responses are returned in order; the last one repeats.

    It handles one request at a time: coverage fails, rarely, when two threads start at the same moment.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.twilio: dict[str, list[Any]] = {}  # by CallSid: a body, or a status
        self.vapi: dict[str, list[Any]] = {}  # by Vapi's id
        self.requests: Counter[str] = Counter()  # by path
        self.control_messages: list[tuple[str, Any]] = []  # what was posted to a control URL
        self.token, self.key = TOKEN, KEY
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Django settings that direct both clients here."""
        return {
            "TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKENS": [TOKEN], "TWILIO_BASE_URL": self.url,
            "VAPI_BASE_URL": self.url, "VAPI_API_KEY": KEY, "VAPI_SOCKET_URL": "",
            "VAPI_ALLOWED_HOSTS": ["127.0.0.1"], **changes,
        }  # fmt: skip

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def next_answer(self, answers: list[Any] | None) -> Any:
        if not answers:
            return 404
        return answers.pop(0) if len(answers) > 1 else answers[0]


class _Handler(BaseHTTPRequestHandler):
    server: CannedRestApi

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test output clean."""

    def do_GET(self) -> None:
        api, path = self.server, self.path
        api.requests[path] += 1
        name = path.rpartition("/")[2].removesuffix(".json")
        given = self.headers.get("Authorization", "")
        if path.startswith("/2010-04-01/"):
            basic = "Basic " + base64.b64encode(f"{ACCOUNT}:{api.token}".encode()).decode()
            answer = api.next_answer(api.twilio.get(name)) if given == basic else 401
            if isinstance(answer, dict):
                answer = {"sid": name, "account_sid": ACCOUNT, **answer}
        else:
            answer = api.next_answer(api.vapi.get(name)) if given == f"Bearer {api.key}" else 401
            if isinstance(answer, dict):
                monitor = {"controlUrl": f"{api.url}/{name}/control"}
                answer = {"id": name, "monitor": monitor, **answer}
        self._answer(answer)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.control_messages.append((self.path, json.loads(body)))
        self._answer({"success": True})

    def _answer(self, answer: Any) -> None:
        status = answer if isinstance(answer, int) else 200
        if isinstance(answer, int):
            answer = {"code": 20000 + status, "message": "no", "status": status}
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
