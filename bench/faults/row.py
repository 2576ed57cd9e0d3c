"""One row of the fault table: what is staged, what is promised, and what was seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path


class CannotStage(Exception):
    """This machine cannot stage the row; the message says why."""


@dataclass(slots=True)
class Findings:
    """What a row saw. Each figure that misses its limit fails the row."""

    figures: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.figures.append(text)

    def limit(self, name: str, value: float, most: float, unit: str = "s") -> None:
        """The value may be at most so large."""
        text = f"{name} {value:.2f} {unit}" if isinstance(value, float) else f"{name} {value} {unit}"
        (self.figures if value <= most else self.failures).append(text.rstrip())

    def expect(self, condition: object, text: str) -> None:
        """The text says what is wrong if the condition does not hold."""
        if not condition:
            self.failures.append(text)


Stage = Callable[[Path, Findings], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Row:
    number: str  # F1 to F28
    name: str
    target: str
    stage: Stage


ROWS: dict[str, Row] = {}


def row(number: str, name: str, target: str) -> Callable[[Stage], Stage]:
    """Add a function to the table. It gets an empty folder, and puts what it sees into the findings."""

    def add(stage: Stage) -> Stage:
        ROWS[number] = Row(number, name, target, stage)
        return stage

    return add
