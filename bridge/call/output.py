"""Output of the session: the actions for one event, in order, including journal entries. Pure."""

from __future__ import annotations

from typing import Any

from bridge.call.events import Action, WriteEntry
from bridge.call.report import CallReport
from bridge.journal import Entry


class CallOutput:
    """Collects the actions for the current event, from the session and its parts."""

    def __init__(self, report: CallReport) -> None:
        self.report = report
        self.counters = report.counters
        self._actions: list[Action] = []

    def begin(self) -> list[Action]:
        """Start a new event. Returns the list to which its actions will be added."""
        self._actions = []
        return self._actions

    def do(self, action: Action) -> None:
        self._actions.append(action)

    def write(self, entry: Entry) -> None:
        self._actions.append(WriteEntry(entry))

    def record(self, kind: str, now: float, **data: Any) -> None:
        """Add an event to the call's timeline. Events beyond a limit are counted only (`report.py`)."""
        entry = self.report.timeline_event(kind, now, data)
        if entry is not None:
            self.write(entry)
