"""What the session answers an event with: actions in order, journal entries among them. Pure."""

from __future__ import annotations

from typing import Any

from bridge.call.events import Action, WriteEntry
from bridge.call.report import CallReport
from bridge.journal import Entry


class CallOutput:
    """The actions of one call. Whoever handles a part of an event adds to them."""

    def __init__(self, report: CallReport) -> None:
        self.report = report
        self.counters = report.counters
        self._actions: list[Action] = []

    def begin(self) -> list[Action]:
        """A new event: the list that its actions will be added to."""
        self._actions = []
        return self._actions

    def do(self, action: Action) -> None:
        self._actions.append(action)

    def write(self, entry: Entry) -> None:
        self._actions.append(WriteEntry(entry))

    def record(self, kind: str, now: float, **data: Any) -> None:
        """Add an event to the call's timeline. A flood of events is cut off and counted (`report.py`)."""
        entry = self.report.timeline_event(kind, now, data)
        if entry is not None:
            self.write(entry)
