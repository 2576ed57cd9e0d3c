"""One real message per file, both wires; `sent/` holds what we send."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def sample(name: str) -> str:
    """The text of one message, by its path without the suffix: `twilio/media`."""
    return (_HERE / f"{name}.json").read_text(encoding="utf-8").strip()
