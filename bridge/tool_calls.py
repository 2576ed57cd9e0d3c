"""The tools that the assistant's model calls, as Vapi words them: on its socket and in its webhooks alike.

Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_TOOL_CALLS = 100  # in one message
SEND_DTMF: Final = "send_dtmf"  # the one tool that the bridge itself runs: it holds the line
MAX_KEYS = 32

_KEYS = re.compile(f"[0-9A-D*#w]{{1,{MAX_KEYS}}}")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool that the model wants run. Arguments come as an object, or as its JSON."""

    id: str
    name: str
    arguments: Mapping[str, Any]


def tool_calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The tools called, wherever this version of the message keeps them; of a strange one, what is known."""
    asked = message.get("toolCallList") or message.get("toolCalls")
    if not isinstance(asked, list):
        together = message.get("toolWithToolCallList")
        asked = [each.get("toolCall") for each in _objects(together)]
    return tuple(_tool_call(each) for each in _objects(asked)[:MAX_TOOL_CALLS])


def _tool_call(asked: Mapping[str, Any]) -> ToolCall:
    function = asked.get("function")
    function = function if isinstance(function, dict) else {}
    name = next((each for each in (asked.get("name"), function.get("name")) if isinstance(each, str)), "")
    arguments = function.get("arguments", asked.get("arguments"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    number = asked.get("id")
    return ToolCall(
        number[:128] if isinstance(number, str) else "",
        name[:128],
        arguments if isinstance(arguments, dict) else {},
    )


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def keys_of(call: ToolCall) -> str:
    """The keys that `send_dtmf` is to press, such as `1w42#`. ValueError for what is no sequence of keys."""
    keys = "".join(str(call.arguments.get("digits", "")).split())
    if not _KEYS.fullmatch(keys):
        raise ValueError(f"keys are 0-9, A-D, *, #, and w for a pause, {MAX_KEYS} at most")
    return keys
