"""What the person at the keyboard sees: the call as it happens, then what it left behind.

On a terminal a panel keeps the four signs and the counters in view; anywhere else there are plain lines.
Everything goes to stderr when stdout is promised to a program.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from calls.demo.assertions import Check
from calls.demo.evidence import Evidence
from sandbox.vapi.record import AssistantCall

SIGNS = ("webhook 200", "media socket up", "assistant up", "audio to the assistant", "audio to the caller")
SAYS = {"caller": "cyan", "assistant": "magenta"}


class Screen:
    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._signs: dict[str, bool] = dict.fromkeys(SIGNS, False)
        self._floor = "nobody"
        self._call: AssistantCall | None = None
        self._live: Live | None = None

    def open(self) -> None:
        self._began = time.monotonic()
        if self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._panel, refresh_per_second=4)
            self._live.start()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    # The call, as it happens

    def carrier(self, kind: str, data: Mapping[str, object]) -> None:
        match kind:
            case "webhook":
                self._signs["webhook 200"] |= data["status"] == 200
                self._line("twilio", f"webhook {data['path']} {data['status']} in {data['ms']} ms")
            case "connected":
                self._sign("media socket up")
                self._line("twilio", "media socket up")
            case "saying":
                self._floor = "caller"
                self._line("caller", f"“{data['text']}”" if data["text"] else f"plays {data['name']}")
            case "heard-audio":
                self._sign("audio to the caller")
                self._floor = "assistant"
                self._line("caller", "hears the assistant")
            case "cleared":
                self._line("twilio", f"clear: {data['dropped_ms']} ms of audio dropped")
            case "digit":
                self._line("caller", f"presses {data['digit']}")
            case "hung-up":
                self._line("caller", "hangs up")
            case "closed":
                self._line("twilio", f"media socket closed, {data['code']}")
            case _:
                self._line("twilio", " ".join([kind, *map(str, data.values())]))

    def assistant(self, call: AssistantCall, what: str) -> None:
        self._call = call
        if what == "= open":
            self._sign("assistant up")
            self._line("vapi", f"assistant up ({call.dialect} dialect)")
        elif what == "< audio":
            self._sign("audio to the assistant")
            self._line("vapi", "hears the caller")
        elif what.startswith("> audio"):
            self._line("assistant", f"“{call.replies[-1].text}”")
        elif what == "= barge-in" or what == "< cancel":
            self._line("vapi", "the caller cut in")
        elif what == "< add-message":
            self._line("vapi", f"was told the keys {''.join(call.digits_told)}")
        elif what.startswith("= ended"):
            self._line("vapi", what.removeprefix("= "))

    def _sign(self, name: str) -> None:
        self._signs[name] = True

    def _line(self, who: str, what: str) -> None:
        line = Text(f"{time.monotonic() - self._began:6.2f} s  ", style="dim")
        line.append(f"{who:<10}", style=SAYS.get(who, "yellow")).append(what)
        self.console.print(line, soft_wrap=True)

    def _panel(self) -> Panel:
        text = Text()
        for name, seen in self._signs.items():
            text.append("● " if seen else "○ ", style="green" if seen else "dim")
            text.append(f"{name}   ", style="" if seen else "dim")
        call = self._call
        to_assistant = len(call.received) if call else 0
        to_caller = sum(len(reply.chunks) for reply in call.replies) if call else 0
        text.append(f"\nfloor: {self._floor:<10} to the assistant: {to_assistant} frames   ")
        text.append(f"to the caller: {to_caller} chunks")
        return Panel(text, title="call", border_style="dim")

    # What it left behind

    def show(self, evidence: Evidence, checks: Sequence[Check], truths_ms: Sequence[float]) -> None:
        if evidence.rows is not None:
            self._transcript(evidence)
            self._turns(evidence, truths_ms)
            rows = evidence.rows
            self.say(
                f"Frames: {rows.frames_to_assistant} to the assistant ({rows.frames_held} held while it was "
                f"dialled, {rows.frames_dropped} dropped), {rows.frames_to_caller} messages to the caller. "
                f"Barge-ins: {rows.barge_ins}. Assistant connected after {rows.connect_ms} ms. "
                f"Ended: {rows.end_reason}, by {rows.ended_by}."
            )
        table = Table(title="Verdict", title_justify="left", box=None, pad_edge=False)
        for heading in ("", "check", "what was found"):
            table.add_column(heading, overflow="fold")
        for check in checks:
            sign = Text("held" if check.held else "FAILED", style="green" if check.held else "bold red")
            table.add_row(sign, check.name, check.detail)
        self._print(table)

    def _transcript(self, evidence: Evidence) -> None:
        assert evidence.rows is not None
        table = Table(title="Transcript, from the database", title_justify="left", box=None, pad_edge=False)
        table.add_column("speaker")
        table.add_column("words", overflow="fold")
        for said in evidence.rows.utterances:
            cut = " — cut off" if said.interrupted else ""
            table.add_row(Text(said.speaker, style=SAYS[said.speaker]), said.text + cut)
        self._print(table)

    def _turns(self, evidence: Evidence, truths_ms: Sequence[float]) -> None:
        assert evidence.rows is not None
        table = Table(title="Turns", title_justify="left", box=None, pad_edge=False)
        for heading in ("turn", "response latency", "truth", "bridge overhead", ""):
            table.add_column(heading, justify="right")
        for turn, truth_ms in zip(evidence.rows.turns, [*truths_ms, *[None] * 99], strict=False):
            table.add_row(
                str(turn.number),
                _in(turn.response_latency_ms, "ms"),
                _in(truth_ms, "ms"),
                _in(turn.bridge_overhead_us, "µs"),
                "cut off" if turn.interrupted else "",
            )
        self._print(table)

    def _print(self, what: Any) -> None:
        self.console.print()
        self.console.print(what)


def _in(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.0f} {unit}"
