"""Tool calls of the assistant's model, parsed from Vapi's messages. Websocket and webhooks use the same form.

Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_TOOL_CALLS = 100  # in one message
SEND_DTMF: Final = "send_dtmf"  # the only tool that the bridge runs itself, because it has the media stream
MAX_KEYS = 32

_KEYS = re.compile(f"[0-9A-D*#w]{{1,{MAX_KEYS}}}")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call. Its arguments arrive as an object, or as the JSON of one."""

    id: str
    name: str
    arguments: Mapping[str, Any]


def tool_calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The tool calls of a message, in any of Vapi's forms. Fields that cannot be read are left empty."""
    calls = message.get("toolCallList") or message.get("toolCalls")
    if not isinstance(calls, list):
        calls = [item.get("toolCall") for item in _objects(message.get("toolWithToolCallList"))]
    return tuple(_tool_call(call) for call in _objects(calls)[:MAX_TOOL_CALLS])


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    names = (call.get("name"), function.get("name"))
    name = next((name for name in names if isinstance(name, str)), "")
    arguments = function.get("arguments", call.get("arguments"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    call_id = call.get("id")
    return ToolCall(
        call_id[:128] if isinstance(call_id, str) else "",
        name[:128],
        arguments if isinstance(arguments, dict) else {},
    )


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def keys_of(call: ToolCall) -> str:
    """The keys of a `send_dtmf` call, such as `1w42#`. Raises `ValueError` for anything else."""
    keys = "".join(str(call.arguments.get("digits", "")).split())
    if not _KEYS.fullmatch(keys):
        raise ValueError(f"keys are 0-9, A-D, *, #, and w for a pause, {MAX_KEYS} at most")
    return keys
