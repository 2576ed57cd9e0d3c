"""The assistants of the stand-in for Vapi: made, shown and changed over REST, strict about what it is sent.

Objects replace one another whole, as Vapi's do: an update that names `transcriber` names all of it.
"""

import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sandbox.vapi.request_schema import about_overrides

MAX_ASSISTANTS = 1_000
NAME_CHARACTERS = 40


class Store:
    """Assistants by id, the oldest first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def get(self, assistant_id: str) -> dict[str, Any] | None:
        return self._kept.get(assistant_id)

    def newest(self, limit: int) -> list[dict[str, Any]]:
        return list(reversed(self._kept.values()))[:limit]

    def put(self, facts: Mapping[str, Any], assistant_id: str = "") -> dict[str, Any]:
        """Keep an assistant; without an id, a new one."""
        now = datetime.fromtimestamp(time.time(), UTC).isoformat().replace("+00:00", "Z")
        assistant_id = assistant_id or str(uuid.uuid4())
        new = {"id": assistant_id, "orgId": "sandbox", "createdAt": now}
        self._kept[assistant_id] = {**self._kept.get(assistant_id, new), **facts, "updatedAt": now}
        if len(self._kept) > MAX_ASSISTANTS:
            self._kept.popitem(last=False)
        return self._kept[assistant_id]

    def tools_of(self, assistant_id: Any) -> frozenset[str]:
        """The names of the tools that an assistant may call."""
        model = (self._kept.get(str(assistant_id)) or {}).get("model")
        tools = model.get("tools") if isinstance(model, dict) else None
        functions = (each.get("function") for each in tools or () if isinstance(each, dict))
        return frozenset(str(each.get("name")) for each in functions if isinstance(each, dict))

    def first_message_of(self, assistant_id: Any) -> str:
        """What an assistant says when it answers; empty when nothing is known of it."""
        said = (self._kept.get(str(assistant_id)) or {}).get("firstMessage")
        return said if isinstance(said, str) else ""


def complaints(body: Any) -> list[str]:
    """What Vapi would say of an assistant; empty when it would take it."""
    return list(_about(body)) if isinstance(body, dict) else ["body must be an object"]


def _about(body: Mapping[str, Any]) -> Iterator[str]:
    yield from about_overrides(body, "")
    name = body.get("name", "")
    if not isinstance(name, str) or len(name) > NAME_CHARACTERS:
        yield f"name must be shorter than or equal to {NAME_CHARACTERS} characters"
    for field in ("model", "voice"):
        if field in body and not (isinstance(body[field], dict) and body[field].get("provider")):
            yield f"{field}.provider must be given"
