"""Terminal output of a simulated call: its events as they happen, then a summary.

On a terminal, a panel shows the signs of a good call and the frame counters; otherwise there are plain
lines. With `--json` all of it goes to stderr, because stdout carries the JSON.
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

from calls.demo.artifacts import CallArtifacts, CallRows
from calls.demo.check_result import SIGNS, Check
from sandbox.vapi.record import VapiCallRecord

SPEAKER_STYLES = {"caller": "cyan", "assistant": "magenta"}


class CallConsole:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._started_at = time.monotonic()
        self._signs: dict[str, bool] = dict.fromkeys(SIGNS, False)
        self._floor = "nobody"
        self._call: VapiCallRecord | None = None
        self._live: Live | None = None

    def start_panel(self) -> None:
        self._started_at = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._render_panel, refresh_per_second=4)
            self._live.start()

    def stop_panel(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    # Events

    def on_twilio_event(self, kind: str, data: Mapping[str, object]) -> None:
        match kind:
            case "webhook":
                self._signs["webhook 200"] |= data["status"] == 200
                self._print_event("twilio", f"webhook {data['path']} {data['status']} in {data['ms']} ms")
            case "connected":
                self._set_sign("media socket open")
                self._print_event("twilio", "media socket open")
            case "saying":
                self._floor = "caller"
                self._print_event("caller", f"“{data['text']}”" if data["text"] else f"plays {data['name']}")
            case "heard-audio":
                self._set_sign("audio to the caller")
                self._floor = "assistant"
                self._print_event("caller", "hears the assistant")
            case "cleared":
                self._print_event("twilio", f"clear: {data['dropped_ms']} ms of audio dropped")
            case "digit":
                self._print_event("caller", f"presses {data['digit']}")
            case "hung-up":
                self._print_event("caller", "hangs up")
            case "closed":
                self._print_event("twilio", f"media socket closed, {data['code']}")
            case _:
                self._print_event("twilio", " ".join([kind, *map(str, data.values())]))

    def on_vapi_event(self, call: VapiCallRecord, event: str) -> None:
        self._call = call
        if event == "= open":
            self._set_sign("assistant connected")
            self._print_event("vapi", f"assistant connected ({call.dialect} dialect)")
        elif event == "< audio":
            self._set_sign("audio to the assistant")
            self._print_event("vapi", "hears the caller")
        elif event.startswith("> audio"):
            self._print_event("assistant", f"“{call.replies[-1].text}”")
        elif event in ("= barge-in", "< cancel"):
            self._print_event("vapi", "barge-in")
        elif event == "< add-message":
            self._print_event("vapi", f"received the keys {''.join(call.digits_received)}")
        elif event.startswith("= ended"):
            self._print_event("vapi", event.removeprefix("= "))

    def _set_sign(self, name: str) -> None:
        self._signs[name] = True

    def _print_event(self, source: str, text: str) -> None:
        line = Text(f"{time.monotonic() - self._started_at:6.2f} s  ", style="dim")
        line.append(f"{source:<10}", style=SPEAKER_STYLES.get(source, "yellow")).append(text)
        self._console.print(line, soft_wrap=True)

    def _render_panel(self) -> Panel:
        text = Text()
        for name, is_set in self._signs.items():
            text.append("● " if is_set else "○ ", style="green" if is_set else "dim")
            text.append(f"{name}   ", style="" if is_set else "dim")
        call = self._call
        to_assistant = len(call.received) if call else 0
        to_caller = sum(len(reply.chunks) for reply in call.replies) if call else 0
        text.append(f"\nfloor: {self._floor:<10} to the assistant: {to_assistant} frames   ")
        text.append(f"to the caller: {to_caller} chunks")
        return Panel(text, title="call", border_style="dim")

    # Summary

    def print_summary(self, artifacts: CallArtifacts, checks: Sequence[Check]) -> None:
        rows = artifacts.rows
        if rows is not None:
            self._print_transcript(rows)
            self._print_turns(rows, artifacts.true_latencies_ms)
            self.print(
                f"Frames: {rows.frames_to_assistant} to the assistant ({rows.frames_held} held while "
                f"connecting, {rows.frames_dropped} dropped), {rows.frames_to_caller} messages to caller. "
                f"Barge-ins: {rows.barge_ins}. Assistant connected after {rows.connect_ms} ms. "
                f"End reason: {rows.end_reason}. Ended by: {rows.ended_by}."
            )
        table = Table(title="Checks", title_justify="left", box=None, pad_edge=False)
        for heading in ("result", "check", "details"):
            table.add_column(heading, overflow="fold")
        for check in checks:
            result = Text(
                "passed" if check.passed else "FAILED", style="green" if check.passed else "bold red"
            )
            table.add_row(result, check.name, check.detail)
        self._print_table(table)

    def _print_transcript(self, rows: CallRows) -> None:
        table = Table(title="Transcript (from the database)", title_justify="left", box=None, pad_edge=False)
        table.add_column("speaker")
        table.add_column("text", overflow="fold")
        for row in rows.utterances:
            suffix = " (interrupted)" if row.interrupted else ""
            table.add_row(Text(row.speaker, style=SPEAKER_STYLES[row.speaker]), row.text + suffix)
        self._print_table(table)

    def _print_turns(self, rows: CallRows, true_latencies_ms: Sequence[float]) -> None:
        table = Table(title="Turns", title_justify="left", box=None, pad_edge=False)
        for heading in ("turn", "response latency", "measured", "bridge overhead", ""):
            table.add_column(heading, justify="right")
        for turn, true_ms in zip(rows.turns, [*true_latencies_ms, *[None] * 99], strict=False):
            table.add_row(
                str(turn.number),
                _format(turn.response_latency_ms, "ms"),
                _format(true_ms, "ms"),
                _format(turn.bridge_overhead_us, "µs"),
                "interrupted" if turn.interrupted else "",
            )
        self._print_table(table)

    def _print_table(self, table: Any) -> None:
        self._console.print()
        self._console.print(table)


def _format(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.0f} {unit}"
