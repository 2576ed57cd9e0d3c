"""Stored assistants of the Vapi simulator, and validation of the requests that create and update them.

An update replaces a nested object as a whole, as Vapi does: `transcriber` must contain all of its fields.
"""

import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sandbox.vapi.request_schema import override_errors

# A complete assistant, such as a new account has.
EXAMPLE = {
    "name": "Front desk",
    "firstMessage": "Thanks for calling Harbour Dental, how can I help?",
    "model": {"provider": "openai", "model": "gpt-4o-mini"},
    "voice": {"provider": "vapi", "voiceId": "Elliot"},
    "transcriber": {"provider": "deepgram", "model": "nova-3", "language": "en"},
}
EXAMPLE_ID = "5a5a5a5a-5a5a-4a5a-8a5a-5a5a5a5a5a5a"
MAX_ASSISTANTS = 1_000
NAME_CHARACTERS = 40


class AssistantStore:
    """Assistants by id, the oldest first."""

    def __init__(self) -> None:
        self._assistants: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def get(self, assistant_id: str) -> dict[str, Any] | None:
        return self._assistants.get(assistant_id)

    def newest(self, limit: int) -> list[dict[str, Any]]:
        return list(reversed(self._assistants.values()))[:limit]

    def put(self, fields: Mapping[str, Any], assistant_id: str = "") -> dict[str, Any]:
        """Create an assistant, or update the one with this id."""
        now = datetime.fromtimestamp(time.time(), UTC).isoformat().replace("+00:00", "Z")
        assistant_id = assistant_id or str(uuid.uuid4())
        new = {"id": assistant_id, "orgId": "sandbox", "createdAt": now}
        self._assistants[assistant_id] = {
            **self._assistants.get(assistant_id, new),
            **fields,
            "updatedAt": now,
        }
        if len(self._assistants) > MAX_ASSISTANTS:
            self._assistants.popitem(last=False)
        return self._assistants[assistant_id]

    def tool_names(self, assistant_id: Any) -> frozenset[str]:
        """Names of the tools that the assistant may call."""
        model = (self._assistants.get(str(assistant_id)) or {}).get("model")
        tools = model.get("tools") if isinstance(model, dict) else None
        functions = (tool.get("function") for tool in tools or () if isinstance(tool, dict))
        return frozenset(str(function.get("name")) for function in functions if isinstance(function, dict))

    def first_message(self, assistant_id: Any) -> str:
        """What the assistant says first; empty if it is unknown."""
        message = (self._assistants.get(str(assistant_id)) or {}).get("firstMessage")
        return message if isinstance(message, str) else ""


def validation_errors(body: Any) -> list[str]:
    """Vapi's error messages for a create or update request; empty if it is valid."""
    return list(_errors(body)) if isinstance(body, dict) else ["body must be an object"]


def _errors(body: Mapping[str, Any]) -> Iterator[str]:
    yield from override_errors(body, "")
    name = body.get("name", "")
    if not isinstance(name, str) or len(name) > NAME_CHARACTERS:
        yield f"name must be shorter than or equal to {NAME_CHARACTERS} characters"
    for field in ("model", "voice"):
        if field in body and not (isinstance(body[field], dict) and body[field].get("provider")):
            yield f"{field}.provider must be given"
