"""The tools that the assistant's model can call. All of them are in this module.

When the model calls a tool, Vapi requests the result by `POST /vapi/events` (`run_tool`) and passes it on to
the model. `./manage.py configure_assistant` sends the tools' declarations to the assistant. To add a tool,
write a function below, describe it to the model, and run that command again:

    @tool("Says whether the practice is open on a day.", day="A weekday, such as Monday.")
    async def opening_hours(use: ToolUse) -> str:
        return "Closed." if use.text("day") in ("Saturday", "Sunday") else "From eight to six."

The model reads what the function returns, or the message of `ToolError` as an error. A tool may take
`TOOL_TIMEOUT_SECONDS`. A process runs it once for each tool call: Vapi may repeat the request, as the
`backoffPlan` of our assistants says. Nothing here queries the database: like all webhooks, tools write
journal entries.
"""

from __future__ import annotations

import asyncio
import logging
import time
from binascii import crc32
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from bridge.context import BridgeContext
from bridge.end_reasons import TRANSFERRED
from bridge.journal import EndRequested, TimelineEvent
from bridge.routes import Route
from bridge.tool_calls import MAX_KEYS, ToolCall, keys_of
from calls.masking import short_sid
from calls.phone_numbers import choose_caller_id
from calls.twilio import client as twilio_client
from calls.twilio.voices import Voice
from calls.vapi import client as vapi_client
from calls.vendor_errors import VendorError

logger = logging.getLogger(__name__)

TOOL_TIMEOUT_SECONDS = 8.0  # Vapi waits for ten
MAX_RESULTS = 1_000
MAX_ARGUMENT_CHARS = 200


class ToolError(Exception):
    """A tool could not do its work. The message is a sentence for the model."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool call, and the telephone call that it belongs to."""

    tool_call: ToolCall
    call_sid: str
    vapi_call_id: str
    caller: str  # number or address; empty: withheld, or not known
    route: Route
    bridge: BridgeContext

    @property
    def our_number(self) -> str:
        """The number that was called, or another of ours."""
        return self.route.number or settings.TWILIO_PHONE_NUMBER

    def text(self, name: str) -> str:
        """An argument as one line of text; empty when the model left it out."""
        value = self.tool_call.arguments.get(name, "")
        return (
            " ".join(str(value).split())[:MAX_ARGUMENT_CHARS] if isinstance(value, str | int | float) else ""
        )


ToolFunction = Callable[[ToolUse], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as it is described to the model, and the function that runs it."""

    name: str
    description: str
    parameters: Mapping[str, str]  # name -> description; all are strings
    required: tuple[str, ...]
    run: ToolFunction


TOOLS: dict[str, Tool] = {}


def tool(
    description: str, *, required: tuple[str, ...] = (), **parameters: str
) -> Callable[[ToolFunction], ToolFunction]:
    """Register a function as a tool, under the function's name."""

    def register(function: ToolFunction) -> ToolFunction:
        name = function.__name__
        TOOLS[name] = Tool(name, description, parameters, required, function)
        return function

    return register


@tool(
    "Transfers the caller to a person. Use it when the caller asks for one, or when you cannot help."
    " Tell the caller first that you are connecting them.",
    reason="In a few words, what the caller wants. The person hears it before they are connected.",
)
async def transfer_call(use: ToolUse) -> str:
    if not use.route.fallback_number:
        raise ToolError("There is no person to transfer the caller to. Offer to take a message.")
    # Written before Twilio is asked: the stream may end before Twilio's response arrives.
    requested = EndRequested(use.call_sid, time.time(), TRANSFERRED, "assistant")
    use.bridge.journal.write(requested)
    try:
        await twilio_client.transfer(
            use.call_sid,
            use.route.fallback_number,
            reason=use.text("reason"),
            caller_id=choose_caller_id(use.caller, use.our_number),
            voice=Voice(use.route.say_language, use.route.say_voice),
        )
    except VendorError as error:
        if not error.may_have_happened:
            use.bridge.journal.write(replace(requested, withdrawn=True))
        raise ToolError("The person could not be dialed. Offer to take a message.") from error
    return "The caller is being connected."


@tool(
    "Ends the call. Use it when the caller has said goodbye or has nothing more to ask.",
    goodbye="The last words for the caller. Leave it out if you have said goodbye already.",
)
async def end_call(use: ToolUse) -> str:
    try:
        if goodbye := use.text("goodbye"):
            await vapi_client.say(use.vapi_call_id, goodbye, then_end_call=True)
        else:
            await vapi_client.end_call(await vapi_client.fetch_call(use.vapi_call_id))
    except VendorError as error:
        raise ToolError("The call could not be ended. The caller may hang up.") from error
    return "The call is ending."


@tool(
    "Presses keys on the telephone's keypad, to get through a menu at the other end.",
    required=("digits",),
    digits=f"The keys, such as 1w42#: 0-9, *, #, and w for half a second's wait; {MAX_KEYS} at most.",
)
async def send_dtmf(use: ToolUse) -> str:
    """Only checks the keys. The process that handles the call sees the tool call on Vapi's socket, too, and
    plays the keys there."""
    try:
        keys_of(use.tool_call)
    except ValueError as error:
        raise ToolError(f"Not pressed: {error}.") from None
    return "The keys are being pressed."


# What Vapi is sent


def build_declarations() -> list[dict[str, Any]]:
    """All tools, in the form of an assistant's `model.tools`."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": {
                    "type": "object",
                    "properties": {
                        name: {"type": "string", "description": description}
                        for name, description in tool.parameters.items()
                    },
                    "required": list(tool.required),
                },
            },
        }
        for tool in TOOLS.values()
    ]


Result = dict[str, str]
# By the id of the tool call. Vapi may repeat a request whose result is late, and the tool must run once: a
# second run of `transfer_call` would dial a person twice.
_results: OrderedDict[str, asyncio.Task[Result]] = OrderedDict()


async def run_tool(use: ToolUse) -> Result:
    """The result of one tool call, in Vapi's form."""
    tool_call = use.tool_call
    key = f"{use.vapi_call_id} {tool_call.id}"
    task = _results.get(key)
    if task is None:
        task = asyncio.ensure_future(_run(use))
        if tool_call.id:
            _results[key] = task
            if len(_results) > MAX_RESULTS:
                _results.popitem(last=False)
    return await asyncio.shield(task)


async def _run(use: ToolUse) -> Result:
    name = use.tool_call.name
    tool = TOOLS.get(name)
    head: Result = {"toolCallId": use.tool_call.id, "name": name}
    if tool is None:
        return head | {"error": "no such tool"}
    try:
        if not use.call_sid:
            raise ToolError("This call has no telephone line.")
        async with asyncio.timeout(TOOL_TIMEOUT_SECONDS):
            outcome = {"result": await tool.run(use)}
    except ToolError as error:
        outcome = {"error": str(error)}
    except TimeoutError:
        outcome = {"error": "It took too long, and may still have been done."}
    except Exception:
        logger.exception("%s ! tool %s", short_sid(use.call_sid), name)
        outcome = {"error": "It failed."}
    is_done = "result" in outcome
    logger.info("%s = tool %s: %s", short_sid(use.call_sid), name, "done" if is_done else outcome["error"])
    index = crc32(f"tool {use.tool_call.id} {name}".encode()) >> 1
    kind = "tool-done" if is_done else "tool-failed"
    data = {"tool": name, **outcome}
    if use.call_sid:
        use.bridge.journal.write(TimelineEvent(use.call_sid, index, kind, None, data, "vapi"))
    # Vapi wants each result on one line.
    return head | {key: " ".join(text.split()) for key, text in outcome.items()}
