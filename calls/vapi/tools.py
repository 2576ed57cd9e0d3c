"""What the assistant can do besides talking: its tools, each declared here, in one place.

Vapi's model calls a tool; Vapi asks `POST /vapi/events` for the result (`answer`) and tells it to the model.
`manage.py configure_assistant` makes the tools known to the assistant (`declarations`). To add one, write a
function below, say what it does to the model, and run that command again:

    @tool("Says whether the practice is open on a day.", day="A weekday, such as Monday.")
    async def opening_hours(use: ToolUse) -> str:
        return "Closed." if use.text("day") in ("Saturday", "Sunday") else "From eight to six."

What it returns is read by the model; `CannotDo` is too, as an error. Every tool has `SECONDS`, and a process
runs it once for each call of it, however often Vapi asks. Nothing here queries the database: rows follow
through the journal, as everywhere on a webhook's path.
"""

from __future__ import annotations

import asyncio
import logging
import time
from binascii import crc32
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.context import BridgeContext
from bridge.end_reasons import TRANSFERRED
from bridge.journal import EndRequested, TimelineEvent
from bridge.routes import Route
from bridge.tool_calls import MAX_KEYS, ToolCall, keys_of
from calls.masking import short_sid
from calls.twilio import client as twilio_client
from calls.vapi import client as vapi_client
from calls.vendor_errors import VendorError

log = logging.getLogger(__name__)

SECONDS = 8.0  # Vapi waits for ten
MAX_REMEMBERED = 1_000
MAX_TEXT = 200


class CannotDo(Exception):
    """The tool was not run; the message is a sentence for the model."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One call of a tool, and the telephone call in which it happens."""

    asked: ToolCall
    call_sid: str
    vapi_call_id: str
    route: Route
    bridge: BridgeContext

    def text(self, name: str) -> str:
        """An argument as one line of text; empty when the model gave none."""
        value = self.asked.arguments.get(name, "")
        return " ".join(str(value).split())[:MAX_TEXT] if isinstance(value, str | int | float) else ""


Run = Callable[[ToolUse], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Tool:
    """What the model is told of a tool, and what runs when it calls it."""

    name: str
    description: str
    parameters: Mapping[str, str]  # name -> what it is; all are strings
    required: tuple[str, ...]
    run: Run


TOOLS: dict[str, Tool] = {}


def tool(description: str, *, required: tuple[str, ...] = (), **parameters: str) -> Callable[[Run], Run]:
    """Declare a function as a tool of its own name."""

    def declared(run: Run) -> Run:
        name = run.__name__
        TOOLS[name] = Tool(name, description, parameters, required, run)
        return run

    return declared


@tool(
    "Hands the caller over to a person. Use it when the caller asks for one, or when you cannot help."
    " Tell the caller first that you are connecting them.",
    reason="In a few words, what the caller wants. The person hears it before they are connected.",
)
async def transfer_call(use: ToolUse) -> str:
    person = use.route.fallback_number
    if not person:
        raise CannotDo("There is no person to hand the caller over to. Offer to take a message.")
    asked = EndRequested(use.call_sid, time.time(), TRANSFERRED, "assistant")
    use.bridge.journal.write(asked)
    try:
        await twilio_client.transfer(use.call_sid, person, about=use.text("reason"))
    except VendorError as failure:
        if not failure.may_have_happened:
            use.bridge.journal.write(
                EndRequested(asked.call_sid, asked.at, TRANSFERRED, "assistant", withdrawn=True)
            )
        raise CannotDo("The person could not be dialled. Offer to take a message.") from failure
    return "The caller is being connected."


@tool(
    "Ends the call. Use it when the caller has said goodbye or has nothing more to ask.",
    goodbye="The last words for the caller. Leave it out if you have said goodbye already.",
)
async def end_call(use: ToolUse) -> str:
    try:
        if goodbye := use.text("goodbye"):
            await vapi_client.say(use.vapi_call_id, goodbye, then_end=True)
        else:
            await vapi_client.end_call(await vapi_client.fetch_call(use.vapi_call_id))
    except VendorError as failure:
        raise CannotDo("The call could not be ended. The caller may hang up.") from failure
    return "The call is ending."


@tool(
    "Presses keys on the telephone's keypad, to get through a menu at the other end.",
    required=("digits",),
    digits=f"The keys, such as 1w42#: 0-9, *, #, and w for half a second's wait; {MAX_KEYS} at most.",
)
async def send_dtmf(use: ToolUse) -> str:
    """Played by the process that holds the line: it hears of the tool's call over the assistant's socket."""
    try:
        keys_of(use.asked)
    except ValueError as problem:
        raise CannotDo(f"Not pressed: {problem}.") from None
    return "The keys are being pressed."


# What Vapi is told of them, and what it asks


def declarations() -> list[dict[str, Any]]:
    """All tools, as an assistant's `model.tools` lists them."""
    return [
        {
            "type": "function",
            "function": {
                "name": each.name,
                "description": each.description,
                "parameters": {
                    "type": "object",
                    "properties": {
                        name: {"type": "string", "description": about}
                        for name, about in each.parameters.items()
                    },
                    "required": list(each.required),
                },
            },
        }
        for each in TOOLS.values()
    ]


Result = dict[str, str]
# By the id of the tool's call: Vapi asks again when an answer is late, and a caller is dialled once.
_answers: OrderedDict[str, asyncio.Task[Result]] = OrderedDict()


async def answer(
    asked: ToolCall, call_sid: str, vapi_call_id: str, route: Route, bridge: BridgeContext
) -> Result:
    """The result of one call of a tool, as Vapi wants it."""
    key = f"{vapi_call_id} {asked.id}"
    running = _answers.get(key)
    if running is None:
        use = ToolUse(asked, call_sid, vapi_call_id, route, bridge)
        running = asyncio.ensure_future(_answered(use))
        if asked.id:
            _answers[key] = running
            if len(_answers) > MAX_REMEMBERED:
                _answers.popitem(last=False)
    return await asyncio.shield(running)


async def _answered(use: ToolUse) -> Result:
    name = use.asked.name
    found = TOOLS.get(name)
    told: Result = {"toolCallId": use.asked.id, "name": name}
    if found is None:
        return told | {"error": "no such tool"}
    try:
        if not use.call_sid:
            raise CannotDo("This is not a call on the telephone.")
        async with asyncio.timeout(SECONDS):
            said = {"result": await found.run(use)}
    except CannotDo as refusal:
        said = {"error": str(refusal)}
    except TimeoutError:
        said = {"error": "It took too long, and may have been done all the same."}
    except Exception:
        log.exception("%s ! tool %s", short_sid(use.call_sid), name)
        said = {"error": "It failed."}
    done = "result" in said
    log.info("%s = tool %s: %s", short_sid(use.call_sid), name, "done" if done else said["error"])
    index = crc32(f"tool {use.asked.id} {name}".encode()) >> 1
    facts = {"tool": name, **said}
    use.bridge.journal.write(
        TimelineEvent(use.call_sid, index, "tool-done" if done else "tool-failed", None, facts, "vapi")
    )
    return told | {key: " ".join(text.split()) for key, text in said.items()}
